"""Retries by request id through real dispatchers on one ledger: what a caller sees, and what the upstream does."""

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pointsman.dispatcher.v1 import decision_pb2, dispatcher_pb2
from pointsman.runtime.status import decode
from tests.dispatchers import WEAK, Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ServiceProcess, eventually

NO_SCORER = "127.0.0.1:1"
"""Nothing listens there: the tenant's policy sends every call to the weak model."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def replicas(directory: Path, upstream: OpenAIServer) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    with _replica(directory, upstream) as one, _replica(directory, upstream) as other:
        yield one.wait_until_serving(), other.wait_until_serving()


def _replica(directory: Path, upstream: OpenAIServer) -> ServiceProcess:
    ledger = f"sqlite:{directory / 'ledger.db'}"
    return start_dispatcher(directory, scorer=NO_SCORER, upstream=upstream.base_url, DISPATCHER_LEDGER=ledger)


async def test_a_retry_at_another_replica_gets_the_first_answer_whole_or_streamed(
    replicas: tuple[ServiceProcess, ServiceProcess], upstream: OpenAIServer
) -> None:
    before = len(upstream.bodies)
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as other:
        first = await one.complete("hello", request_id="r-1")
        again = await other.complete("hello", request_id="r-1")
        started, delta, finished = await other.stream("hello", request_id="r-1")
    assert first.idempotency == dispatcher_pb2.IDEMPOTENCY_KEPT
    assert again.idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED
    assert started.started.idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED
    assert delta.delta.content == f"{WEAK} says: hello"
    assert finished.finished.idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED
    assert finished.finished.decision == first.decision
    first.idempotency = again.idempotency
    assert again == first
    assert len(upstream.bodies) == before + 1
    assert _counted(replicas[1], "replayed") == 2


async def test_a_streamed_answer_is_kept_too(replicas: tuple[ServiceProcess, ServiceProcess]) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as other:
        *_, finished = await one.stream("hello", request_id="r-2")
        again = await other.complete("hello", request_id="r-2")
    assert finished.finished.idempotency == dispatcher_pb2.IDEMPOTENCY_KEPT
    assert again.choices[0].content == f"{WEAK} says: hello"
    assert (again.usage, again.decision) == (finished.finished.usage, finished.finished.decision)


async def test_another_body_is_refused_and_one_in_flight_is_aborted_with_when_to_come_back(
    replicas: tuple[ServiceProcess, ServiceProcess], upstream: OpenAIServer
) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as other:
        await one.complete("hello", request_id="r-3")
        with pytest.raises(grpc.aio.AioRpcError) as conflict:
            await other.complete("goodbye", request_id="r-3")
        asked = len(upstream.bodies)
        running = one.stub.Complete(
            dispatcher_pb2.CompleteRequest(chat=chat("hang"), request_id="r-4"), metadata=one.metadata, timeout=20
        )
        await _until_called(upstream, asked + 1)
        with pytest.raises(grpc.aio.AioRpcError) as in_flight:
            await other.complete("hang", request_id="r-4")
        running.cancel()
    refused, aborted = decode(conflict.value), decode(in_flight.value)
    assert refused is not None
    assert aborted is not None
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_CONFLICT")
    assert [violation.field for violation in refused.violations] == ["request_id"]
    assert (aborted.code, aborted.reason, aborted.retry_after) == (grpc.StatusCode.ABORTED, "IN_FLIGHT", 1.0)


@pytest.mark.full
async def test_the_request_of_a_killed_dispatcher_runs_anew_within_a_lease(
    directory: Path, replicas: tuple[ServiceProcess, ServiceProcess], upstream: OpenAIServer
) -> None:
    with _replica(directory, upstream) as victim:
        victim.wait_until_serving()
        async with Caller(victim.grpc) as caller, Caller(replicas[0].grpc) as survivor:
            request = dispatcher_pb2.CompleteRequest(chat=chat("hang"), request_id="r-5")
            asked = len(upstream.bodies)
            running = caller.stub.Complete(request, metadata=caller.metadata, timeout=60)
            await _until_called(upstream, asked + 1)
            victim.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await running
            async with asyncio.timeout(30):
                while True:
                    call = survivor.stub.Complete(request, metadata=survivor.metadata, timeout=2)
                    with pytest.raises(grpc.aio.AioRpcError) as ended:
                        await call
                    if ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        break  # it runs again: the upstream hangs once more
                    assert ended.value.code() is grpc.StatusCode.ABORTED
                    await asyncio.sleep(0.2)


async def test_without_a_request_id_nothing_is_kept(
    replicas: tuple[ServiceProcess, ServiceProcess], upstream: OpenAIServer
) -> None:
    before = len(upstream.bodies)
    async with Caller(replicas[0].grpc) as caller:
        for _ in range(2):
            answer = await caller.complete("hello")
            assert answer.idempotency == dispatcher_pb2.IDEMPOTENCY_UNSPECIFIED
            assert answer.decision.cost_source == decision_pb2.COST_SOURCE_REPORTED
    assert len(upstream.bodies) == before + 2


async def _until_called(upstream: OpenAIServer, times: int) -> None:
    """Wait until the upstream has been asked so many times in all."""
    for _ in range(2000):
        if len(upstream.bodies) >= times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the upstream was not called")


def _counted(process: ServiceProcess, event: str) -> float:
    for _ in eventually():
        with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(f'pointsman_dispatcher_idempotency_total{{event="{event}"}}'):
                    return float(line.rsplit(" ", 1)[1])
    return 0.0
