"""The table of what Pointsman costs, next to what others cost.

    python -m benchmarks [--full] [--only NAME …]

Every row is measured here and now: our side and the other in turn (A B A B), medians, spread in brackets. Results go to
benchmarks/results/, with the machine. What cannot be measured says why.
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import dispatcher_rows, h2load, machine, peers, scorer_rows, table
from benchmarks.table import Row

RESULTS = Path(__file__).parent / "results"

Benchmark = Callable[[], Sequence[Row]]


def _benchmarks(*, full: bool) -> Mapping[str, Benchmark]:
    """By name, in the order of the table."""
    dispatcher = dispatcher_rows.FULL if full else dispatcher_rows.QUICK
    scorer = scorer_rows.FULL if full else scorer_rows.QUICK
    return {
        "litellm": lambda: dispatcher_rows.against_litellm(dispatcher),
        "envoy": lambda: dispatcher_rows.against_envoy(dispatcher),
        "streaming": lambda: dispatcher_rows.streaming(dispatcher),
        "echo": lambda: scorer_rows.against_echo(scorer),
        "direct": lambda: scorer_rows.against_direct(scorer),
        "memory": lambda: dispatcher_rows.memory(dispatcher),
        "start": lambda: scorer_rows.start(scorer),
    }


def main(argv: list[str]) -> int:
    """Measure and print; returns the exit code, which says nothing of the targets: the table does."""
    names = list(_benchmarks(full=False))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more rounds and calls")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    given = parser.parse_args(argv)
    rows: list[Row] = []
    for name, benchmark in _benchmarks(full=given.full).items():
        if name in given.only:
            print(f"{name} …", file=sys.stderr, flush=True)
            rows += _measured(name, benchmark)
    print(f"\n{machine.description()}; load average {machine.load():.1f} at the end; commit {_commit()}\n")
    print(table.render(rows))
    print(f"\nwritten to {_write(rows, full=given.full)}", file=sys.stderr)
    return 0


def _measured(name: str, benchmark: Benchmark) -> Sequence[Row]:
    began = time.monotonic()
    try:
        rows = benchmark()
    except (peers.Missing, h2load.LoadFailed, subprocess.TimeoutExpired) as error:
        rows = [Row(what=name, against="", target="", note=" ".join(str(error).split()))]
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def _write(rows: Sequence[Row], *, full: bool) -> Path:
    now = datetime.datetime.now(tz=datetime.UTC)
    path = RESULTS / f"{'full' if full else 'quick'}.json"
    result = {
        "measured_at": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine.description(),
        "load_average": machine.load(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
