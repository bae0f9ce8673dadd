"""Ending tasks for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

_ROUNDS = 3


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
