"""The life of the scorer process: start, refusal to start, overload, impatient callers, drain."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pointsman.runtime.status import decode
from pointsman.scorer.v1 import scorer_pb2
from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceStub
from scorer_service import artifact as artifacts
from scorer_service.scorer import open_scorer
from scorer_service.settings import SHIPPED_ARTIFACT, Settings
from tests.artifacts import edit_file, edit_manifest, user, write
from tests.processes import SCORER_PORTS, ServiceProcess, eventually, run_to_end, scorer

if TYPE_CHECKING:  # exists for types only
    from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceAsyncStub as AsyncStub


SERVICE = "pointsman.scorer.v1.ScorerService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 0.2 s per run, whatever the batch."""
    return write(tmp_path_factory.mktemp("slow"), work=2000)


def _request(text: str = "hello") -> scorer_pb2.ScoreRequest:
    turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text)
    return scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]))


@asynccontextmanager
async def _stub(address: str) -> AsyncIterator["AsyncStub"]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield ScorerServiceStub(channel)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refused(env: dict[str, str]) -> str:
    """The one line with which the process refuses to start."""
    ended = run_to_end("scorer_service", env={**SCORER_PORTS, **env})
    assert ended.code not in (0, -6, -9, -11)
    [line] = ended.error_lines()
    assert "Traceback" not in ended.stderr
    return line


async def test_health_turns_to_serving_once_the_golden_rows_have_passed(tmp_path: Path) -> None:
    address = f"127.0.0.1:{_free_port()}"
    directory = write(tmp_path, golden_copies=4000)  # seconds of replay
    env = {**SCORER_PORTS, "SCORER_LISTEN": address, "SCORER_ARTIFACTS": f"default={directory}"}
    with ServiceProcess("scorer_service", env=env):
        # The first attempts find nobody there; gRPC's own backoff of a second could miss what is tested.
        backoff = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]
        async with grpc.aio.insecure_channel(address, options=backoff) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=60, wait_for_ready=True
            )
            try:
                states = aiter(watch)
                assert (await anext(states)).status == NOT_SERVING
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await ScorerServiceStub(channel).Score(_request(), timeout=10)
                status = decode(raised.value)
                assert status is not None
                assert (status.code, status.reason) == (grpc.StatusCode.UNAVAILABLE, "LOADING")
                assert (await anext(states)).status == SERVING
            finally:
                watch.cancel()
            response = await ScorerServiceStub(channel).Score(_request(), timeout=10)
            assert 0 < response.win_probability < 1


@pytest.mark.parametrize(("mode", "offered"), [("development", True), ("production", False)])
async def test_reflection_is_offered_in_development_only(tiny: Path, mode: str, offered: bool) -> None:
    with scorer({"SCORER_ARTIFACTS": f"default={tiny}", "SCORER_MODE": mode}) as process:
        async with grpc.aio.insecure_channel(process.grpc) as channel:
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([question]), timeout=10)
            try:
                if offered:
                    [answer] = [answer async for answer in call]
                    assert SERVICE in [service.name for service in answer.list_services_response.service]
                else:
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        [answer async for answer in call]
                    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            finally:
                call.cancel()


async def test_the_shipped_artifact_is_served_by_default() -> None:
    with scorer({}) as process:
        async with _stub(process.grpc) as stub:
            response = await stub.Score(_request("Prove that there are infinitely many primes."), timeout=10)
            [listed] = (await stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=10)).scorers
    shipped = open_scorer(SHIPPED_ARTIFACT)
    text = "Prove that there are infinitely many primes."
    expected = float(shipped.onnx.score([shipped.preprocessor.encode(user(text))])[0])
    assert response.win_probability == pytest.approx(expected, abs=1e-6)
    assert (listed.name, listed.version) == ("default", shipped.artifact.version)


async def test_common_prompts_do_not_wait_for_long_ones() -> None:
    with scorer({}) as process:
        async with _stub(process.grpc) as stub:
            long = [stub.Score(_request("日本" * 150_000), timeout=60) for _ in range(6)]  # seconds of tokenising
            await asyncio.sleep(0.2)
            mixed = scorer_pb2.BatchScoreRequest(
                requests=[_request(), _request("a " * 20_000), _request("hello there")]
            )
            common = [await stub.Score(_request(), timeout=10) for _ in range(5)]
            assert not any(call.done() for call in long[3:])
            assert all([(await call).truncated for call in long])
            batch = (await stub.BatchScore(mixed, timeout=10)).responses
    assert [response.truncated for response in batch] == [False, True, False]
    assert batch[0].win_probability == pytest.approx(common[0].win_probability, abs=1e-6)


async def test_sigterm_under_load_finishes_what_is_in_flight(slow: Path) -> None:
    with scorer({"SCORER_ARTIFACTS": f"default={slow}", "SCORER_MAX_BATCH": "2"}) as process:
        direct = open_scorer(slow, threads=1)
        expected = float(direct.onnx.score([direct.preprocessor.encode(user("hello"))])[0])
        async with _stub(process.grpc) as stub:
            calls = [stub.Score(_request(), timeout=30) for _ in range(6)]  # three batches
            await calls[0]
            process.terminate()
            responses = await asyncio.gather(*calls)
        assert [response.win_probability for response in responses] == pytest.approx([expected] * 6, abs=1e-6)
        assert process.wait() == 0
        assert process.events("stopped")


