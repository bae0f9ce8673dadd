"""A bounded queue in front of one worker thread: what piles up while the worker is busy is its next batch.

An idle worker starts at once for whoever comes alone. Where several come, it starts when the event loop has nothing
more to receive: so it does not interrupt the receiving for one or two, and under load the batches grow by themselves.
All state belongs to one event loop; only `run` leaves it.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from scorer_service.errors import DeadlineExpired, Overloaded

_COMPANY_SECONDS: Final = 0.005
"""So long after somebody came before another had his answer, more may be about to come."""

_QUIET_TURNS: Final = 7
"""Turns of the event loop in which gRPC hands over one more call and its handler puts it here, if there is one."""

Work = TypeVar("Work")
Result = TypeVar("Result")


class Observer(Protocol):
    """What a batcher tells about itself."""

    def batch(self, size: int) -> None:
        """`size` pieces of work were run together."""

    def skipped(self, cause: str) -> None:
        """A piece was not run: its caller went away (`cancelled`) or its deadline passed (`expired`)."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[Result]):
    """The result of one piece of work, and how long it waited for the worker in seconds."""

    result: Result
    queue_seconds: float


@dataclass(slots=True, eq=False)
class _Item(Generic[Work, Result]):
    """One piece of work in the queue. Compared by identity: equal work of two callers is two items."""

    work: Work
    deadline: float | None
    queued_at: float
    answer: "asyncio.Future[Answer[Result]]"


class Ticket(Generic[Work, Result]):
    """The claim to the answers of one `put`."""

    def __init__(self, items: Sequence[_Item[Work, Result]], withdraw: Callable[[_Item[Work, Result]], None]) -> None:
        self._items = items
        self._withdraw = withdraw

    async def answers(self) -> list[Answer[Result]]:
        """Wait for all answers, in the order of the work.

        Raises:
            DeadlineExpired: a piece was not started in time.
            Exception: whatever `run` raised.
        """
        if len(self._items) == 1:
            return [await self._items[0].answer]
        return await asyncio.gather(*(item.answer for item in self._items))

    def withdraw(self) -> None:
        """Give up what is not answered yet. Work that waits gives its room back; work that runs is finished unseen."""
        for item in self._items:
            self._withdraw(item)


class Batcher(Generic[Work, Result]):
    """Runs work in batches on one thread of its own."""

    def __init__(
        self,
        run: Callable[[Sequence[Work]], Sequence[Result]],
        *,
        max_queue: int,
        max_batch: int,
        wait_seconds: float,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        give_way: Callable[[], object] = bool,
    ) -> None:
        """Does not start anything yet.

        Args:
            run: computes a batch, one result per piece in order; called on the worker thread, one call at a time.
            max_queue: pieces that may wait.
            max_batch: pieces that may run together.
            wait_seconds: how long an idle worker waits for a fuller batch.
            observer: is told of batches and skipped work.
            clock: seconds, monotonic; deadlines are read on it.
            give_way: lets threads run that share the event loop's core, as gRPC's do, which read the sockets.
        """
        self._run = run
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._wait_seconds = wait_seconds
        self._observer = observer
        self._clock = clock
        self._give_way = give_way
        self._waiting: OrderedDict[_Item[Work, Result], None] = OrderedDict()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self._worker: asyncio.Task[None] | None = None
        self._puts = 0
        self._met_at = float("-inf")

    def depth(self) -> int:
        """Pieces that wait now. May be called from any thread."""
        return len(self._waiting)

    def put(self, works: Sequence[Work], *, deadline: float | None) -> Ticket[Work, Result]:
        """Queue work, all of it or none. Withdraw the ticket when done with it, whatever happened.

        Args:
            works: the pieces.
            deadline: on the batcher's clock; a piece that has not started by then is skipped.

        Raises:
            Overloaded: there is no room.
        """
        # No await between check and write: atomic on one event loop.
        if len(self._waiting) + len(works) > self._max_queue:
            raise Overloaded(f"the queue is full ({len(self._waiting)} of {self._max_queue} conversations wait)")
        loop = asyncio.get_running_loop()
        now = self._clock()
        self._puts += 1
        items: list[_Item[Work, Result]] = [_Item(work, deadline, now, loop.create_future()) for work in works]
        self._waiting.update(dict.fromkeys(items))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        else:
            self._met_at = now
        return Ticket(items, self._withdraw)

    async def close(self) -> None:
        """Stop. What still waits is cancelled; what runs is waited for."""
        for item in list(self._waiting):
            self._withdraw(item)
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        """Run batches until nothing waits."""
        try:
            if self._wait_seconds and len(self._waiting) < self._max_batch:
                await asyncio.sleep(self._wait_seconds)
            while self._waiting:
                if self._clock() - self._met_at < _COMPANY_SECONDS:
                    await self._gather()
                if batch := self._take():
                    await self._answer(batch)
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait until nothing more has come for some turns of the event loop, or a batch is full."""
        puts, quiet = self._puts, 0
        while quiet < _QUIET_TURNS and len(self._waiting) < self._max_batch:
            self._give_way()
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._puts == puts else 0
            puts = self._puts

    def _take(self) -> list[_Item[Work, Result]]:
        """The next batch, oldest first, without the pieces that nobody waits for."""
        batch: list[_Item[Work, Result]] = []
        now = self._clock()
        while self._waiting and len(batch) < self._max_batch:
            item, _ = self._waiting.popitem(last=False)
            if item.deadline is not None and item.deadline <= now:
                self._observer.skipped("expired")
                item.answer.set_exception(DeadlineExpired())
            else:
                batch.append(item)
        return batch

    async def _answer(self, batch: Sequence[_Item[Work, Result]]) -> None:
        self._observer.batch(len(batch))
        started = self._clock()
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._run, [item.work for item in batch])
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait for the batch; the worker goes on
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        for item, result in zip(batch, results, strict=True):
            if not item.answer.done():  # withdrawn while it ran
                item.answer.set_result(Answer(result, started - item.queued_at))

    def _withdraw(self, item: _Item[Work, Result]) -> None:
        if item in self._waiting:
            del self._waiting[item]
            self._observer.skipped("cancelled")
        item.answer.cancel()  # No effect on one that is answered.


async def answer_all(
    asked: Sequence[tuple[Batcher[Work, Result], Work]], *, deadline: float | None
) -> list[Answer[Result]]:
    """Queue each piece with its batcher and wait for all: their answers in order.

    Raises:
        Overloaded: a batcher has no room for all that is for it.
        DeadlineExpired: a piece was not started in time.
        Exception: whatever a run raised.
    """
    if len(asked) == 1:
        [(batcher, work)] = asked
        ticket = batcher.put([work], deadline=deadline)
        try:
            return await ticket.answers()
        finally:
            ticket.withdraw()
    places: dict[Batcher[Work, Result], list[int]] = {}
    for place, (batcher, _) in enumerate(asked):
        places.setdefault(batcher, []).append(place)
    answers: dict[int, Answer[Result]] = {}
    tickets: list[Ticket[Work, Result]] = []
    try:
        for batcher, mine in places.items():
            tickets.append(batcher.put([asked[place][1] for place in mine], deadline=deadline))
        for mine, ticket in zip(places.values(), tickets, strict=True):
            answers.update(zip(mine, await ticket.answers(), strict=True))
    finally:
        # Also when the caller went away, or a second batcher was full: nothing may be run for nobody.
        for ticket in tickets:
            ticket.withdraw()
    return [answers[place] for place in range(len(asked))]
