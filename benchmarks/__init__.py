"""Load generators and comparisons that anyone can run: `python -m benchmarks.NAME --help`."""
