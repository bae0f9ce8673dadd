"""The queue and its worker, on a real event loop and a real thread."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from scorer_service.batching import Batcher
from scorer_service.errors import DeadlineExpired, Overloaded


class Recorder:
    """Implements `batching.Observer`."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.skips: list[str] = []

    def batch(self, size: int) -> None:
        self.batches.append(size)

    def skipped(self, cause: str) -> None:
        self.skips.append(cause)


class Worker:
    """Work for the batcher's thread that a test can hold: doubles numbers once `go` is set."""

    def __init__(self, *, held: bool) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self.ran: list[list[int]] = []
        if not held:
            self.go.set()

    def __call__(self, works: Sequence[int]) -> list[int]:
        self.started.set()
        assert self.go.wait(10)
        self.ran.append(list(works))
        if -1 in works:
            raise ValueError("minus one")
        return [2 * work for work in works]

    async def wait_until_started(self) -> None:
        await asyncio.to_thread(self.started.wait, 10)


@asynccontextmanager
async def _batcher(
    worker: Callable[[Sequence[int]], Sequence[int]],
    *,
    max_queue: int = 8,
    max_batch: int = 4,
    wait_seconds: float = 0.0,
    clock: Callable[[], float] = lambda: 100.0,
) -> AsyncIterator[tuple[Batcher[int, int], Recorder]]:
    recorder = Recorder()
    batcher = Batcher(
        worker, max_queue=max_queue, max_batch=max_batch, wait_seconds=wait_seconds, observer=recorder, clock=clock
    )
    try:
        yield batcher, recorder
    finally:
        if isinstance(worker, Worker):
            worker.go.set()
        await batcher.close()


async def _results(batcher: Batcher[int, int], *works: int, deadline: float | None = None) -> list[int]:
    ticket = batcher.put(works, deadline=deadline)
    try:
        return [answer.result for answer in await ticket.answers()]
    finally:
        ticket.withdraw()


async def test_answers_come_in_the_order_of_the_work() -> None:
    async with _batcher(Worker(held=False)) as (batcher, recorder):
        assert await _results(batcher, 1, 2, 3, 4, 5, 6) == [2, 4, 6, 8, 10, 12]
        assert recorder.batches == [4, 2]


