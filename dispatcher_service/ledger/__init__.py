"""The money book: one contract, three backends. `open_ledger` chooses by URL."""
