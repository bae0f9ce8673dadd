"""Several dispatcher processes behind one gRPC port and one metrics port."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from dispatcher_service.workers import GAUGES
from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from tests.dispatchers import chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import DISPATCHER_PORTS, ROOT, ServiceProcess, eventually, run_to_end

CALLERS = 12
"""Connections: that all of them fall to one of two workers has a chance of 1 in 2,048."""
METADATA = (("x-pointsman-tenant", "default"),)


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def dispatcher(folder: Path, upstream: OpenAIServer) -> Iterator[ServiceProcess]:
    with start_dispatcher(folder, scorer="127.0.0.1:1", upstream=upstream.base_url, DISPATCHER_WORKERS="2") as process:
        yield process.wait_until_serving()


@contextlib.asynccontextmanager
async def _stubs(address: str) -> AsyncIterator[list["dispatcher_pb2_grpc.DispatcherServiceAsyncStub"]]:
    """Callers with a connection each."""
    async with contextlib.AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(CALLERS)
        ]
        yield [dispatcher_pb2_grpc.DispatcherServiceStub(channel) for channel in channels]


async def _complete(address: str, each: int) -> int:
    """Calls of all callers at once, `each` one after the other; returns how many there were."""
    request = dispatcher_pb2.CompleteRequest(chat=chat("hello"))

    async def caller(stub: "dispatcher_pb2_grpc.DispatcherServiceAsyncStub") -> None:
        for _ in range(each):
            await stub.Complete(request, metadata=METADATA, timeout=30, wait_for_ready=True)

    async with _stubs(address) as stubs:
        await asyncio.gather(*map(caller, stubs))
    return each * CALLERS


def _text(process: ServiceProcess) -> str:
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def _metrics(process: ServiceProcess) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(_text(process))}


def _described(process: ServiceProcess) -> set[str]:
    """Name, type and meaning of everything, series or not."""
    return {line for line in _text(process).splitlines() if line.startswith("#") and "_workers" not in line}


def _value(process: ServiceProcess, sample: str, **labels: str) -> float:
    """The sum over the series that have these labels."""
    return sum(
        found.value
        for family in _metrics(process).values()
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def _counts(process: ServiceProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything that must not fall."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in _metrics(process).values()
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


def _workers(process: ServiceProcess) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


async def test_sums_over_workers_equal_the_calls_that_were_made(dispatcher: ServiceProcess) -> None:
    request = dispatcher_pb2.CompleteRequest(chat=chat("hello"))
    async with _stubs(dispatcher.grpc) as stubs:
        for _ in range(5):
            await asyncio.gather(*(stub.Complete(request, metadata=METADATA, timeout=30) for stub in stubs))
        port = int(dispatcher.grpc.rpartition(":")[2])
        served = [
            sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in worker.net_connections())
            for worker in _workers(dispatcher)
        ]
    assert len(served) == 2
    assert sum(served) == CALLERS
    assert all(served), "the kernel gives connections to both"
    made = 5 * CALLERS
    assert _value(dispatcher, "pointsman_dispatcher_requests_total", method="Complete", status="OK") == made
    assert _value(dispatcher, "pointsman_dispatcher_decisions_total", tenant="default") == made
    assert _value(dispatcher, "pointsman_dispatcher_overhead_seconds_count", method="Complete") == made
    assert _value(dispatcher, "pointsman_dispatcher_overhead_seconds_bucket", le="+Inf") == made
    assert _value(dispatcher, "pointsman_dispatcher_workers") == 2


async def test_a_killed_worker_is_replaced_and_no_counter_falls(dispatcher: ServiceProcess) -> None:
    await _complete(dispatcher.grpc, 1)
    before = _counts(dispatcher)
    victim = _workers(dispatcher)[0]
    victim.kill()
    died = await asyncio.to_thread(dispatcher.wait_for, "a worker died and will be replaced")
    assert (died["pid"], died["exit_code"]) == (victim.pid, -signal.SIGKILL)
    made = await _complete(dispatcher.grpc, 1)  # by the other one, meanwhile
    for _ in eventually(60):
        if _value(dispatcher, "pointsman_dispatcher_workers") == 2:
            break
    assert victim.pid not in {worker.pid for worker in _workers(dispatcher)}
    made += await _complete(dispatcher.grpc, 1)
    after = _counts(dispatcher)
    assert not {series: value for series, value in before.items() if after.get(series, 0) < value}
    ok = ("pointsman_dispatcher_requests_total", (("method", "Complete"), ("status", "OK")))
    assert after[ok] == before[ok] + made
    assert _value(dispatcher, "pointsman_dispatcher_workers_died_total") == 1


def test_sighup_reaches_every_worker(dispatcher: ServiceProcess) -> None:
    before = _value(dispatcher, "pointsman_dispatcher_config_loads_total", result="ok")
    os.kill(dispatcher.pid, signal.SIGHUP)
    for _ in eventually(20):
        if _value(dispatcher, "pointsman_dispatcher_config_loads_total", result="ok") == before + 2:
            break


async def test_health_is_that_of_workers_which_serve(dispatcher: ServiceProcess) -> None:
    async with grpc.aio.insecure_channel(dispatcher.grpc) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_workers_show_what_one_dispatcher_shows_and_every_gauge_has_a_rule(
    dispatcher: ServiceProcess, tmp_path: Path, upstream: OpenAIServer
) -> None:
    with start_dispatcher(tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url) as alone:
        alone.wait_until_serving()
        asyncio.run(_complete(alone.grpc, 1))
        one = _described(alone)
    assert _described(dispatcher) == one
    assert {line.split()[2] for line in one if line.startswith("# TYPE") and line.endswith(" gauge")} <= GAUGES.keys()


async def test_sigterm_drains_every_worker_and_exits_zero(dispatcher: ServiceProcess) -> None:
    workers = _workers(dispatcher)
    request = dispatcher_pb2.StreamCompleteRequest(chat=chat("slow " + "word " * 15))
    async with _stubs(dispatcher.grpc) as stubs:
        streams = []
        for stub in stubs:
            events = aiter(stub.StreamComplete(request, metadata=METADATA, timeout=30))
            assert (await anext(events)).HasField("started")
            streams.append(events)
        dispatcher.terminate()
        for stream in streams:
            rest = [event async for event in stream]
            assert "".join(event.delta.content for event in rest).count("word") == 15
            assert rest[-1].HasField("finished")
        assert await asyncio.to_thread(dispatcher.wait) == 0
    assert not any(worker.is_running() for worker in workers)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with start_dispatcher(
        tmp_path, scorer="127.0.0.1:1", upstream="http://127.0.0.1:1/v1", DISPATCHER_WORKERS="2"
    ) as dispatcher:
        dispatcher.wait_until_serving()
        workers = _workers(dispatcher)
        dispatcher.kill()
        gone, alive = psutil.wait_procs(workers, timeout=30)
    assert (len(gone), alive) == (2, [])


def test_what_keeps_workers_from_starting_is_said_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for env, code, line in (
            ({"DISPATCHER_CONFIG": "/nonexistent.toml"}, 1, "/nonexistent.toml: cannot be read"),
            ({"DISPATCHER_LEDGER": "memory:"}, 1, "DISPATCHER_WORKERS=2: with DISPATCHER_LEDGER=memory:"),
            ({"DISPATCHER_WORKERS": "0"}, 2, "DISPATCHER_WORKERS=0: write a number at least 1 and at most 64"),
            ({"DISPATCHER_LISTEN": address}, 1, f"cannot listen on {address}: is another process there?"),
            ({"DISPATCHER_METRICS_LISTEN": address}, 1, f"cannot listen on {address}: Address already in use"),
        ):
            settings = {
                **DISPATCHER_PORTS,
                "DISPATCHER_LEDGER": f"sqlite:{tmp_path / 'ledger.sqlite'}",
                "DISPATCHER_WORKERS": "2",
                **env,
            }
            ended = run_to_end("dispatcher_service", env=settings)
            assert (ended.code, ended.stderr.count("\n")) == (code, 1), ended.stderr
            assert ended.stderr.startswith("error: ")
            assert line in ended.stderr


def test_the_parent_holds_no_grpc() -> None:
    found = "any(m.split('.')[0] in ('grpc', 'google', 'openai', 'onnxruntime') for m in sys.modules)"
    code = f"import sys, dispatcher_service.__main__; sys.exit({found})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
