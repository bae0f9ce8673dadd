"""Requests that may outlive their callers, so that what an upstream bills is known and not guessed.

The work of a request runs in a task of its own. When its caller goes away, the request says how long the work may go
on (`models[].on_disconnect`): not at all, and it is cancelled at once; or so many seconds, in which it ends as if
somebody still listened, and is cancelled after them. Either way the caller's own cancellation goes on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

_T = TypeVar("_T")
_AHEAD: Final = 16
"""Events of a stream that may wait for their caller."""

Observe = Callable[[str], None]
"""Called with what became of a request that outlived its caller: `finished`, `failed` or `cancelled`."""


class Leavable(Protocol):
    """A request whose caller may go away."""

    def caller_gone(self) -> float:
        """The caller went away: for how many seconds the work may go on; 0 if not at all."""


class Drains:
    """The requests of one dispatcher whose callers have gone."""

    def __init__(self, *, observe: Observe) -> None:
        self._observe = observe
        self._left: set[asyncio.Task[Any]] = set()

    async def complete(self, work: Coroutine[Any, Any, _T], request: Leavable) -> _T:
        """What `work` returns or raises."""
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._leave(task, request)
            raise

    async def stream(self, events: AsyncGenerator[_T, None], request: Leavable) -> AsyncGenerator[_T, None]:
        """The events as they come. Closing the generator is the caller going away."""
        relay = _Relay(events)
        task = asyncio.create_task(relay.run())
        try:
            while (event := await relay.queue.get()) is not _END:
                yield event
            await task
        finally:
            relay.stop()
            self._leave(task, request)

    async def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for those that go on, then cancel them."""
        if self._left:
            await asyncio.wait(self._left, timeout=timeout)
        for task in self._left:
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)

    def _leave(self, task: asyncio.Task[Any], request: Leavable) -> None:
        if task.done():
            _retrieve(task)
            return
        seconds = request.caller_gone()
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        if seconds <= 0:
            task.cancel()
            task.add_done_callback(_retrieve)
            return
        timer = asyncio.get_running_loop().call_later(seconds, task.cancel)

        def ended(ended_task: asyncio.Task[Any]) -> None:
            timer.cancel()
            self._observe(_result(ended_task))

        task.add_done_callback(ended)


class _End:
    """The end of a stream in its queue."""


_END: Final = _End()


class _Relay(Generic[_T]):
    """Moves events from a generator, which it alone drives, to a queue, as long as somebody takes them."""

    def __init__(self, events: AsyncGenerator[_T, None]) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)
        self._events = events
        self._taken = True

    async def run(self) -> None:
        """To the generator's end. Raises what it raises."""
        try:
            async with contextlib.aclosing(self._events):
                async for event in self._events:
                    if self._taken:
                        await self.queue.put(event)
        finally:
            if self._taken:
                await self.queue.put(_END)

    def stop(self) -> None:
        """Nobody takes events any more."""
        self._taken = False
        # A put may wait for room.
        while not self.queue.empty():
            self.queue.get_nowait()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Nobody is left to whom an error could be told; the record has it."""
    if not task.cancelled():
        task.exception()


def _result(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "cancelled"
    return "finished" if task.exception() is None else "failed"
