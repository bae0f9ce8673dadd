"""What both services need and neither owns: settings, logs, rich status, metrics endpoint, server life cycle."""