async def test_a_full_queue_is_refused_at_once_and_says_when_to_come_back(slow: Path) -> None:
    env = {
        "SCORER_ARTIFACTS": f"default={slow}",
        "SCORER_MAX_QUEUE": "2",
        "SCORER_MAX_BATCH": "1",
        "SCORER_MAX_REQUEST_BATCH": "2",
    }
    with scorer(env) as process:
        async with _stub(process.grpc) as stub:
            results = await asyncio.gather(
                *(stub.Score(_request(), timeout=30) for _ in range(12)), return_exceptions=True
            )
            errors = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
            # One runs and two wait; those that arrive before the worker takes the first have room for one less.
            assert 1 <= len(errors) <= 10
            for error in errors:
                status = decode(error)
                assert status is not None
                assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert status.retry_after == pytest.approx(0.1)
            assert (await stub.Score(_request(), timeout=30)).win_probability > 0


async def test_impatient_callers_hold_up_nobody(slow: Path) -> None:
    env = {"SCORER_ARTIFACTS": f"default={slow}", "SCORER_MAX_BATCH": "1", "SCORER_MAX_QUEUE": "256"}
    with scorer(env) as process:
        async with _stub(process.grpc) as stub:
            running = stub.Score(_request(), timeout=30)
            await asyncio.sleep(0.05)
            impatient = [stub.Score(_request(), timeout=0.1) for _ in range(20)]
            cancelled = [stub.Score(_request(), timeout=30) for _ in range(20)]
            results = await asyncio.gather(*impatient, return_exceptions=True)
            assert {error.code() for error in results if isinstance(error, grpc.aio.AioRpcError)} == {
                grpc.StatusCode.DEADLINE_EXCEEDED
            }
            for call in cancelled:
                call.cancel()
            # Forty runs would take about eight seconds: those that nobody waits for are not run.
            patient = await stub.Score(_request(), timeout=4)
            assert (await running).win_probability == pytest.approx(patient.win_probability, abs=1e-7)


def _move_golden(directory: Path) -> None:
    golden = artifacts.load(directory).golden_rows()[0].win_probability
    edit_file(directory, artifacts.GOLDEN, lambda text: text.replace(repr(golden), "0.987654", 1))


def _from_the_future(directory: Path) -> None:
    edit_manifest(directory, lambda document: document["preprocess"].update(version=7))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda directory: (directory / artifacts.TOKENIZER).unlink(), "tokenizer.json is missing"),
        (lambda directory: (directory / artifacts.MODEL).write_bytes(b"cut short"), "model.onnx has SHA-256"),
        (_move_golden, "golden.jsonl line 1: win probability"),
        (_from_the_future, "unknown preprocess version 7"),
    ],
)
def test_a_broken_artifact_stops_the_start_with_one_line(
    tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    damage(write(tmp_path / "broken"))
    line = _refused({"SCORER_ARTIFACTS": f"mine={tmp_path / 'broken'}"})
    assert line.startswith("error: scorer 'mine': ")
    assert problem in line


def test_a_misspelt_setting_stops_the_start_and_is_put_right(tiny: Path) -> None:
    line = _refused({"SCORER_ARTIFACTS": f"default={tiny}", "SCORER_MAX_BACH": "3"})
    assert line == "error: SCORER_MAX_BACH is not a setting: did you mean SCORER_MAX_BATCH?"


def test_a_taken_port_stops_the_start(tiny: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in _refused({"SCORER_ARTIFACTS": f"default={tiny}", "SCORER_LISTEN": address})


async def test_names_that_kubernetes_injects_are_ignored(tiny: Path) -> None:
    injected = {
        "SCORER_SERVICE_HOST": "10.0.0.7",
        "SCORER_SERVICE_PORT": "50051",
        "SCORER_SERVICE_PORT_GRPC": "50051",
        "SCORER_PORT": "tcp://10.0.0.7:50051",
        "SCORER_PORT_50051_TCP": "tcp://10.0.0.7:50051",
        "SCORER_PORT_50051_TCP_PROTO": "tcp",
        "SCORER_PORT_50051_TCP_PORT": "50051",
        "SCORER_PORT_50051_TCP_ADDR": "10.0.0.7",
    }
    with scorer({"SCORER_ARTIFACTS": f"default={tiny}", **injected}) as process:
        async with _stub(process.grpc) as stub:
            assert (await stub.Score(_request(), timeout=10)).scorer == "default"


def test_help_lists_every_setting_with_unit_and_default() -> None:
    ended = run_to_end("scorer_service", "--help", env={})
    assert ended.code == 0
    assert "SCORER_LISTEN  [host:port; default 127.0.0.1:50051]" in ended.stdout
    assert "SCORER_METRICS_LISTEN  [host:port; default 127.0.0.1:9101]" in ended.stdout
    assert "SCORER_MAX_CONVERSATION_BYTES  [bytes; default 1048576]" in ended.stdout
    assert "SCORER_MODE  [mode; default development; one of development, production]" in ended.stdout
    assert ended.stdout.count("\n  SCORER_") == len(dataclasses.fields(Settings))


def test_an_idle_scorer_stops_at_once(tiny: Path) -> None:
    with scorer({"SCORER_ARTIFACTS": f"default={tiny}"}) as process:
        process.terminate()
        for _ in eventually(5):
            if process.returncode is not None:
                break
        assert process.returncode == 0
