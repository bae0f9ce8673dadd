"""Real service processes for tests: started on free ports, waited for by their own "serving" line, always reaped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0

ANY_PORT = "127.0.0.1:0"
SCORER_PORTS = {"SCORER_LISTEN": ANY_PORT, "SCORER_METRICS_LISTEN": ANY_PORT}
DISPATCHER_PORTS = {
    "DISPATCHER_LISTEN": ANY_PORT,
    "DISPATCHER_METRICS_LISTEN": ANY_PORT,
    "DISPATCHER_LEDGER": "memory:",  # not the developer's own book
}


class ServiceProcess:
    """`python -m MODULE` as its own process; a context manager that ends it, whatever happens.

    Its environment is ours without any setting of the services, plus `env`; it runs from the repository's root.
    """

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str]) -> None:
        """Start the process; does not wait for it."""
        self._name = module
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        # Reads all along: a full pipe would block the process.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; `None` while it runs."""
        return self._process.poll()

    @property
    def stderr(self) -> list[str]:
        """The lines written so far."""
        with self._news:
            return list(self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The JSON log lines so far whose `event` is `name`."""
        return [entry for entry in map(_parse, self.stderr) if entry.get("event") == name]

    def wait_for(self, event: str, *, timeout: float = START_SECONDS) -> dict[str, Any]:
        """Wait until the process has logged `event`, and return its first such line.

        Raises:
            AssertionError: it ended or `timeout` seconds passed before that; shows what it wrote.
        """
        with self._news:
            self._news.wait_for(lambda: self._ended or self.events(event), timeout)
        found = self.events(event)
        if not found:
            shown = "\n".join(self.stderr)
            raise AssertionError(f"{self._name} (exit code {self.returncode}) logged no {event!r}:\n{shown}")
        return found[0]

    def wait_until_serving(self) -> Self:
        """Wait for the "serving" line, which names the ports."""
        self.wait_for("serving")
        return self

    @property
    def grpc(self) -> str:
        """`host:port` of the gRPC server, once it serves."""
        return str(self.wait_for("serving")["grpc"])

    @property
    def metrics(self) -> str:
        """`host:port` of the metrics endpoint, once it serves."""
        return str(self.wait_for("serving")["metrics"])

    def terminate(self) -> None:
        """Send SIGTERM; does not wait."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL and wait."""
        self._process.kill()
        return self.wait()

    def stop(self) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        self.terminate()
        return self.wait()

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the end and for its last line; returns the exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None:
                self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
        finally:
            assert self._process.stderr is not None
            self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # closed under our hands by __exit__
            for line in self._process.stderr:
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def scorer(env: Mapping[str, str]) -> ServiceProcess:
    """A scorer on free ports, serving."""
    return _serving("scorer_service", {**SCORER_PORTS, **env})


def dispatcher(env: Mapping[str, str]) -> ServiceProcess:
    """A dispatcher on free ports, serving."""
    return _serving("dispatcher_service", {**DISPATCHER_PORTS, **env})


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left: its exit code and what it wrote to standard output and standard error."""

    code: int
    stdout: str
    stderr: str

    def error_lines(self) -> Sequence[str]:
        """The lines of standard error that start with `error:`."""
        return [line for line in self.stderr.splitlines() if line.startswith("error:")]


def run_to_end(module: str, *arguments: str, env: Mapping[str, str], timeout: float = START_SECONDS) -> Ended:
    """Run `python -m MODULE` until it ends by itself; killed, and an error, after `timeout` seconds."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def eventually(timeout: float = 10.0) -> Iterator[float]:
    """Yield the seconds passed, every 20 ms until `timeout`: `for _ in eventually(): if condition: break`.

    Raises:
        AssertionError: the loop did not break in time.
    """
    started = time.monotonic()
    while (passed := time.monotonic() - started) < timeout:
        yield passed
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout:g} s")


def _serving(module: str, env: Mapping[str, str]) -> ServiceProcess:
    process = ServiceProcess(module, env=env)
    try:
        return process.wait_until_serving()
    except BaseException:
        process.__exit__()
        raise


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SCORER_", "DISPATCHER_"))}
    # Two cores are shared with the test and the other services.
    return {**ours, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **env}


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
