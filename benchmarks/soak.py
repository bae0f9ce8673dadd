"""Many requests of all kinds, with an upstream that fails in every way: what does the dispatcher keep?

    python -m benchmarks.soak                       5,000 requests
    python -m benchmarks.soak --requests 100000

It starts the faulty server and a dispatcher, both as processes, and prints what the dispatcher holds after a warm-up
and at the end: resident memory, file descriptors, asyncio tasks, calls under way. tests/integration/test_soak.py runs
the same and holds it to bounds.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil

from pointsman.dispatcher.v1 import dispatcher_pb2
from tests import faults
from tests.dispatchers import Caller
from tests.processes import ServiceProcess, eventually

WARM_UP = 0.3
"""Share of the requests before the first measurement: pools, caches and the allocator have settled by then."""
CONCURRENCY = 24

# Faults with short silences, so that a soak is long in requests and not in waits; `ok` is the half of the traffic.
_KINDS = (
    *["ok"] * 15, "rate_limited:0.02", "server_error", "bad_request", "unauthorized", "slow_first_token:0.05",
    "stall:0.05", "reset", "reset_midway", "malformed", "malformed_midway", "error_event", "no_usage",
    "wrong_content_type", "early_close", "drip:0.01",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """What the dispatcher's process holds."""

    rss: int
    descriptors: int
    tasks: int
    in_flight: int

    def __str__(self) -> str:
        return (
            f"{self.rss / 2**20:.1f} MiB resident, {self.descriptors} descriptors, {self.tasks} tasks, "
            f"{self.in_flight} calls under way"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """How a soak went."""

    requests: int
    seconds: float
    statuses: Counter[str]
    warm: Held
    end: Held
    open_upstream_calls: int
    errors: tuple[str, ...]

    @property
    def growth(self) -> float:
        """Resident memory at the end beside that after the warm-up, less one."""
        return self.end.rss / self.warm.rss - 1

    def __str__(self) -> str:
        statuses = ", ".join(f"{name} {count}" for name, count in self.statuses.most_common())
        return "\n".join(
            (
                f"soak: {self.requests} requests in {self.seconds:.0f} s: {statuses}",
                f"soak: after warm-up: {self.warm}",
                f"soak: at the end:    {self.end}; {self.open_upstream_calls} upstream calls open",
                f"soak: resident memory grew by {self.growth:.1%}",
            )
        )


def run(requests: int, *, seed: int = 1) -> Report:
    """Start everything, send `requests` requests, stop everything."""
    with (
        tempfile.TemporaryDirectory() as directory,
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(Path(directory), upstream, DISPATCHER_DECISION_LOG="none") as dispatcher,
    ):
        dispatcher.wait_until_serving()
        return asyncio.run(_run(dispatcher, upstream, requests, random.Random(seed)))


async def _run(dispatcher: ServiceProcess, upstream: str, requests: int, dice: random.Random) -> Report:
    statuses = Counter[str]()
    started = time.monotonic()
    warming = int(requests * WARM_UP)
    await _send(dispatcher.grpc, warming, dice, statuses)
    warm = await asyncio.to_thread(_settled, dispatcher)
    await _send(dispatcher.grpc, requests - warming, dice, statuses)
    end = await asyncio.to_thread(_settled, dispatcher)
    calls = await asyncio.to_thread(faults.upstream_calls, upstream)
    return Report(
        requests=requests,
        seconds=time.monotonic() - started,
        statuses=statuses,
        warm=warm,
        end=end,
        open_upstream_calls=calls["open"],
        errors=tuple(line for line in dispatcher.stderr if "internal error" in line or "Traceback" in line),
    )


async def _send(address: str, count: int, dice: random.Random, statuses: Counter[str]) -> None:
    """So many requests over one channel per tenant, which are closed again."""
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(address, tenant)) for tenant in faults.TENANTS]
        numbers = iter(range(count))

        async def worker() -> None:
            for _ in numbers:
                caller, fault = dice.choice(callers), dice.choice(_KINDS)
                statuses[await _one(caller, fault, dice.random())] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(worker())


async def _one(caller: Caller, fault: str, lot: float) -> str:
    """One call: unary or streamed; some callers have little patience and some go away in the middle."""
    timeout = 0.03 if lot < 0.05 else 20.0
    try:
        if lot < 0.5:
            request = dispatcher_pb2.CompleteRequest(**faults.asking(fault, ""))
            await caller.stub.Complete(request, metadata=caller.metadata, timeout=timeout)
        else:
            call = caller.stub.StreamComplete(
                faults.stream_request(fault, ""), metadata=caller.metadata, timeout=timeout
            )
            try:
                async for event in call:
                    if lot > 0.9 and event.HasField("delta"):
                        return "left"
            finally:
                call.cancel()
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def _settled(dispatcher: ServiceProcess) -> Held:
    """What is held once nothing is under way: drains and ends of attempts may take a moment."""
    held = _held(dispatcher)
    with contextlib.suppress(AssertionError):
        for _ in eventually(10):
            now = _held(dispatcher)
            if now.in_flight == 0 and now.tasks >= held.tasks:
                return now
            held = now
    return held


def _held(dispatcher: ServiceProcess) -> Held:
    process = psutil.Process(dispatcher.pid)
    tasks = sum(faults.samples(dispatcher, "tasks").values())
    in_flight = [*faults.samples(dispatcher, "upstream_in_flight").values()]
    in_flight += faults.samples(dispatcher, "requests_in_flight").values()
    return Held(process.memory_info().rss, process.num_fds(), int(tasks), int(sum(in_flight)))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Soak the dispatcher and print what it keeps.")
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = _arguments()
    report = run(chosen.requests, seed=chosen.seed)
    print(report)
    sys.exit(1 if report.errors or report.growth > 0.05 else 0)
