"""The OpenAI-compatible front door: any OpenAI SDK can point at Pointsman."""
