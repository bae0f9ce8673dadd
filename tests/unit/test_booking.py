"""Booking in a SQLite file whose lock another process holds: nothing is put aside for nobody, and no end is lost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher_service.booking import Book
from dispatcher_service.budget import Limit, Period
from dispatcher_service.ledger.sqlite import SqliteLedger
from dispatcher_service.pricing import Usage, UsageSource
from tests.fakes import FakeObserver
from tests.unit.test_dispatch import policy

USAGE = Usage(input_tokens=3, output_tokens=4, source=UsageSource.REPORTED)
POLICY = policy(limits=(Limit(Period.DAY, 10**9),))


class Bench:
    """A book on a file, and another connection that can lock it."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path, clock=lambda: 1e9)
        self.book = Book(self.ledger, observe=FakeObserver(), clock=lambda: 0.0, wall_clock=lambda: 1e9, drain=0)
        self.other = sqlite3.connect(path, isolation_level=None)

    def lock(self) -> None:
        self.other.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        self.other.execute("COMMIT")

    async def account(self) -> tuple[int, int]:
        day = (await self.ledger.balances(POLICY.tenant_id))[1]
        return day.spent, day.reserved


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    await bench.book.close(5)
    await bench.ledger.close()
    bench.other.close()


async def test_a_reservation_is_started_in_the_step_that_makes_it(bench: Bench) -> None:
    booking = await bench.book.reserve(POLICY, "m", 100, timeout=1)
    assert await bench.book.start(booking)
    (state,) = bench.other.execute("SELECT state FROM reservations").fetchone()
    assert (state, await bench.account()) == (1, (0, 100))
    # A process that is killed now has perhaps called: what it put aside is charged when it expires.
    bench.other.execute("UPDATE reservations SET due_ms = 0")
    assert await bench.ledger.expire() == 1
    assert await bench.account() == (100, 0)


async def test_an_end_that_nothing_stands_in_the_way_of_is_written_without_a_task(bench: Bench) -> None:
    booking = await bench.book.reserve(POLICY, "m", 100, timeout=1)
    before = asyncio.all_tasks()
    settling = bench.book.settle(booking, 40, USAGE)
    with pytest.raises(StopIteration):
        settling.send(None)
    assert asyncio.all_tasks() == before
    assert await bench.account() == (40, 0)


async def test_a_caller_who_goes_away_before_its_turn_leaves_nothing_reserved(bench: Bench) -> None:
    bench.lock()
    reserving = asyncio.ensure_future(bench.book.reserve(POLICY, "m", 100, timeout=1))
    await asyncio.sleep(0.02)
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    bench.unlock()
    assert await bench.account() == (0, 0)


@pytest.mark.parametrize("goes_away", [False, True])
async def test_an_end_waits_for_its_turn_whoever_goes_away(bench: Bench, goes_away: bool) -> None:
    booking = await bench.book.reserve(POLICY, "m", 100, timeout=1)
    bench.lock()
    settling = asyncio.ensure_future(bench.book.settle(booking, 40, USAGE))
    await asyncio.sleep(0.02)
    if goes_away:
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
    bench.unlock()
    await asyncio.wait([settling])
    await bench.book.close(5)
    assert await bench.account() == (40, 0)
