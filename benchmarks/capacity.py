"""What a rate of calls takes: measured points on this machine, and a model up to ten times beyond them.

    python -m benchmarks.capacity [--quick] [--usd-per-core-hour 0.04] [--write deploy/README.md]

Prints the section "Capacity" of the operations guide as Markdown; `--write` puts it between the file's two marks. The
model is arithmetic on what was measured, CPU per call and the ledger's time per call, and says so. Takes two minutes.
"""

import argparse
import asyncio
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import h2load, ledger_speed, machine, servers
from benchmarks.rig import Rig, rig
from dispatcher_service.ledger.opening import open_ledger
from tests.proofs import valkey

_BEGIN, _END = "<!-- capacity: written by benchmarks.capacity -->", "<!-- capacity: end -->"
_BUSY = 0.6
"""The part of a core that a replica is planned to use: the charts' autoscaling target."""
_LEAST_REPLICAS = 2
_SHARES = (0.25, 0.5, 0.75, 0.9)
_FACTORS = (1, 2, 5, 10)
_LEDGER = "pointsman_dispatcher_ledger_seconds_count"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    peak_calls: int
    seconds: float
    ledger_calls: int


FULL = Size(peak_calls=4_000, seconds=10, ledger_calls=3_000)
QUICK = Size(peak_calls=500, seconds=3, ledger_calls=300)


@dataclass(frozen=True, slots=True)
class Point:
    """One offered rate, and what it took. CPU is in cores, times in seconds."""

    offered: float
    answered: float
    median: float
    p99: float
    dispatcher_cpu: float
    scorer_cpu: float
    ledger_steps: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a call takes of a dispatcher's core, a scorer's, one SQLite file and one Valkey's core."""

    dispatcher: float
    scorer: float
    sqlite: float
    valkey: float
    ledger_steps: float
    """Steps of the ledger per call."""


