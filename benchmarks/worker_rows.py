"""Two dispatcher processes behind one port against one, on the same cores as everything else."""

import resource
from collections import Counter
from dataclasses import dataclass

from benchmarks import machine, servers
from benchmarks.rig import Rig, rig
from benchmarks.table import Row, Sides, compared

_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    calls: int


FULL = Size(rounds=3, calls=6_000)
QUICK = Size(rounds=1, calls=1_000)


def two_against_one(size: Size) -> list[Row]:
    """Nothing is pinned but the generator: two workers, scorer, upstream and generator share the machine's cores."""
    with rig(cores=machine.EVERY) as one, rig(cores=machine.EVERY, DISPATCHER_WORKERS="2") as two:
        ones, twos, spent, seconds = [], [], Counter[str](), 0.0
        for _ in range(size.rounds):
            ones.append(one.complete(size.calls, _IN_FLIGHT).per_second)
            before = _cpu(two)
            twos.append(two.complete(size.calls, _IN_FLIGHT).per_second)
            spent.update({part: after - before[part] for part, after in _cpu(two).items()})
            seconds += size.calls / twos[-1]
    cores = len(machine.EVERY)
    shares = ", ".join(f"{part} {value / seconds / cores:.0%}" for part, value in spent.items())
    return [
        compared(
            f"dispatcher Complete, 2 workers, {_IN_FLIGHT} in flight",
            "1 worker",
            Sides(twos, ones),
            unit="calls/s",
            at_least=1.5,
            note=f"of {cores} cores' time at two workers: {shares}",
        )
    ]


def _cpu(rig: Rig) -> dict[str, float]:
    """Seconds of CPU so far. Of the generators, those that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "dispatcher": servers.cpu_seconds(rig.dispatcher.pid),
        "scorer": servers.cpu_seconds(rig.scorer.pid),
        "upstream": servers.cpu_seconds(rig.upstream_pid),
        "generator": children.ru_utime + children.ru_stime,
    }
