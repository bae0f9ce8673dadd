"""Beginning tasks at once, and ending them for certain."""

import asyncio
from collections.abc import Coroutine, Generator, Iterable
from typing import Any

_ROUNDS = 3


def begun(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None] | None":
    """Run `work` up to where it first waits; a task does the rest. `None` if there is no rest: then it costs no task.

    Until then it runs within the caller's own task, so that it must not ask which one that is, as `asyncio.timeout`
    does. From Python 3.12 on asyncio has eager tasks, which this stands in for.

    Raises:
        Exception: what `work` raises before it waits.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_rest(work, waits_for))


async def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _Rest(work, waits_for)


class _Rest:
    """What a coroutine has still to do when something has run its beginning."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        work, waits_for = self._work, self._waits_for
        while True:
            try:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001  # whatever comes in is for `work` to see
                    waits_for = work.throw(error)
                else:
                    waits_for = work.send(sent)
            except StopIteration:
                return


async def end(tasks: Iterable["asyncio.Future[Any]"], *, patience: float = 1.0) -> None:
    """Cancel tasks and wait for their ends: some seconds at most, whatever they do.

    A task is cancelled again if it goes on. Before Python 3.12 `asyncio.wait_for`, which the Redis client writes with,
    swallows a cancellation that comes together with its result, and the end of a process must not hang on that.
    """
    left = set(tasks)
    for _ in range(_ROUNDS):
        for task in left:
            task.cancel()
        if left:
            ended, left = await asyncio.wait(left, timeout=patience)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # taken note of: it is of no use any more
