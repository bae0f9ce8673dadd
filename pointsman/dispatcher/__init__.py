"""Generated from protos/; `make protos` regenerates."""
