"""A caller that goes away: the upstream call is cancelled at once and estimated, or read on for a while and billed."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman.dispatcher.v1 import dispatcher_pb2
from tests import faults
from tests.dispatchers import Caller
from tests.processes import ServiceProcess

# By hand, as in test_fault_matrix.py: 20 and 8 tokens reported; 4 tokens estimated for the prompt.
REPORTED, PROMPT = 440_000, 40_000


@dataclass
class Bench:
    """A dispatcher, its decision log and the server behind it."""

    process: ServiceProcess
    directory: Path
    upstream: str

    async def record(self, user: str) -> Any:
        """The request's record, once it is written."""
        for _ in range(500):
            found = faults.records(self.directory)
            if user in found:
                return found[user]
            await asyncio.sleep(0.02)
        raise AssertionError(f"no record of {user}")

    async def begun(self, user: str) -> None:
        """Return once the server has the request."""
        for _ in range(1000):
            if (await asyncio.to_thread(faults.upstream_calls, self.upstream, user))["begun"]:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"no call of {user} has begun")

    async def call(self, user: str) -> Any:
        """What the server saw of the request, once that has ended."""
        for _ in range(500):
            calls = (await asyncio.to_thread(faults.upstream_calls, self.upstream, user))["calls"]
            if calls:
                return calls[0]
            await asyncio.sleep(0.02)
        raise AssertionError(f"no call of {user} has ended")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("disconnects")
    with (
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(directory, upstream) as process,
    ):
        yield Bench(process.wait_until_serving(), directory, upstream)


@pytest.fixture
async def cancelling(bench: Bench) -> AsyncIterator[Caller]:
    async with Caller(bench.process.grpc, "alone") as caller:
        yield caller


@pytest.fixture
async def draining(bench: Bench) -> AsyncIterator[Caller]:
    async with Caller(bench.process.grpc, "patient") as caller:
        yield caller


async def leave(bench: Bench, caller: Caller, fault: str, user: str, *, streaming: bool) -> float:
    """Call, go away once the upstream has been reached, and return when that was."""
    if streaming:
        stream = caller.stub.StreamComplete(faults.stream_request(fault, user), metadata=caller.metadata, timeout=30)
        async for event in stream:
            if event.HasField("delta"):
                break
        left = time.monotonic()
        stream.cancel()
        return left
    request = dispatcher_pb2.CompleteRequest(**faults.asking(fault, user))
    call = caller.stub.Complete(request, metadata=caller.metadata, timeout=30)
    waiting = asyncio.ensure_future(_ended(call))
    await bench.begun(user)
    left = time.monotonic()
    call.cancel()
    await waiting
    return left


async def _ended(call: Any) -> None:
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call


@pytest.mark.parametrize("streaming", [False, True])
async def test_with_cancel_the_upstream_is_left_at_once_and_the_estimate_is_billed(
    bench: Bench, cancelling: Caller, streaming: bool
) -> None:
    user = f"cancel-{streaming}"
    # How soon is benchmarks/cancellation.py's to say: by itself this upstream would be silent for minutes.
    await leave(bench, cancelling, "stall", user, streaming=streaming)
    call, record = await bench.call(user), await bench.record(user)
    assert call["ended"] == "gone"
    assert (record["status"], record["decision"]["cost_source"]) == ("CANCELLED", "COST_SOURCE_ESTIMATED")
    assert PROMPT <= int(record["decision"]["cost_nano_usd"]) < REPORTED


@pytest.mark.parametrize("streaming", [False, True])
async def test_with_drain_the_answer_is_read_on_and_billed_as_reported(
    bench: Bench, draining: Caller, streaming: bool
) -> None:
    user = f"drain-{streaming}"
    fault = "drip:0.15" if streaming else "slow_first_token:0.8"
    await leave(bench, draining, fault, user, streaming=streaming)
    call, record = await bench.call(user), await bench.record(user)
    assert call["ended"] == "answered"
    assert (record["status"], record["decision"]["cost_source"]) == ("CANCELLED", "COST_SOURCE_REPORTED")
    assert int(record["decision"]["cost_nano_usd"]) == REPORTED


async def test_a_drain_ends_after_its_time_with_the_estimate(bench: Bench, draining: Caller) -> None:
    left = await leave(bench, draining, "slow_first_token:20", "drain-long", streaming=False)
    call, record = await bench.call("drain-long"), await bench.record("drain-long")
    # drain_timeout is 1.5 s.
    assert call["ended"] == "gone"
    assert call["ended_at"] - left > 1.4
    assert record["decision"]["cost_source"] == "COST_SOURCE_ESTIMATED"
    assert int(record["decision"]["cost_nano_usd"]) == PROMPT


async def test_a_caller_whose_deadline_passes_has_gone_away_too(bench: Bench, draining: Caller) -> None:
    request = dispatcher_pb2.CompleteRequest(**faults.asking("slow_first_token:1", "drain-deadline"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await draining.stub.Complete(request, metadata=draining.metadata, timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    record = await bench.record("drain-deadline")
    assert (record["decision"]["cost_source"], int(record["decision"]["cost_nano_usd"])) == (
        "COST_SOURCE_REPORTED",
        REPORTED,
    )


async def test_nobody_is_called_again_for_a_caller_who_has_gone(bench: Bench, draining: Caller) -> None:
    # The first call fails after the caller left; it would be tried again for one who waits.
    await leave(bench, draining, "slow_500:0.6", "drain-fails", streaming=False)
    record = await bench.record("drain-fails")
    await asyncio.sleep(0.3)
    calls = await asyncio.to_thread(faults.upstream_calls, bench.upstream, "drain-fails")
    assert (record["status"], len(calls["calls"])) == ("CANCELLED", 1)


async def test_every_caller_who_went_away_is_in_the_metrics_and_nothing_is_left(bench: Bench) -> None:
    for _ in range(250):
        in_flight = await asyncio.to_thread(faults.samples, bench.process, "upstream_in_flight")
        if set(in_flight.values()) == {0.0}:
            break
        await asyncio.sleep(0.02)
    assert set(in_flight.values()) == {0.0}
    drains = faults.samples(bench.process, "drains_total")
    assert (drains["finished",], drains["cancelled",], drains["failed",]) == (3.0, 1.0, 1.0)
