"""The whole line on one machine: `pointsman demo` shows it, `pointsman run` keeps it up."""
