"""A dispatcher that is offered several times what it can answer, by a native generator that never waits."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from benchmarks import h2load, machine, peers, prompts, servers
from benchmarks.h2load import Load
from benchmarks.rig import Rig, rig
from benchmarks.table import Row, Sides, bounded, compared
from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from tests.dispatchers import chat
from tests.envoy import Envoy

_DEADLINE = 2.0
_PROBES_PER_SECOND = 50
_RECOVERED = 10
"""Answers in a row, each within `_QUICK_SECONDS`: then an overload is over."""
_QUICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    peak_calls: int
    seconds: float
    more_seconds: float
    arrival_seconds: float


FULL = Size(peak_calls=6_000, seconds=60, more_seconds=20, arrival_seconds=20)
QUICK = Size(peak_calls=1_000, seconds=8, more_seconds=5, arrival_seconds=5)


@dataclass(slots=True)
class _Probe:
    """A few calls a second beside the load whose statuses are read, which the generator does not do."""

    address: str
    ended: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Probe within the block, from a thread of its own."""
        stop = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._run(stop)))
        with machine.pinned(machine.REST):
            thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def seconds(self, status: str) -> Sequence[float]:
        """Of the probes that ended so, ascending."""
        return sorted(taken for ended, taken in self.ended if ended == status)

    @property
    def statuses(self) -> str:
        """How many ended how, in words."""
        counted = Counter(status for status, _ in self.ended)
        return "probes: " + ", ".join(f"{count} {status}" for status, count in counted.most_common())

    async def _run(self, stop: threading.Event) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = dispatcher_pb2_grpc.DispatcherServiceStub(channel)
            async with asyncio.TaskGroup() as calls:
                while not stop.is_set():
                    calls.create_task(self._call(stub))
                    await asyncio.sleep(1 / _PROBES_PER_SECOND)

    async def _call(self, stub: "dispatcher_pb2_grpc.DispatcherServiceAsyncStub") -> None:
        began = time.perf_counter()
        self.ended.append((await _status(stub), time.perf_counter() - began))


@dataclass(frozen=True, slots=True)
class _Overload:
    """What came of one."""

    load: Load
    goodput: float
    refused: float
    late: float
    probe: _Probe
    grown_mb: float


def overload(size: Size) -> list[Row]:
    """2 × and 5 × of its own peak, and 5 × with Envoy's limit in front."""
    with rig() as ours:
        peak = ours.complete(size.peak_calls, 32).per_second
        twice = _offered(ours, 2 * peak, size.seconds)
        recovery = asyncio.run(_recovery(ours.dispatcher.grpc))
        more = _offered(ours, 5 * peak, size.more_seconds)
        asyncio.run(_recovery(ours.dispatcher.grpc))
        return [*_twice(twice, peak, size, recovery), *_more(more, peak, size), _behind_envoy(ours, peak, size)]


def arrivals(size: Size) -> list[Row]:
    """Latency of calls that arrive at random and wait for nobody."""
    rows = []
    with rig() as ours:
        peak = ours.complete(size.peak_calls, 32).per_second
        for share in (0.5, 0.8):
            before = ours.answered()
            load = h2load.arrive(ours.target(), per_second=share * peak, seconds=size.arrival_seconds)
            others = load.calls - (ours.answered() - before)
            rows.append(
                Row(
                    what=f"dispatcher Complete, Poisson arrivals at {load.per_second / peak:.0%} of its peak",
                    against="closed loop, 32 in flight",
                    target="reported",
                    ours=f"median {load.median * 1e3:.1f}, p99 {load.p99 * 1e3:.1f} ms",
                    theirs=f"{peak:.0f} calls/s",
                    note=f"{load.per_second:.0f} calls/s, no call waits for another; {others:g} of {load.calls} not OK",
                    raw={"unit": "s", "peak": peak, "median": load.median, "p99": load.p99},
                )
            )
    return rows


def _offered(ours: Rig, per_second: float, seconds: float) -> _Overload:
    counted = ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
    before = [ours.answered(status) for status in counted]
    resident = servers.resident_mb(ours.dispatcher.pid)
    probe = _Probe(ours.dispatcher.grpc)
    with probe.running():
        load = h2load.offer(ours.target(timeout=_DEADLINE), per_second=per_second, seconds=seconds)
        after = [ours.answered(status) for status in counted]
    good, refused, late = (now - then for now, then in zip(after, before, strict=True))
    grown = servers.resident_mb(ours.dispatcher.pid) - resident
    return _Overload(load, good / seconds, refused, late, probe, grown)


