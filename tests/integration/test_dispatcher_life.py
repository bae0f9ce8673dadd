"""Starting, draining, and living without a scorer."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pointsman.dispatcher.v1 import decision_pb2, dispatcher_pb2
from pointsman.runtime.status import decode
from tests.dispatchers import STRONG, WEAK, Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import DISPATCHER_PORTS, SCORER_PORTS, ServiceProcess


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _until_scored(caller: Caller, seconds: float) -> bool:
    for _ in range(int(seconds * 20)):
        if (await caller.route("hello")).HasField("win_probability"):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_scorer_that_dies_is_answered_for_by_policy_and_found_again(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    address = f"127.0.0.1:{_free_port()}"
    scorer_env = {**SCORER_PORTS, "SCORER_LISTEN": address}
    with (
        ServiceProcess("scorer_service", env=scorer_env) as scorer,
        start_dispatcher(tmp_path, scorer=address, upstream=upstream.base_url) as dispatcher,
    ):
        scorer.wait_until_serving()
        async with (
            Caller(dispatcher.grpc, "default") as weak,
            Caller(dispatcher.grpc, "fixed") as strong,
            Caller(dispatcher.grpc, "strict") as strict,
        ):
            assert await _until_scored(weak, 10)
            stop = asyncio.Event()
            reasons: set[int] = set()

            async def traffic() -> int:
                answered = 0
                while not stop.is_set():
                    reasons.add((await weak.complete("hello")).decision.reason)
                    answered += 1
                return answered

            running = asyncio.create_task(traffic())
            await asyncio.sleep(0.2)
            await asyncio.to_thread(scorer.kill)
            await asyncio.sleep(0.5)
            assert (await weak.complete("hello")).decision.model == WEAK
            decision = (await strong.complete("hello")).decision
            assert (decision.model, decision.reason) == (STRONG, decision_pb2.REASON_SCORER_UNAVAILABLE)
            assert not decision.HasField("alpha")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await strict.complete("hello")
            status = decode(caught.value)
            assert status is not None
            assert (status.code, status.reason) == (grpc.StatusCode.UNAVAILABLE, "SCORER_UNAVAILABLE")
            with ServiceProcess("scorer_service", env=scorer_env) as again:
                again.wait_until_serving()
                assert await _until_scored(weak, 10)
                stop.set()
                assert await running > 0, "answers keep coming"
            assert decision_pb2.REASON_SCORER_UNAVAILABLE in reasons


async def test_a_scorer_that_hangs_costs_its_timeout_and_no_more(tmp_path: Path, upstream: OpenAIServer) -> None:
    with (
        ServiceProcess("scorer_service", env=SCORER_PORTS) as scorer,
        start_dispatcher(tmp_path, scorer=scorer.grpc, upstream=upstream.base_url) as dispatcher,
    ):
        async with Caller(dispatcher.grpc) as caller:
            assert await _until_scored(caller, 10)
            os.kill(scorer.pid, signal.SIGSTOP)
            try:
                answer = await asyncio.wait_for(caller.complete("hello"), timeout=10)
                assert answer.decision.reason == decision_pb2.REASON_SCORER_UNAVAILABLE
                assert answer.choices[0].content == f"{WEAK} says: hello"
            finally:
                os.kill(scorer.pid, signal.SIGCONT)
            assert await _until_scored(caller, 10)


async def test_sigterm_under_load_finishes_what_is_in_flight_and_exits_zero(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with start_dispatcher(tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url) as dispatcher:
        address = dispatcher.grpc
        async with Caller(address) as caller:
            streams = []
            for _ in range(20):
                request = dispatcher_pb2.StreamCompleteRequest(chat=chat("slow " + "word " * 15))
                call = caller.stub.StreamComplete(request, metadata=caller.metadata, timeout=30)
                events = aiter(call)
                assert (await anext(events)).HasField("started")
                streams.append(events)
            dispatcher.terminate()
            for stream in streams:
                rest = [event async for event in stream]
                assert rest[-1].HasField("finished")
                assert "".join(event.delta.content for event in rest).count("word") == 15
            assert await asyncio.to_thread(dispatcher.wait) == 0
        async with Caller(address) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.complete("hello")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _fails(env: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    with ServiceProcess("dispatcher_service", *arguments, env=DISPATCHER_PORTS | env) as process:
        return process.wait(), process.stderr


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"DISPATCHER_LISTN": "127.0.0.1:0"}, "DISPATCHER_LISTN is not a setting: did you mean DISPATCHER_LISTEN?"),
        ({"DISPATCHER_CONFIG": "/nonexistent.toml"}, "/nonexistent.toml: cannot be read"),
        ({"DISPATCHER_LISTEN": "0.0.0.0:0"}, "DISPATCHER_TRUST_CALLERS=true"),
        ({"DISPATCHER_LISTEN": "50052"}, "write host:port"),
        (
            {"DISPATCHER_LEDGER": "", "XDG_STATE_HOME": "/proc/none"},
            "DISPATCHER_LEDGER: is not set, and the default place",
        ),
        (
            {"DISPATCHER_LEDGER": "mysql://me:secret@db"},
            "DISPATCHER_LEDGER: mysql: a ledger is memory:, sqlite:PATH or",
        ),
        ({"DISPATCHER_DECISION_LOG": "/nonexistent/log"}, "DISPATCHER_DECISION_LOG=/nonexistent/log"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(env: dict[str, str], line: str) -> None:
    code, lines = _fails(env)
    assert code != 0
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert line in lines[0]


def test_a_misspelt_key_and_a_missing_api_key_stop_the_start_with_one_line(tmp_path: Path) -> None:
    with start_dispatcher(tmp_path, scorer="127.0.0.1:1", upstream="http://127.0.0.1:1/v1") as good:
        good.wait_until_serving()
    config = tmp_path / "dispatcher.toml"
    text = config.read_text()
    for old, new, line in (
        ("alpha = 0.9", "alpa = 0.9", "tenants.fixed.alpa: unknown key: did you mean 'alpha'?"),
        ('name = "strong-1"', 'name = "strong-1"\napi_key_env = "NO_SUCH_KEY"', "NO_SUCH_KEY is not set"),
    ):
        config.write_text(text.replace(old, new))
        code, lines = _fails({"DISPATCHER_CONFIG": str(config)})
        assert (code, len(lines)) == (1, 1)
        assert line in lines[0]


def test_check_config_names_every_problem_and_needs_no_network(tmp_path: Path) -> None:
    with start_dispatcher(tmp_path, scorer="127.0.0.1:1", upstream="http://127.0.0.1:1/v1") as good:
        good.wait_until_serving()
    config = tmp_path / "dispatcher.toml"
    assert _fails({}, "check-config", str(config)) == (0, [])
    config.write_text(config.read_text().replace("alpha = 0.9", "alpa = 0.9").replace("timeout = 1.0", "timeout = -1"))
    code, lines = _fails({}, "check-config", str(config))
    assert (code, len(lines)) == (1, 2)
    assert all(line.startswith(f"error: {config}: ") for line in lines)
