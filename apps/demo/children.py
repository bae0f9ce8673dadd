"""Child processes that announce themselves with a JSON "serving" line on standard error, and never outlive us."""

import asyncio
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

_SECONDS_TO_START = 60.0
_SECONDS_TO_STOP = 10.0
_LINES_KEPT = 12
_LONGEST_LINE = 1024 * 1024  # A traceback inside a JSON line is long; asyncio's default of 64 KiB would break off.


class ChildFailed(Exception):
    """A child did not start, or ended by itself. The message shows its last words and says what to do."""


class Child:
    """One running child.

    Attributes:
        module: what it runs.
        serving: its "serving" line, which holds its addresses.
    """

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        """Made by `child`."""
        self.module = module
        self.serving: dict[str, Any] = {}
        self._process = process
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._announced = asyncio.Event()
        # Reads until the child's end: a full pipe would block it.
        self._reader = asyncio.create_task(self._read())

    async def ended(self) -> None:
        """Wait until it ends by itself.

        Raises:
            ChildFailed: always, then.
        """
        await self._process.wait()
        await self._reader
        raise self._failure("ended")

    def last_words(self) -> str:
        """What it wrote last, for people."""
        return "\n".join(f"  {line}" for line in self._last_lines) or "  (nothing)"

    async def _wait_until_serving(self) -> None:
        announced = asyncio.ensure_future(self._announced.wait())
        try:
            await asyncio.wait({announced, self._reader}, timeout=_SECONDS_TO_START, return_when="FIRST_COMPLETED")
        finally:
            announced.cancel()
        if not self._announced.is_set():
            raise self._failure("did not start" if self._reader.done() else f"was not up in {_SECONDS_TO_START:g} s")

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._last_lines.append(line)
            entry = _json_object(line)
            if entry.get("event") == "serving":
                self.serving = entry
                self._announced.set()

    async def _stop(self) -> None:
        """SIGTERM, a while to finish, then SIGKILL. Nobody waits for it after this."""
        try:
            if self._process.returncode is None:
                self._process.terminate()
                await asyncio.wait_for(self._process.wait(), _SECONDS_TO_STOP)
        except (TimeoutError, asyncio.CancelledError):
            # Cancelled while stopping is a second Ctrl-C: no more patience, but still no orphan.
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reader

    def _failure(self, what: str) -> ChildFailed:
        words = self.last_words()
        mend = (
            "A package is missing: run pip install 'pointsman[scorer,dispatcher,demo]' and try again."
            if "ModuleNotFoundError" in words
            else f"Its last line above says what is wrong; python -m {self.module} --help lists its settings."
        )
        return ChildFailed(f"{self.module} {what}. It wrote:\n{words}\n{mend}")


@asynccontextmanager
async def child(module: str, env: Mapping[str, str]) -> AsyncIterator[Child]:
    """Run `python -m MODULE` with our environment and `env`; serving inside the context, gone after it.

    Raises:
        ChildFailed: it did not start.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        # Ctrl-C on the terminal reaches us alone, so that the children end in our order and not in the middle of it.
        process_group=0,
    )
    started = Child(module, process)
    try:
        await started._wait_until_serving()
        yield started
    finally:
        await started._stop()


def _json_object(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
