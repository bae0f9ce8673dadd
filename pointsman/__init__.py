"""What callers import: the contract's generated stubs, the client and the command line."""
