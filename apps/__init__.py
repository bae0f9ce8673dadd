"""Processes around the services. They reach the services through `pointsman.client`, as any caller does."""
