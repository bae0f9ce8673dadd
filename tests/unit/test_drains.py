"""Requests that outlive their callers, and those that must not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from dispatcher_service.drains import Drains


@dataclass
class Request:
    """May go on for so long; notes what happened."""

    seconds: float
    told: list[str] = field(default_factory=list)

    def caller_gone(self) -> float:
        self.told.append("gone")
        return self.seconds

    async def work(self, step: float, steps: int = 3) -> str:
        try:
            for _ in range(steps):
                await asyncio.sleep(step)
            self.told.append("done")
            return "answer"
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise

    async def events(self, step: float, steps: int = 40) -> AsyncGenerator[int, None]:
        try:
            for number in range(steps):
                await asyncio.sleep(step)
                yield number
            self.told.append("done")
        except (asyncio.CancelledError, GeneratorExit):
            self.told.append("cancelled")
            raise


@pytest.fixture
def results() -> list[str]:
    return []


@pytest.fixture
def drains(results: list[str]) -> Drains:
    return Drains(observe=results.append)


async def leave(drains: Drains, request: Request, step: float = 0.01) -> None:
    """A caller of a unary call that goes away after a moment."""
    call = asyncio.create_task(drains.complete(request.work(step), request))
    await asyncio.sleep(step / 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_who_stays_gets_the_answer_or_the_error(drains: Drains, results: list[str]) -> None:
    request = Request(0)
    assert await drains.complete(request.work(0), request) == "answer"
    assert [event async for event in drains.stream(request.events(0, 3), request)] == [0, 1, 2]

    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("broke")

    events = drains.stream(broken(), request)
    assert await anext(events) == 1
    with pytest.raises(ValueError, match="broke"):
        await anext(events)
    assert (results, request.told) == ([], ["done", "done"])


async def test_the_work_of_who_went_away_goes_on_where_the_policy_says_so(drains: Drains, results: list[str]) -> None:
    request = Request(5)
    await leave(drains, request)
    await drains.close(5)
    assert (request.told, results) == (["gone", "done"], ["finished"])


async def test_it_is_cancelled_after_its_time_and_at_once_without_any(drains: Drains, results: list[str]) -> None:
    slow, hasty = Request(0.02), Request(0)
    await leave(drains, slow, step=0.5)
    await leave(drains, hasty, step=0.5)
    await drains.close(5)
    assert (slow.told, hasty.told) == (["gone", "cancelled"], ["gone", "cancelled"])
    assert results == ["cancelled"], "what was never to go on is no drain"


@pytest.mark.parametrize(("seconds", "end"), [(5.0, "done"), (0.0, "cancelled")])
async def test_a_stream_is_read_to_its_end_without_its_caller_or_cancelled(
    drains: Drains, seconds: float, end: str
) -> None:
    request = Request(seconds)
    events = drains.stream(request.events(0.001), request)
    assert await anext(events) == 0
    # By now more events wait than the queue holds, and the work waits for room.
    await asyncio.sleep(0.1)
    await events.aclose()
    await drains.close(5)
    assert request.told == ["gone", end]


async def test_a_stream_whose_caller_is_cancelled_while_it_waits_goes_on_too(drains: Drains) -> None:
    request = Request(5)

    async def read() -> None:
        async with contextlib.aclosing(drains.stream(request.events(0.02, 3), request)) as events:
            async for _ in events:
                pass

    call = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await drains.close(5)
    assert request.told == ["gone", "done"]


async def test_closing_waits_so_long_and_no_longer(drains: Drains, results: list[str]) -> None:
    request = Request(60)
    await leave(drains, request, step=10)
    await asyncio.wait_for(drains.close(0.01), timeout=5)
    assert (request.told, results) == (["gone", "cancelled"], ["cancelled"])


async def test_an_error_after_the_caller_went_away_is_nobodys(drains: Drains, results: list[str]) -> None:
    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("broke")

    request = Request(5)
    call = asyncio.create_task(drains.complete(fails(), request))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await drains.close(5)
    assert results == ["failed"]
