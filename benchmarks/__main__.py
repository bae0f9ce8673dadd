"""The table of what Pointsman costs, next to what others cost.

    python -m benchmarks                    the rows that `make bench` prints, in less than five minutes
    python -m benchmarks --full             all rows, with more rounds and calls, in about twenty
    python -m benchmarks --full --quick     all rows, with few calls: to see that they run
    python -m benchmarks --only NAME …      some of them

Every row is measured here and now: our side and the other in turn (A B A B), medians, spread in brackets. Results go to
benchmarks/results/, with the machine. What cannot be measured says why, and the rest goes on.
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    batching_rows,
    dispatcher_rows,
    growth,
    h2load,
    machine,
    overload_rows,
    peers,
    scorer_rows,
    table,
    worker_rows,
)
from benchmarks.table import Row

RESULTS = Path(__file__).parent / "results"
DEFAULT = ("litellm", "bare", "envoy", "streaming", "echo", "direct", "memory", "start")

Benchmark = Callable[[], Sequence[Row]]


def _benchmarks(*, full: bool, artifact: Path | None) -> Mapping[str, Benchmark]:
    """By name, in the order of the table."""
    dispatcher = dispatcher_rows.FULL if full else dispatcher_rows.QUICK
    scorer = scorer_rows.FULL if full else scorer_rows.QUICK
    batching = batching_rows.FULL if full else batching_rows.QUICK
    workers = worker_rows.FULL if full else worker_rows.QUICK
    overload = overload_rows.FULL if full else overload_rows.QUICK
    growing = growth.FULL if full else growth.QUICK
    return {
        "litellm": lambda: dispatcher_rows.against_litellm(dispatcher),
        "bare": lambda: dispatcher_rows.against_bare(dispatcher),
        "envoy": lambda: dispatcher_rows.against_envoy(dispatcher),
        "streaming": lambda: dispatcher_rows.streaming(dispatcher),
        "workers": lambda: worker_rows.two_against_one(workers),
        "echo": lambda: scorer_rows.against_echo(scorer),
        "direct": lambda: scorer_rows.against_direct(scorer),
        "batching": lambda: batching_rows.against_onnx(artifact, batching),
        "overload": lambda: overload_rows.overload(overload),
        "arrivals": lambda: overload_rows.arrivals(overload),
        "memory": lambda: dispatcher_rows.memory(dispatcher),
        "start": lambda: scorer_rows.start(scorer),
        "growth": lambda: growth.curves(growing, RESULTS),
    }


def main(argv: list[str]) -> int:
    """Measure and print; returns the exit code, which says nothing of the targets: the table does."""
    names = list(_benchmarks(full=False, artifact=None))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all rows, more rounds and calls")
    parser.add_argument("--quick", action="store_true", help="with --full: few rounds and calls")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--artifact", type=Path, metavar="DIR", help="an artefact on MiniLM, for the row `batching`")
    given = parser.parse_args(argv)
    wanted = given.only or (names if given.full else DEFAULT)
    rows: list[Row] = []
    began = time.monotonic()
    for name, benchmark in _benchmarks(full=given.full and not given.quick, artifact=given.artifact).items():
        if name in wanted:
            print(f"{name} …", file=sys.stderr, flush=True)
            rows += _measured(name, benchmark)
            path = _write(rows, name="full" if given.full else "quick")
    print(f"\n{machine.description()}; load average {machine.load():.1f} at the end; commit {_commit()}\n")
    print(table.render(rows))
    print(f"\n{time.monotonic() - began:.0f} s; written to {path}", file=sys.stderr)
    return 0


def _measured(name: str, benchmark: Benchmark) -> Sequence[Row]:
    began = time.monotonic()
    try:
        rows = benchmark()
    except Exception as error:  # noqa: BLE001 — the other rows do not depend on this one, and nobody may be watching.
        if not isinstance(error, peers.Missing | h2load.LoadFailed | subprocess.TimeoutExpired):
            traceback.print_exc()
        note = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        rows = [Row(what=name, against="", target="", note=note)]
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def _write(rows: Sequence[Row], *, name: str) -> Path:
    now = datetime.datetime.now(tz=datetime.UTC)
    path = RESULTS / f"{name}.json"
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
