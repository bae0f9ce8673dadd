"""Load generators and comparisons, runnable by anyone: see README.md."""
