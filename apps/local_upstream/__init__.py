"""An OpenAI-compatible endpoint for people without an API key: a real small model, served from this machine."""
