"""Limits and overload against real dispatchers: what is refused, what callers are told, and what two replicas share."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pointsman.client import DispatcherClient, PointsmanCallError
from pointsman.dispatcher.v1 import dispatcher_pb2
from pointsman.runtime.status import RichStatus, decode
from tests.dispatchers import Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ServiceProcess
from tests.scrapes import scrape
from tests.valkey import ValkeyServer


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


def refusals(process: ServiceProcess) -> dict[str, float]:
    found = scrape(process, "pointsman_dispatcher_admission_refused_total")
    return {labels["cause"]: value for labels, value in found if value}


async def status_of(caller: Caller) -> RichStatus:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.route("hello")
    status = decode(caught.value)
    assert status is not None
    return status


async def test_what_a_tenant_may_ask_for_is_said_with_its_limit_and_when_to_come_back(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    tenants = {
        "default": "requests_per_minute = 5",
        "fixed": "tokens_per_minute = 30",
        "strict": "max_concurrent_requests = 1",
    }
    with start_dispatcher(
        tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url, tenants=tenants, DISPATCHER_LEDGER="memory:"
    ) as process:
        address = process.wait_until_serving().grpc
        async with Caller(address) as caller:
            for _ in range(5):
                await caller.route("hello")
            status = await status_of(caller)
            assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert (status.metadata["rate"], status.metadata["limit"]) == ("requests_per_minute", "5")
            assert status.quota is not None
            assert status.quota[0] == "requests_per_minute"
            assert status.retry_after is not None
            assert 0 < status.retry_after <= 60
        async with DispatcherClient(address, tenant="fixed") as client:
            for _ in range(2):  # 28 tokens each
                await client.complete("hello")
            with pytest.raises(PointsmanCallError) as caught:
                await client.complete("hello", timeout=5)
            assert caught.value.reason == "RATE_LIMITED"
        assert refusals(process) == {"requests_per_minute": 1, "tokens_per_minute": 1}


async def test_a_full_process_refuses_every_kind_of_call_at_once_and_takes_calls_again(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with start_dispatcher(
        tmp_path,
        scorer="127.0.0.1:1",
        upstream=upstream.base_url,
        DISPATCHER_MAX_CALLS="2",
        DISPATCHER_LEDGER="memory:",
    ) as process:
        async with Caller(process.wait_until_serving().grpc) as caller:
            streams = []
            for _ in range(2):
                request = dispatcher_pb2.StreamCompleteRequest(chat=chat("slow " + "word " * 40))
                stream = caller.stub.StreamComplete(request, metadata=caller.metadata, timeout=30)
                assert isinstance(await stream.read(), dispatcher_pb2.StreamCompleteResponse)
                streams.append(stream)
            for method in (caller.route, caller.complete, caller.stream):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method("x" * 2_000_000)
                status = decode(caught.value)
                assert status is not None
                assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert status.retry_after is not None
            for stream in streams:
                stream.cancel()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await caller.route("hello")
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)
                    else:
                        break
        causes = refusals(process)
        assert set(causes) == {"calls"}
        by_status = scrape(process, "pointsman_dispatcher_requests_total")
        refused = sum(value for labels, value in by_status if labels["status"] == "RESOURCE_EXHAUSTED")
        assert refused == causes["calls"], "refusals at the door are counted as calls too"


async def test_two_dispatchers_share_a_tenants_rate_in_redis_and_each_counts_alone_when_it_is_gone(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    server = ValkeyServer(tmp_path)
    server.start()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    common = {"DISPATCHER_LEDGER": server.url}
    tenants = {"default": "requests_per_minute = 6"}
    try:
        with (
            start_dispatcher(
                folders[0], scorer="127.0.0.1:1", upstream=upstream.base_url, tenants=tenants, environment=common
            ) as one,
            start_dispatcher(
                folders[1], scorer="127.0.0.1:1", upstream=upstream.base_url, tenants=tenants, environment=common
            ) as two,
        ):
            async with Caller(one.wait_until_serving().grpc) as first, Caller(two.wait_until_serving().grpc) as second:
                results = await asyncio.gather(
                    *(caller.route("hello") for caller in (first, second) for _ in range(6)), return_exceptions=True
                )
                assert sum(not isinstance(result, BaseException) for result in results) == 6
                server.kill()
                # Rates are fairness, not money: without their storage each process counts by itself.
                for caller in (first, second):
                    assert (await caller.route("hello")).model
            assert scrape(one, "pointsman_dispatcher_rate_storage_failures_total")[0][1] == 1
    finally:
        server.kill()
