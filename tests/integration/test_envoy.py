"""Real Envoy with the shipped configuration, in front of real services: TLS, balancing, outliers, the rate limit."""

import asyncio
import contextlib
import json
import ssl
import struct
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from tests import tools
from tests.dispatchers import chat, start_dispatcher
from tests.envoy import Envoy, shipped
from tests.openai_server import openai_server_thread
from tests.processes import SCORER_PORTS, ServiceProcess


def test_the_shipped_file_is_one_that_envoy_takes(tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(shipped(tmp_path))
    command = [tools.envoy(), "--mode", "validate", "-c", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def scorers() -> Iterator[list[ServiceProcess]]:
    tools.envoy()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(ServiceProcess("scorer_service", env=SCORER_PORTS)) for _ in range(2)]
        yield [process.wait_until_serving() for process in started]


@pytest.fixture(scope="module")
def dispatcher(tmp_path_factory: pytest.TempPathFactory, scorers: list[ServiceProcess]) -> Iterator[ServiceProcess]:
    with openai_server_thread() as upstream:
        folder = tmp_path_factory.mktemp("dispatcher")
        with start_dispatcher(folder, scorer=scorers[0].grpc, upstream=upstream.base_url) as process:
            yield process.wait_until_serving()


def _secure(envoy: Envoy) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        f"localhost:{envoy.ports['callers']}", grpc.ssl_channel_credentials(root_certificates=envoy.certificate)
    )


async def test_calls_and_streams_pass_through_tls(
    tmp_path: Path, dispatcher: ServiceProcess, scorers: list[ServiceProcess]
) -> None:
    envoy = Envoy(tmp_path, executable=tools.envoy(), dispatchers=[dispatcher.grpc], scorers=[scorers[0].grpc])
    with contextlib.closing(envoy):
        async with _secure(envoy) as channel:
            stub = dispatcher_pb2_grpc.DispatcherServiceStub(channel)
            answer = await stub.Complete(dispatcher_pb2.CompleteRequest(chat=chat("hello")), timeout=10)
            assert answer.choices[0].content.endswith("says: hello")
            events = stub.StreamComplete(dispatcher_pb2.StreamCompleteRequest(chat=chat("one two")), timeout=10)
            assert [event.WhichOneof("event") async for event in events][-1] == "finished"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Complete(dispatcher_pb2.CompleteRequest(), timeout=10)
            # Rich details pass too.
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert any(key == "grpc-status-details-bin" for key, _ in refused.value.trailing_metadata() or ())
        body = dispatcher_pb2.RouteRequest(chat=chat("hello")).SerializeToString()
        assert await asyncio.to_thread(_grpc_web, envoy, body)
        await asyncio.to_thread(_json, envoy)


def _json(envoy: Envoy) -> None:
    """The same service for whoever has no gRPC."""
    asked = {"chat": {"messages": [{"role": "ROLE_USER", "content": [{"text": "hello"}]}]}, "request_id": "by-json"}
    status, answer = _http(envoy, "/v1/chat:complete", asked)
    assert (status, answer["request_id"]) == (200, "by-json")
    assert answer["choices"][0]["content"].endswith("says: hello")
    status, kept = _http(envoy, "/v1/decisions/by-json")
    assert (status, kept["record"]["request_id"]) == (200, "by-json")
    status, events = _http(envoy, "/v1/chat:streamComplete", asked | {"request_id": "streamed"})
    assert status == 200
    assert [next(iter(event)) for event in (events[0], events[-1])] == ["started", "finished"]
    status, error = _http(envoy, "/v1/chat:complete", {"chat": {}})
    assert status == 400
    assert {detail["@type"].rpartition(".")[2] for detail in error["details"]} >= {"ErrorInfo", "BadRequest"}
    status, _ = _http(envoy, "/v1/chat:complete", {"chart": {}})
    assert status == 400


def _http(envoy: Envoy, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of a POST, or of a GET without a body."""
    request = urllib.request.Request(
        f"https://localhost:{envoy.ports['callers']}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", "x-pointsman-tenant": "default"},
    )
    context = ssl.create_default_context(cadata=envoy.certificate.decode())
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def _grpc_web(envoy: Envoy, body: bytes) -> bytes:
    """The same service for a browser: gRPC-Web over HTTP/1.1 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md)."""
    context = ssl.create_default_context(cadata=envoy.certificate.decode())
    request = urllib.request.Request(
        f"https://localhost:{envoy.ports['callers']}/pointsman.dispatcher.v1.DispatcherService/Route",
        data=b"\0" + struct.pack(">I", len(body)) + body,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    with urllib.request.urlopen(request, context=context, timeout=10) as response:
        answer: bytes = response.read()
    (length,) = struct.unpack(">I", answer[1:5])
    assert dispatcher_pb2.RouteResponse.FromString(answer[5 : 5 + length]).decision.model
    return answer


async def test_a_scorer_killed_under_load_loses_no_request(tmp_path: Path, dispatcher: ServiceProcess) -> None:
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(ServiceProcess("scorer_service", env=SCORER_PORTS)) for _ in range(2)]
        addresses = [process.wait_until_serving().grpc for process in pair]
        envoy = Envoy(tmp_path, executable=tools.envoy(), dispatchers=[dispatcher.grpc], scorers=addresses)
        stack.enter_context(contextlib.closing(envoy))
        turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text="Which scorer answers?")
        request = scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.ports['scorers']}") as channel:
            stub = scorer_pb2_grpc.ScorerServiceStub(channel)
            answered = 0
            under_load = asyncio.Event()

            async def caller() -> None:
                nonlocal answered
                for _ in range(100):
                    await stub.Score(request, timeout=10)
                    answered += 1
                    if answered == 200:
                        under_load.set()

            callers = [asyncio.create_task(caller()) for _ in range(8)]
            await under_load.wait()
            await asyncio.to_thread(pair[0].kill)
            await asyncio.gather(*callers)
        assert answered == 800


async def test_what_is_over_the_rate_limit_is_refused_as_exhausted(
    tmp_path: Path, dispatcher: ServiceProcess, scorers: list[ServiceProcess]
) -> None:
    envoy = Envoy(
        tmp_path, executable=tools.envoy(), dispatchers=[dispatcher.grpc], scorers=[scorers[0].grpc], limit=(5, "60s")
    )
    with contextlib.closing(envoy):
        async with _secure(envoy) as channel:
            stub = dispatcher_pb2_grpc.DispatcherServiceStub(channel)
            results = []
            for _ in range(8):
                try:
                    await stub.Route(dispatcher_pb2.RouteRequest(chat=chat("hello")), timeout=10)
                    results.append(grpc.StatusCode.OK)
                except grpc.aio.AioRpcError as error:
                    results.append(error.code())
    assert results == [grpc.StatusCode.OK] * 5 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
