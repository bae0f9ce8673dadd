"""A deployment that keeps failing is left alone for a while, seen from outside: replies, metrics, upstream calls."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman.dispatcher.v1 import dispatcher_pb2
from pointsman.runtime.status import RichStatus, decode
from tests import faults
from tests.dispatchers import Caller
from tests.processes import ServiceProcess


@dataclass
class Bench:
    """A dispatcher and the server behind it."""

    process: ServiceProcess
    upstream: str

    async def state(self) -> float:
        """The breaker of the deployment that fails, as the metrics show it."""
        return (await asyncio.to_thread(faults.samples, self.process, "breaker_state"))["fragile-1",]

    async def calls(self, user: str) -> int:
        """How often the upstream was called."""
        calls: dict[str, Any] = await asyncio.to_thread(faults.upstream_calls, self.upstream, user)
        return int(calls["begun"])


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with (
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(tmp_path_factory.mktemp("breaker"), upstream, cooldown=2.5) as process,
    ):
        yield Bench(process.wait_until_serving(), upstream)


async def _refused(caller: Caller, fault: str, user: str, timeout: float = 30) -> RichStatus:
    request = dispatcher_pb2.CompleteRequest(**faults.asking(fault, user))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.stub.Complete(request, metadata=caller.metadata, timeout=timeout)
    status = decode(caught.value)
    assert status is not None
    return status


async def test_three_failures_open_it_and_one_success_after_the_cooldown_closes_it(bench: Bench) -> None:
    async with Caller(bench.process.grpc, "fragile") as caller:
        # Each request tries twice: the third failure in a row opens the breaker (breaker_failures = 3).
        assert "HTTP 500" in (await _refused(caller, "server_error", "first")).message
        assert await bench.state() == 0
        assert "HTTP 500" in (await _refused(caller, "server_error", "second")).message
        assert (await bench.calls("first"), await bench.calls("second")) == (2, 1)
        assert await bench.state() == 2
        # The cool-down is 2.5 s: a caller with less patience is told for how long.
        status = await _refused(caller, "ok", "hasty", timeout=1)
        assert (status.code, status.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
        assert "left alone" in status.message
        assert status.retry_after is not None
        assert 0 < status.retry_after <= 2.5
        assert await bench.calls("hasty") == 0
        # One with more is answered when it is over, by the call that tries.
        request = dispatcher_pb2.CompleteRequest(**faults.asking("ok", "patient"))
        answer = await caller.stub.Complete(request, metadata=caller.metadata, timeout=30)
        assert answer.decision.attempts == 1
        assert await bench.state() == 0
    attempts = await asyncio.to_thread(faults.samples, bench.process, "attempts_total")
    assert attempts["fragile-1", "unavailable"] == 3
    assert attempts["fragile-1", "ok"] == 1
    assert attempts["fragile-1", "skipped"] >= 2
