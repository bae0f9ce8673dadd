"""The line at the door: in order, receiving first, and nothing left behind by those who leave."""

import asyncio
from collections.abc import Awaitable

from dispatcher_service.line import _PATIENCE, _QUIET_TURNS, Line


class Bench:
    """A line whose clock stands still unless it is moved, so that only the first call begins at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.line = Line(lambda: self.now)
        self.begun: list[int] = []

    async def come(self, *numbers: int) -> list["asyncio.Task[None]"]:
        """Calls come together; all are in line, or begun, when this returns."""
        tasks = [asyncio.create_task(self._call(number)) for number in numbers]
        await asyncio.sleep(0)
        return tasks

    async def turns(self, count: int, *, receiving: bool = False) -> None:
        """Let the loop turn; `receiving` hands over a call in each turn, which is refused."""
        for _ in range(count):
            if receiving:
                self.line.received()
            await asyncio.sleep(0)

    async def _call(self, number: int) -> None:
        self.line.received()
        await self.line.turn()
        self.begun.append(number)


async def in_time(waiting: Awaitable[object]) -> None:
    async with asyncio.timeout(10):
        await waiting


async def test_who_comes_alone_begins_at_once() -> None:
    bench = Bench()
    for number in range(3):
        await bench.come(number)
        assert bench.begun == [*range(number + 1)]
        assert not len(bench.line)
        bench.now += 0.01


async def test_who_comes_together_begins_in_order_and_all_do() -> None:
    bench = Bench()
    tasks = await bench.come(*range(30))
    assert (bench.begun, len(bench.line)) == ([0], 29)
    await in_time(asyncio.gather(*tasks))
    assert (bench.begun, len(bench.line)) == ([*range(30)], 0)


async def test_nobody_begins_while_others_are_received() -> None:
    bench = Bench()
    await bench.come(0, 1, 2)
    await bench.turns(_PATIENCE // 2, receiving=True)
    assert bench.begun == [0]
    await bench.turns(_QUIET_TURNS + 2)
    assert bench.begun == [0, 1, 2]


async def test_a_flood_does_not_stop_all_work() -> None:
    bench = Bench()
    await bench.come(*range(5))
    await bench.turns(3 * _PATIENCE, receiving=True)
    assert bench.begun == [*range(5)]


async def test_who_is_cancelled_leaves_the_line_and_the_others_move_up() -> None:
    bench = Bench()
    tasks = await bench.come(*range(6))
    for number in (1, 3):
        tasks[number].cancel()
    await bench.turns(1)
    assert len(bench.line) == 3
    await in_time(asyncio.gather(*tasks, return_exceptions=True))
    assert bench.begun == [0, 2, 4, 5]


async def test_the_wait_is_told_by_how_fast_the_line_moves() -> None:
    bench = Bench()
    tasks = await bench.come(*range(400))
    assert bench.line.seconds() > 0
    while len(bench.line) > 100:
        bench.now += 0.01 / (_QUIET_TURNS + 1)  # two begin in so many turns
        await bench.turns(1)
    assert abs(bench.line.seconds() - 0.5) < 0.01
    await in_time(asyncio.gather(*tasks))
