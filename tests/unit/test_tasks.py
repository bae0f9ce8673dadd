"""Beginning tasks at once, and ending them for certain."""

import asyncio

import pytest

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


async def test_work_without_a_wait_is_done_at_once_and_costs_no_task() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    assert tasks.begun(work()) is None
    assert done == [1]


async def test_the_rest_of_work_that_waits_is_a_tasks_with_its_results_errors_and_cancellation() -> None:
    seen: list[object] = []
    gate = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        await gate.wait()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
        seen.append(await asyncio.sleep(0.001, "result"))
        raise KeyError("the end")

    task = tasks.begun(work())
    assert task is not None
    gate.set()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(KeyError, match="the end"):
        await task
    assert seen == ["cancelled", "result"]


async def test_what_work_raises_before_it_waits_is_raised_at_once() -> None:
    async def work() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        tasks.begun(work())
