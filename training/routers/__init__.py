"""One module per kind of router."""
