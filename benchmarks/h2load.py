"""Load from h2load, nghttp2's native generator: it spends a few microseconds per call, so that it is no bottleneck.

A call is a recorded body that is sent again and again: a length-prefixed gRPC message over HTTP/2, or JSON over
HTTP/1.1. h2load counts HTTP statuses and does not read gRPC's: whoever calls it checks the server's own counters.
"""

import re
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from benchmarks import machine, peers

_TIMEOUT = 600


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go and what they carry."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    http1: bool = False

    @classmethod
    def grpc(cls, address: str, method: str, message: Message, *, tenant: str = "") -> "Target":
        """A unary or server-streaming call; `method` is `package.Service/Method`."""
        body = message.SerializeToString()
        headers = {"content-type": "application/grpc", "te": "trailers"}
        if tenant:
            headers["x-pointsman-tenant"] = tenant
        return cls(f"http://{address}/{method}", b"\0" + len(body).to_bytes(4, "big") + body, headers)

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
    h2load = peers.tool("h2load")
    with tempfile.TemporaryDirectory() as folder, machine.pinned(machine.REST):
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(target.body)
        command = [h2load, "-n", str(calls), "-c", str(clients), "-m", "1", "-d", str(body), f"--log-file={log}"]
        if target.http1:
            command.append("--h1")
        for name, value in target.headers.items():
            command += ["-H", f"{name}: {value}"]
        done = subprocess.run([*command, target.url], check=False, capture_output=True, text=True, timeout=_TIMEOUT)
        summary = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
        rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", done.stdout)
        if done.returncode != 0 or not summary or not rate or int(summary[1]) != calls:
            raise LoadFailed(f"{target.url}: {(done.stdout + done.stderr)[-600:]}")
        if re.search(r"status codes: (\d+) 2xx", done.stdout)[1] != str(calls):  # type: ignore[index]
            raise LoadFailed(f"{target.url}: {done.stdout[-600:]}")
        latencies = sorted(int(line.split("\t")[2]) / 1e6 for line in log.read_text().splitlines())
    return Load(calls, float(rate[1]), latencies)
