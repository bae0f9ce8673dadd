"""The ledger's promises under SIGKILL, in numbers. Exits 1 if one is broken.

    python -m benchmarks.budget_proofs fleet [--dispatchers 4] [--calls 10000] [--concurrency 32]
    python -m benchmarks.budget_proofs kills [--backend sqlite|valkey] [--kills 50]
    python -m benchmarks.budget_proofs restarts [--restarts 10]

`fleet`: dispatchers share one limit on Valkey, with room for 95 % of the calls. `kills`: a dispatcher is killed at a
random moment under load, and another takes over. `restarts`: Valkey with an append-only file is killed under load and
started again. See tests/proofs.py for what is compared with what.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests import proofs


def main(argv: list[str]) -> int:
    """Run one proof and print what it measured; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    fleet = kinds.add_parser("fleet")
    fleet.add_argument("--dispatchers", type=int, default=4)
    fleet.add_argument("--calls", type=int, default=10_000)
    fleet.add_argument("--concurrency", type=int, default=32)
    kills = kinds.add_parser("kills")
    kills.add_argument("--backend", choices=("sqlite", "valkey"), default="sqlite")
    kills.add_argument("--kills", type=int, default=50)
    restarts = kinds.add_parser("restarts")
    restarts.add_argument("--restarts", type=int, default=10)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.kind == "fleet":
            found = proofs.one_limit_for_many(
                folder, dispatchers=options.dispatchers, calls=options.calls, concurrency=options.concurrency
            )
            books = found.books
            print(
                f"{options.dispatchers} dispatchers, {options.calls} calls, {options.concurrency} at once: "
                f"{dict(found.load.statuses)} in {found.load.seconds:.0f} s\n"
                f"highest committed {found.highest_committed / books.limit:.2%} of the limit, used {found.usable:.2%}"
            )
        elif options.kind == "kills":
            books = proofs.killed_under_load(folder, options.backend, kills=options.kills)
            print(f"{options.kills} kills of a dispatcher on {options.backend}")
        else:
            restarted = proofs.server_restarted(folder, restarts=options.restarts)
            books = restarted.books
            print(f"{options.restarts} kills of Valkey: {dict(restarted.load.statuses)}")
    print(books)
    try:
        books.check()
    except AssertionError as error:
        print(f"BROKEN: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
