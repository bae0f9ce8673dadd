"""The waits of a stream that share one timer: each ends in time, and what is no wait is not cut short."""

import asyncio
from typing import Any

import pytest

from dispatcher_service.catalogue import Deployment
from dispatcher_service.patience import Patience


def deployment(**changes: Any) -> Deployment:
    return Deployment(name="d", model="m", base_url="http://unused", upstream_model="m", **changes)


async def test_a_read_that_takes_too_long_ends_and_says_which() -> None:
    patience = Patience(deployment(idle_timeout=0.05, first_token_timeout=5.0), 10.0)
    async with patience:
        for _ in range(3):
            with patience.read(begun=True):
                await asyncio.sleep(0.001)
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), patience.read(begun=True):
            await asyncio.sleep(60)
        assert asyncio.get_running_loop().time() - started >= 0.049
    assert (patience.what, patience.out_of_time) == ("no further token in time", False)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_time_between_reads_is_nobodys() -> None:
    patience = Patience(deployment(idle_timeout=0.02), 10.0)
    async with patience:
        for _ in range(3):
            with patience.read(begun=True):
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)


async def test_a_deadline_that_comes_closer_holds() -> None:
    patience = Patience(deployment(first_token_timeout=60.0, idle_timeout=0.02), 60.0)
    async with patience:
        with patience.read(begun=False):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), patience.read(begun=True):
            await asyncio.sleep(60)


async def test_whoever_cancels_the_task_itself_is_heard() -> None:
    async def read() -> None:
        patience = Patience(deployment(idle_timeout=30.0), 60.0)
        async with patience:
            with patience.read(begun=True):
                await asyncio.sleep(60)

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_timer_is_left_behind() -> None:
    loop = asyncio.get_running_loop()
    rung: list[float] = []
    patience = Patience(deployment(idle_timeout=0.02), 10.0)
    patience._reads._ring = lambda: rung.append(loop.time())  # type: ignore[method-assign]
    async with patience:
        with patience.read(begun=True):
            await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not rung