async def test_what_piles_up_while_the_worker_is_busy_is_the_next_batch() -> None:
    worker = Worker(held=True)
    async with _batcher(worker) as (batcher, _):
        first = asyncio.create_task(_results(batcher, 1))
        await worker.wait_until_started()
        others = [asyncio.create_task(_results(batcher, n)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert batcher.depth() == 3
        worker.go.set()
        assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
        assert worker.ran == [[1], [2, 3, 4]]


async def test_an_idle_worker_waits_for_company_if_it_is_told_to() -> None:
    worker = Worker(held=False)
    async with _batcher(worker, wait_seconds=0.05) as (batcher, _):
        first = asyncio.create_task(_results(batcher, 1))
        await asyncio.sleep(0)
        assert await _results(batcher, 2) == [4]
        assert await first == [2]
        assert worker.ran == [[1, 2]]


async def test_who_comes_alone_is_started_in_the_next_turn_and_those_who_come_together_share_a_run() -> None:
    now = 100.0
    worker = Worker(held=False)
    async with _batcher(worker, clock=lambda: now) as (batcher, _):
        alone = asyncio.create_task(_results(batcher, 1))
        for _ in range(3):
            await asyncio.sleep(0)
        assert batcher.depth() == 0
        await alone
        now += 10
        # As gRPC hands over calls: one in several turns of the event loop.
        together = []
        for number in (2, 3, 4):
            together.append(asyncio.create_task(_results(batcher, number)))
            if number == 2:
                together.append(asyncio.create_task(_results(batcher, 20)))
            for _ in range(5):
                await asyncio.sleep(0)
        assert await asyncio.gather(*together) == [[4], [40], [6], [8]]
        assert worker.ran == [[1], [2, 20, 3, 4]]


async def test_a_full_queue_refuses_all_of_the_work_or_takes_all_of_it() -> None:
    worker = Worker(held=True)
    async with _batcher(worker, max_queue=3) as (batcher, _):
        running = asyncio.create_task(_results(batcher, 1))
        await worker.wait_until_started()
        waiting = asyncio.create_task(_results(batcher, 2, 3))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 of 3"):
            await _results(batcher, 4, 5)
        assert batcher.depth() == 2
        last = asyncio.create_task(_results(batcher, 6))
        worker.go.set()
        assert [await running, await waiting, await last] == [[2], [4, 6], [12]]


async def test_a_caller_that_goes_away_gives_its_room_back_and_is_not_run() -> None:
    worker = Worker(held=True)
    async with _batcher(worker, max_queue=2) as (batcher, recorder):
        running = asyncio.create_task(_results(batcher, 1))
        await worker.wait_until_started()
        gone = asyncio.create_task(_results(batcher, 2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (batcher.depth(), recorder.skips) == (0, ["cancelled", "cancelled"])
        stays = asyncio.create_task(_results(batcher, 4))
        worker.go.set()
        assert [await running, await stays] == [[2], [8]]
        assert worker.ran == [[1], [4]]


async def test_a_caller_that_goes_away_while_its_batch_runs_does_not_break_the_batch() -> None:
    worker = Worker(held=True)
    async with _batcher(worker) as (batcher, _):
        gone = asyncio.create_task(_results(batcher, 1))
        stays = asyncio.create_task(_results(batcher, 2))
        await worker.wait_until_started()
        gone.cancel()
        await asyncio.sleep(0)
        worker.go.set()
        assert await stays == [4]
        assert gone.cancelled()
        assert worker.ran == [[1, 2]]


async def test_work_whose_deadline_passed_in_the_queue_is_skipped() -> None:
    worker = Worker(held=True)
    now = [100.0]
    async with _batcher(worker, clock=lambda: now[0]) as (batcher, recorder):
        running = asyncio.create_task(_results(batcher, 1, deadline=101.0))
        await worker.wait_until_started()
        late = asyncio.create_task(_results(batcher, 2, deadline=102.0))
        in_time = asyncio.create_task(_results(batcher, 3, deadline=102.1))
        await asyncio.sleep(0)
        now[0] = 102.0
        worker.go.set()
        assert [await running, await in_time] == [[2], [6]]
        with pytest.raises(DeadlineExpired):
            await late
        assert (worker.ran, recorder.skips) == ([[1], [3]], ["expired"])


async def test_the_wait_in_the_queue_is_measured_to_the_start_of_the_batch() -> None:
    worker = Worker(held=True)
    now = [100.0]
    async with _batcher(worker, clock=lambda: now[0]) as (batcher, _):
        first = batcher.put([1], deadline=None)
        await worker.wait_until_started()
        second = batcher.put([2], deadline=None)
        now[0] = 100.5
        worker.go.set()
        [one] = await first.answers()
        [two] = await second.answers()
        assert (one.queue_seconds, two.queue_seconds) == (0.0, 0.5)


async def test_an_error_reaches_its_batch_and_the_worker_goes_on() -> None:
    async with _batcher(Worker(held=False)) as (batcher, _):
        with pytest.raises(ValueError, match="minus one"):
            await _results(batcher, 1, -1)
        assert await _results(batcher, 3) == [6]


async def test_closing_cancels_what_waits_and_finishes_what_runs() -> None:
    worker = Worker(held=True)
    async with _batcher(worker) as (batcher, _):
        running = batcher.put([1], deadline=None)
        await worker.wait_until_started()
        waiting = batcher.put([2], deadline=None)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        worker.go.set()
        await closing
        with pytest.raises(asyncio.CancelledError):
            await waiting.answers()
        running.withdraw()
        assert worker.ran == [[1]]
