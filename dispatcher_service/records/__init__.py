"""What is kept of requests: the log, the look-up, redacted text by opt-in, feedback, shadows, and forgetting."""
