"""The line between a parent and one of its workers: a socket pair with one JSON value per frame.

A worker says once that it serves, and answers each question for its metrics. If the line ends, the parent is gone, and
a worker that nobody would stop stops itself.
"""

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from pointsman.runtime.endpoint import without_creation_times
from pointsman.runtime.workers import merging

METRICS = "metrics"
"""The question, and the key of its answer: families, or null where they cannot be read."""
SERVING = "serving"
"""The key of the worker's word that it serves."""

logger = logging.getLogger(__name__)

_LENGTH = struct.Struct("!I")


class WorkerEnd:
    """The worker's end. Its methods may be called from any thread."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is what the parent has passed on."""
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._writing = threading.Lock()

    def open(self, registry: CollectorRegistry, *, gone: Callable[[], None]) -> None:
        """Answer from now on, on a thread of its own; `gone` is called there when the parent is no more."""
        without_creation_times()
        threading.Thread(target=self._answer, args=(registry, gone), name="parent", daemon=True).start()

    def serving(self) -> None:
        """Say that calls are answered."""
        self._send({SERVING: True})

    def _answer(self, registry: CollectorRegistry, gone: Callable[[], None]) -> None:
        with contextlib.suppress(OSError), self._socket, self._socket.makefile("rb") as incoming:
            while head := incoming.read(_LENGTH.size):
                if json.loads(incoming.read(*_LENGTH.unpack(head))) == METRICS:
                    self._send({METRICS: _readable(registry)})
        gone()

    def _send(self, value: Any) -> None:
        # If the parent is gone, the reader finds out.
        with self._writing, contextlib.suppress(OSError):
            self._socket.sendall(_frame(value))


class ParentEnd:
    """The parent's end, on its event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, end: socket.socket) -> "ParentEnd":
        """Take over one socket of the pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def ask(self) -> None:
        """Ask for metrics; the answer comes as a frame."""
        self._writer.write(_frame(METRICS))

    async def read(self) -> Any:
        """The next frame; `None` when the worker has ended."""
        try:
            head = await self._reader.readexactly(_LENGTH.size)
            return json.loads(await self._reader.readexactly(*_LENGTH.unpack(head)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()


def _readable(registry: CollectorRegistry) -> merging.Families | None:
    """What is in the registry; `None` if it cannot be read now, so that what was read before holds."""
    try:
        return merging.families(registry)
    except (
        Exception
    ):  # A gauge that is read when asked for may fail in any way, and this thread is all that hears the parent.
        logger.exception("metrics cannot be read")
        return None


def _frame(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return _LENGTH.pack(len(body)) + body
