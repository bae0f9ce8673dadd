"""Several processes of one service behind one gRPC port and one metrics port.

`supervisor` is the parent: it holds no gRPC, starts workers (`spawning`), replaces those that die, and passes signals
on. `link` is its line to each worker. `merging` makes one set of metrics of all of theirs.
"""
