"""Load generators and comparisons, runnable by anyone."""
