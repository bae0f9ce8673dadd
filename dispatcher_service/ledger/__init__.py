"""The money book: one contract, three backends. `opening.open_ledger` chooses by URL."""
