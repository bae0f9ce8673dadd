"""One worker, as its parent sees it: a process of its own and the line to it."""

import asyncio
import collections
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

from pointsman.runtime.workers import link
from pointsman.runtime.workers.merging import Families

Took = Callable[[int, Families], None]
"""Called with a worker's number and its metrics, each time that it has told them."""


class Worker:
    """A worker that was started. It is the parent's to wait for its end."""

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", line: link.ParentEnd, took: Took) -> None:
        """Use `started`."""
        self.number = number
        self.is_serving = False
        self._process = process
        self._line = line
        self._took = took
        self._news = asyncio.Event()
        self._questions: collections.deque[asyncio.Future[None]] = collections.deque()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def started(cls, number: int, module: str, environ: Mapping[str, str], took: Took) -> "Worker":
        """Spawn `python -m MODULE FD`.

        Raises:
            OSError: the system starts no further process.
        """
        process, ours = _spawned(module, environ)
        return cls(number, process, await link.ParentEnd.opened(ours), took)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def serves(self, seconds: float) -> bool:
        """Wait until it serves. False: it has ended before, or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        return self.is_serving

    async def tell(self, seconds: float) -> None:
        """Ask for its metrics, and wait until they have been taken, or it has ended, or `seconds` have passed."""
        if not self.is_serving:
            return
        answer = asyncio.get_running_loop().create_future()
        self._questions.append(answer)
        self._line.ask()
        await asyncio.wait([answer], timeout=seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        await self._listening  # Its end of the line is closed when it ends, and not before.
        return await asyncio.to_thread(self._process.wait)

    async def _listen(self) -> None:
        """Take what it says until it has ended. Answers come in the order of the questions."""
        try:
            while frame := await self._line.read():
                if link.SERVING in frame:
                    self.is_serving = True
                    self._news.set()
                if link.METRICS in frame:
                    if frame[link.METRICS] is not None:
                        self._took(self.number, frame[link.METRICS])
                    self._answered()
        finally:
            self.is_serving = False
            self._news.set()
            while self._questions:
                self._answered()
            self._line.close()

    def _answered(self) -> None:
        question = self._questions.popleft()
        if not question.done():
            question.set_result(None)


def _spawned(module: str, environ: Mapping[str, str]) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """The process and our end of the line.

    asyncio's own processes are not used: a signal to one that has just ended takes its exit code from who waits for it.
    """
    ours, its = socket.socketpair()
    with its:
        descriptor = its.fileno()
        try:
            process = subprocess.Popen(  # noqa: S603 — our own interpreter and module
                [sys.executable, "-m", module, str(descriptor)], env=environ, pass_fds=[descriptor]
            )
        except OSError:
            ours.close()
            raise
    return process, ours