def _twice(overload: _Overload, peak: float, size: Size, recovery: float) -> list[Row]:
    what = f"overload, 2 × offered for {size.seconds:g} s"
    late = overload.late + sum(taken > _DEADLINE for taken in overload.load.latencies)
    made = f"{overload.load.per_second:.0f} calls/s made; {overload.probe.statuses}"
    rows = [
        compared(
            f"{what}: goodput", "own peak", Sides([overload.goodput], [peak]), unit="calls/s", at_least=0.8, note=made
        ),
        bounded(f"{what}: calls past their deadline of {_DEADLINE:g} s", "", [late], unit="calls", at_most=0),
        bounded(f"{what}: recovery", "", [recovery], unit="s", at_most=2, digits=2),
    ]
    return [*rows, _refusals(what, overload)]


def _refusals(what: str, overload: _Overload) -> Row:
    refused = overload.probe.seconds("RESOURCE_EXHAUSTED")
    what = f"{what}: p99 of refusals"
    if not refused:
        return Row(what=what, against="", target="≤ 100 ms", note="no probe was refused")
    tail = refused[int(len(refused) * 0.99)] * 1e3
    note = f"{len(refused)} refused of {len(overload.probe.ended)} probes"
    return bounded(what, "", [tail], unit="ms", at_most=100, note=note)


def _more(overload: _Overload, peak: float, size: Size) -> list[Row]:
    what = f"overload, 5 × offered for {size.more_seconds:g} s"
    made = f"{overload.load.per_second:.0f} calls/s made, {overload.refused:.0f} calls refused"
    return [
        Row(
            what=f"{what}: goodput",
            against="own peak",
            target="reported",
            ours=f"{overload.goodput:.0f} calls/s",
            theirs=f"{peak:.0f} calls/s",
            ratio=f"{overload.goodput / peak:.2f} ×",
            note=f"{made}; {overload.probe.statuses}",
            raw={"goodput": overload.goodput, "peak": peak},
        ),
        bounded(f"{what}: memory that it takes", "", [overload.grown_mb], unit="MB", at_most=100),
    ]


def _behind_envoy(ours: Rig, peak: float, size: Size) -> Row:
    """The shipped Envoy configuration, its bucket filled at nine tenths of the peak."""
    what = f"overload, 5 × offered for {size.more_seconds:g} s, Envoy's limit in front: goodput"
    try:
        executable = str(servers.envoy_executable())
    except peers.Missing as missing:
        return Row(what=what, against="own peak", target="≥ 0.8 ×", note=str(missing))
    tenth = max(int(0.9 * peak / 10), 1)
    with machine.pinned(machine.REST):
        envoy = Envoy(
            ours.folder,
            executable=executable,
            dispatchers=[ours.dispatcher.grpc],
            scorers=[ours.scorer.grpc],
            limit=(tenth, "0.1s"),
        )
    with contextlib.closing(envoy):
        before = ours.answered()
        target = ours.target(f"localhost:{envoy.ports['callers']}", timeout=_DEADLINE, tls=True)
        load = h2load.offer(target, per_second=5 * peak, seconds=size.more_seconds)
        goodput = (ours.answered() - before) / size.more_seconds
    note = f"{load.per_second:.0f} calls/s made over TLS, {tenth * 10}/s let in"
    return compared(what, "own peak", Sides([goodput], [peak]), unit="calls/s", at_least=0.8, note=note)


async def _recovery(address: str) -> float:
    """Seconds until calls are answered as before."""
    began, first, good = time.monotonic(), 0.0, 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = dispatcher_pb2_grpc.DispatcherServiceStub(channel)
        while good < _RECOVERED and time.monotonic() - began < 60:
            called = time.monotonic()
            quick = await _status(stub) == "OK" and time.monotonic() - called < _QUICK_SECONDS
            first = called if quick and not good else first
            good = good + 1 if quick else 0
            await asyncio.sleep(0.01)
    return (first if good else time.monotonic()) - began


async def _status(stub: "dispatcher_pb2_grpc.DispatcherServiceAsyncStub") -> str:
    metadata = (("x-pointsman-tenant", servers.tenant()), ("x-pointsman-timeout", f"{_DEADLINE:.3f}"))
    request = dispatcher_pb2.CompleteRequest(chat=chat(prompts.TYPICAL))
    try:
        await stub.Complete(request, metadata=metadata, timeout=_DEADLINE)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"
