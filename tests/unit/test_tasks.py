"""Ending tasks for certain."""

import asyncio

from dispatcher_service import tasks


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed == 1:
                    raise
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await tasks.end([task], patience=0.01)
    assert task.cancelled()


async def test_one_that_never_ends_is_not_waited_for_without_end() -> None:
    stop = False

    async def deaf() -> None:
        while not stop:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end([task], patience=0.01)
    stop = True
    await task


async def test_nothing_to_end_and_what_had_ended_are_fine() -> None:
    async def fails() -> None:
        raise ValueError("of no use any more")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await tasks.end([])
    await tasks.end([task])
