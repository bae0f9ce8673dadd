"""How a dispatcher's calls per second and p99 grow with concurrency, prompts, tenants, conversations and its log.

Curves go to benchmarks/results/: growth.json, and a plot for each. Everything is on, as in the table.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.rig import Rig, rig
from benchmarks.table import Row
from pointsman.dispatcher.v1 import chat_pb2

_IN_FLIGHT = 32
_TENANTS_ASKED = 50
"""A curve's point asks at most so many tenants, spread over all."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    calls: int
    concurrency: Sequence[int]
    tokens: Sequence[int]
    tenants: Sequence[int]
    turns: Sequence[int]


FULL = Size(
    calls=2_000,
    concurrency=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    tokens=(10, 100, 500, 1_000, 2_000, 4_000, 8_000),
    tenants=(1, 10, 100, 200, 500, 1_000),
    turns=(1, 3, 9, 33, 101, 301),
)
QUICK = Size(calls=300, concurrency=(1, 32, 512), tokens=(10, 8_000), tenants=(1, 1_000), turns=(1, 101))


@dataclass(frozen=True, slots=True)
class Point:
    """One value of what is varied: `x` is its number, or its name where it has none; `ok` the part answered with OK."""

    x: int | str
    per_second: float
    p99: float
    ok: float = 1.0


Curve = Sequence[Point]


def curves(size: Size, results: Path) -> list[Row]:
    """Measure all, write them, and give a line for each."""
    measured: dict[str, Curve] = {}
    with rig() as ours:
        measured["concurrency"] = [_point(ours, n, clients=n, calls=_calls(size, n)) for n in size.concurrency]
        measured["prompt tokens"] = [_point(ours, n, calls=size.calls, asked=_prompt(n)) for n in size.tokens]
        measured["turns of the conversation"] = [
            _point(ours, n, calls=size.calls, asked=_conversation(n)) for n in size.turns
        ]
    measured["tenants"] = [_tenants(n, size.calls) for n in size.tenants]
    measured["decision log"] = [_decision_log(name, size.calls) for name in ("off", "on")]
    results.mkdir(exist_ok=True)
    document = {name: [asdict(point) for point in curve] for name, curve in measured.items()}
    (results / "growth.json").write_text(json.dumps(document, indent=1) + "\n")
    _plot(measured, results)
    return [_row(name, curve) for name, curve in measured.items()]


def _calls(size: Size, clients: int) -> int:
    """At one in flight a call takes as long as at many, and there are fewer a second."""
    return max(size.calls // 4, 100) if clients < 4 else max(size.calls, 4 * clients)


def _point(
    ours: Rig,
    x: int | str,
    *,
    calls: int,
    clients: int = _IN_FLIGHT,
    asked: chat_pb2.Chat | None = None,
    tenants: Sequence[int] = (0,),
) -> Point:
    """Calls of these tenants, one tenant after the other. Some may be refused: many at once are more than may wait."""
    each, before = max(calls // len(tenants), clients), ours.answered()
    loads = [ours.complete(each, clients, tenant, asked=asked, may_refuse=True) for tenant in tenants]
    made = sum(load.calls for load in loads)
    latencies = sorted(itertools.chain.from_iterable(load.latencies for load in loads))
    return Point(
        x,
        made / sum(load.calls / load.per_second for load in loads),
        latencies[int(len(latencies) * 0.99)],
        (ours.answered() - before) / made,
    )


def _tenants(count: int, calls: int) -> Point:
    """Calls of many tenants, one after the other: each has its accounts, its pace and its label."""
    with rig(tenants=count) as ours:
        return _point(ours, count, calls=calls, tenants=range(0, count, max(count // _TENANTS_ASKED, 1)))


def _decision_log(state: str, calls: int) -> Point:
    with rig(DISPATCHER_DECISION_LOG="none") if state == "off" else rig() as ours:
        return _point(ours, state, calls=calls)


def _prompt(tokens: int) -> chat_pb2.Chat:
    """One message; a short English word is one token of nearly any tokenizer."""
    return _chat([" ".join(["rail"] * tokens)])


def _conversation(turns: int) -> chat_pb2.Chat:
    """User and assistant in turn, a sentence each."""
    return _chat(["The points at the north end are stiff in winter; what would you look at first?"] * turns)


def _chat(texts: Sequence[str]) -> chat_pb2.Chat:
    roles = (chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT)
    return chat_pb2.Chat(
        messages=[
            chat_pb2.Message(role=roles[number % 2], content=[chat_pb2.ContentPart(text=text)])
            for number, text in enumerate(texts)
        ]
    )


def _row(name: str, curve: Curve) -> Row:
    def shown(pick: Callable[[Point], float], digits: int) -> str:
        return " / ".join(f"{pick(point):,.{digits}f}" for point in curve)

    varied = " / ".join(f"{point.x:,}" if isinstance(point.x, int) else point.x for point in curve)
    return Row(
        what=f"growth with {name}: {varied}",
        against="",
        target="reported",
        ours=f"{shown(lambda point: point.per_second, 0)} calls/s",
        theirs=f"p99 {shown(lambda point: point.p99 * 1e3, 0)} ms",
        note="" if all(point.ok == 1 for point in curve) else f"answered with OK: {shown(lambda point: point.ok, 3)}",
        raw={"points": [asdict(point) for point in curve]},
    )


def _plot(measured: Mapping[str, Curve], results: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 — slow to import, and needed here alone

    for name, curve in measured.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        rates = figure.add_subplot()
        tails = rates.twinx()
        numbers = [point.x for point in curve]
        rates.plot(numbers, [point.per_second for point in curve], "o-", color="tab:blue", label="calls/s")
        tails.plot(numbers, [point.p99 * 1e3 for point in curve], "s--", color="tab:red", label="p99")
        if all(isinstance(number, int) for number in numbers):
            rates.set_xscale("log")
        rates.set_xlabel(name)
        rates.set_ylabel("calls per second", color="tab:blue")
        tails.set_ylabel("p99, milliseconds", color="tab:red")
        rates.set_ylim(bottom=0)
        tails.set_ylim(bottom=0)
        figure.savefig(results / f"growth-{name.replace(' ', '-')}.png", dpi=120)
