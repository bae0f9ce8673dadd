"""Load from h2load, nghttp2's native generator: it spends a few microseconds per call, so that it is no bottleneck.

A call is a recorded body that is sent again and again: a length-prefixed gRPC message over HTTP/2, or JSON over
HTTP/1.1. h2load counts HTTP statuses and does not read gRPC's: whoever calls it checks the server's own counters.
"""

import contextlib
import itertools
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from benchmarks import machine, peers

_TIMEOUT = 600
_MOST_IN_FLIGHT = 4_000
"""Per connection: an open loop has no bound of its own, and this one is never reached by what a server can answer."""
_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go and what they carry."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    http1: bool = False

    @classmethod
    def grpc(
        cls, address: str, method: str, message: Message, *, tenant: str = "", timeout: float = 0.0, tls: bool = False
    ) -> "Target":
        """A unary or server-streaming call; `method` is `package.Service/Method`, `timeout` (0 for none) in seconds."""
        body = message.SerializeToString()
        headers = {"content-type": "application/grpc", "te": "trailers"}
        if tenant:
            headers["x-pointsman-tenant"] = tenant
        if timeout:
            # The second one as our client tells it: see docs/failures.md on overload.
            headers |= {"grpc-timeout": f"{round(timeout * 1e3)}m", "x-pointsman-timeout": f"{timeout:.3f}"}
        url = f"{'https' if tls else 'http'}://{address}/{method}"
        return cls(url, b"\0" + len(body).to_bytes(4, "big") + body, headers)

    @classmethod
    def json(cls, url: str, body: bytes) -> "Target":
        """A POST of JSON."""
        return cls(url, body, {"content-type": "application/json", "authorization": "Bearer sk-none"}, http1=True)


@dataclass(frozen=True, slots=True)
class Load:
    """What calls came to. Latencies are in seconds, ascending."""

    calls: int
    per_second: float
    latencies: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        return self.latencies[min(int(len(self.latencies) * 0.99), len(self.latencies) - 1)]


class LoadFailed(Exception):
    """Not every call was answered with HTTP 200."""


def run(target: Target, *, calls: int, clients: int) -> Load:
    """Closed loop: `clients` connections, one call at a time on each.

    Raises:
        LoadFailed: a call failed.
        peers.Missing: there is no h2load.
    """
    with _Generator(target) as generator:
        printed = generator.finished(generator.started("-n", str(calls), "-c", str(clients), "-m", "1", target.url))
        if (counted := _counts(printed)) != (calls, calls):
            raise LoadFailed(f"{target.url}: {counted[1]} of {calls} calls were answered: {printed[-600:]}")
        rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", printed)
        assert rate is not None
        return Load(calls, float(rate[1]), generator.latencies())


def offer(target: Target, *, per_second: float, seconds: float, clients: int = 32) -> Load:
    """Open loop: calls at a constant rate, whether or not those before are answered.

    `Load.calls` is how many were made. Those without an answer, such as the ones under way at the end, have no latency.
    Any number may have been refused.

    Raises:
        LoadFailed: h2load could not run.
    """
    with _Generator(target) as generator:
        rate = ["--rps", f"{per_second / clients:.3f}", "-D", f"{seconds:g}"]
        printed = generator.finished(
            generator.started(*rate, "-c", str(clients), "-m", str(_MOST_IN_FLIGHT), target.url)
        )
        made, _ = _counts(printed)
        return Load(made, made / seconds, generator.latencies())


def arrive(target: Target, *, per_second: float, seconds: float, seed: int = 1) -> Load:
    """Open loop: calls that arrive at random (Poisson), as those of many callers who know nothing of each other do.

    h2load's clock is coarse: so many processes make a part of the calls each. `Load.per_second` is the rate reached.

    Raises:
        LoadFailed: not every call was answered with HTTP 200.
    """
    draw = random.Random(seed)
    with contextlib.ExitStack() as stack:
        running = []
        for _ in range(_PROCESSES):
            generator = stack.enter_context(_Generator(target))
            script, at = generator.folder / "script", 0.0
            with script.open("w") as lines:
                while (at := at + draw.expovariate(per_second / _PROCESSES)) < seconds:
                    lines.write(f"{at * 1e3:.3f}\t{target.url}\n")
            process = generator.started(f"--timing-script-file={script}", "-c", "1", "-m", str(_MOST_IN_FLIGHT))
            running.append((generator, process))
        began = time.monotonic()
        counts = [_counts(generator.finished(process)) for generator, process in running]
        taken = time.monotonic() - began
        latencies = sorted(itertools.chain.from_iterable(generator.latencies() for generator, _ in running))
    made, answered = (sum(each) for each in zip(*counts, strict=True))
    if made != answered:
        raise LoadFailed(f"{target.url}: {answered} of {made} calls were answered")
    return Load(made, made / taken, latencies)


class _Generator:
    """One h2load with its body and log in a folder of its own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        (self.folder / "body").write_bytes(target.body)

    def __enter__(self) -> "_Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def started(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [peers.tool("h2load"), "-d", str(self.folder / "body"), f"--log-file={self.folder / 'log'}"]
        if self._target.http1:
            command.append("--h1")
        for name, value in self._target.headers.items():
            command += ["-H", f"{name}: {value}"]
        with machine.pinned(machine.REST):
            return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finished(self, process: "subprocess.Popen[str]") -> str:
        """What it printed."""
        try:
            printed, _ = process.communicate(timeout=_TIMEOUT)
        finally:
            process.kill()
        if process.returncode != 0:
            raise LoadFailed(f"{self._target.url}: {printed[-600:]}")
        return printed

    def latencies(self) -> Sequence[float]:
        """Of the calls that were answered with HTTP 200."""
        rows = (line.split("\t") for line in (self.folder / "log").read_text().splitlines())
        return sorted(int(row[2]) / 1e6 for row in rows if row[1] == "200")


def _counts(printed: str) -> tuple[int, int]:
    """Calls that were made, and those that were answered with HTTP 2xx."""
    made = re.search(r"requests: \d+ total, (\d+) started", printed)
    answered = re.search(r"status codes: (\d+) 2xx", printed)
    if made is None or answered is None:
        raise LoadFailed(printed[-600:])
    return int(made[1]), int(answered[1])