def measure(size: Size) -> tuple[Sequence[Point], Costs]:
    """Points at parts of one dispatcher's peak, and costs per call at the greatest of them."""
    with rig() as ours:
        peak = ours.complete(size.peak_calls, 32).per_second
        points = [_point(ours, share * peak, size.seconds) for share in _SHARES]
    busiest = points[-1]
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as server:
        sqlite = asyncio.run(ledger_speed.measure(open_ledger(f"sqlite:{folder}/ledger.sqlite"), size.ledger_calls))
        before = servers.cpu_seconds(server.pid)
        answers = asyncio.run(ledger_speed.measure(open_ledger(server.url), size.ledger_calls))
        # The warm-up's calls are counted by the process, and not among the answers.
        valkey_seconds = (servers.cpu_seconds(server.pid) - before) / (len(answers) * 1.1)
    costs = Costs(
        dispatcher=busiest.dispatcher_cpu / busiest.answered,
        scorer=busiest.scorer_cpu / busiest.answered,
        sqlite=sorted(sqlite)[len(sqlite) // 2],
        valkey=valkey_seconds,
        ledger_steps=busiest.ledger_steps / busiest.answered,
    )
    return points, costs


def _point(ours: Rig, per_second: float, seconds: float) -> Point:
    def spent() -> tuple[float, ...]:
        return (
            ours.answered(),
            servers.cpu_seconds(ours.dispatcher.pid),
            servers.cpu_seconds(ours.scorer.pid),
            servers.counter(ours.dispatcher.metrics, _LEDGER),
        )

    before = spent()
    load = h2load.arrive(ours.target(), per_second=per_second, seconds=seconds)
    answered, dispatcher, scorer, steps = (
        (now - then) / (load.calls / load.per_second) for now, then in zip(spent(), before, strict=True)
    )
    return Point(load.per_second, answered, load.median, load.p99, dispatcher, scorer, steps)


def render(points: Sequence[Point], costs: Costs, *, usd_per_core_hour: float) -> str:
    """The section, as Markdown."""
    greatest = points[-1].answered
    measured = _table(
        ("calls/s", "median", "p99", "dispatcher", "scorer", "ledger steps/s"),
        [
            (
                f"{point.answered:,.0f}",
                f"{point.median * 1e3:.1f} ms",
                f"{point.p99 * 1e3:.1f} ms",
                f"{point.dispatcher_cpu:.2f} cores",
                f"{point.scorer_cpu:.2f} cores",
                f"{point.ledger_steps:,.0f}",
            )
            for point in points
        ],
    )
    modelled = _table(
        ("calls/s", "dispatchers", "scorers", "ledger steps/s", "SQLite file", "Valkey", "cores", "per million calls"),
        [_modelled(factor * greatest, costs, usd_per_core_hour) for factor in _FACTORS],
    )
    milliseconds = {name: f"{seconds * 1e3:.2f} ms" for name, seconds in asdict(costs).items()}
    return f"""\
Measured on {machine.description()}.
One dispatcher with everything on (three limits in SQLite, pacing, decision log), one scorer with the shipped artefact,
an upstream that answers at once; calls arrive at random (Poisson).

{measured}

**Model, not measured.** A call takes {milliseconds["dispatcher"]} of a dispatcher's core,
{milliseconds["scorer"]} of a scorer's, and {costs.ledger_steps:.1f} steps of the ledger.
A replica has one core and is planned at {_BUSY:.0%} of it; there are at least {_LEAST_REPLICAS} of each.
A core costs ${usd_per_core_hour:g} an hour; the ledger is counted as one.
Upstreams' limits, network and TLS are not in it.

{modelled}

{_what_saturates(costs)}"""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---:"] * len(header), *rows))


def _modelled(rate: float, costs: Costs, usd_per_core_hour: float) -> Sequence[str]:
    dispatchers, scorers = _replicas(rate * costs.dispatcher), _replicas(rate * costs.scorer)
    usd_per_hour = (dispatchers + scorers + 1) * usd_per_core_hour
    return (
        f"{rate:,.0f}",
        f"{dispatchers}",
        f"{scorers}",
        f"{rate * costs.ledger_steps:,.0f}",
        _busy(rate * costs.sqlite),
        _busy(rate * costs.valkey),
        f"${usd_per_hour:.2f} an hour",
        f"${usd_per_hour / (rate * 3600) * 1e6:.2f}",
    )


def _replicas(cores: float) -> int:
    return max(math.ceil(cores / _BUSY), _LEAST_REPLICAS)


def _busy(part: float) -> str:
    return f"{part:.0%} busy" if part < 1 else f"{part:.0%}: not possible"


def _what_saturates(costs: Costs) -> str:
    limits = {
        "one dispatcher process": 1 / costs.dispatcher,
        "one scorer process": 1 / costs.scorer,
        "a SQLite file (one writer at a time, one host)": 1 / costs.sqlite,
        "a Valkey (one core)": 1 / costs.valkey,
    }
    ordered = sorted(limits, key=lambda name: limits[name])
    listed = "\n".join(f"{place}. {name}: {limits[name]:,.0f} calls/s" for place, name in enumerate(ordered, 1))
    return f"""\
**What is full first:**

{listed}

Dispatchers and scorers are multiplied; the ledger, one or the other, is what all share. Beyond it tenants are spread
over several ledgers, a release of the chart for each."""


def main(argv: list[str]) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few calls: to see that it runs")
    parser.add_argument("--usd-per-core-hour", type=float, default=0.04, help="default: 0.04")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the section between the marks of this file")
    given = parser.parse_args(argv)
    points, costs = measure(QUICK if given.quick else FULL)
    section = render(points, costs, usd_per_core_hour=given.usd_per_core_hour)
    print(section)
    if given.write is not None:
        text = given.write.read_text()
        if text.count(_BEGIN) != 1 or text.count(_END) != 1:
            print(f"error: {given.write}: has not both marks once: {_BEGIN} and {_END}", file=sys.stderr)
            return 1
        before, _, rest = text.partition(_BEGIN)
        given.write.write_text(f"{before}{_BEGIN}\n{section}\n{_END}{rest.partition(_END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
