"""The money side of an attempt: a reservation before anything can be spent, and exactly one end of it.

    reserve ──> start ──> (the upstream is called) ──> settle: what was used, or the estimate, never zero on a guess
       │          └─────> release: certainly nothing was used
       └─> BudgetExhausted, LedgerUnavailable

Ends survive cancellation: what of them has to wait runs in a task of its own, which a request waits for only for a
short while, and which tries again until the ledger answers. What a killed process leaves behind is the ledger's to
expire. An immediate ledger reserves and starts in one step, since the call follows at once; and mostly it has written
an end before there is anything to wait for.
"""

import asyncio
import itertools
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dispatcher_service import budget, tasks
from dispatcher_service.budget import Limit
from dispatcher_service.catalogue import TenantPolicy
from dispatcher_service.errors import BudgetExhausted, LedgerUnavailable
from dispatcher_service.ledger.contract import (
    MAX_LIFETIME,
    Attempt,
    Balance,
    Charge,
    ChargeSource,
    Ledger,
    Refusal,
    Reservation,
)
from dispatcher_service.ports import BudgetObserver
from dispatcher_service.pricing import NanoUsd, Usage, UsageSource

logger = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""How long a request waits for its own end to be written. Then its answer goes out, and writing goes on behind it."""

MOST_PENDING = 10_000
"""Ends that may wait for a ledger that is away: more would be held in memory alone, and lost with the process."""

_MARGIN_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_MOST_WITHOUT_LIMIT: NanoUsd = 2**43
"""Some $8,800: as much of an attempt without limits is shown as reserved, so that sums stay in 64 bits."""
_LARGEST_CHARGE: NanoUsd = 2**53 - 1
_SOURCES = {UsageSource.REPORTED: ChargeSource.REPORTED, UsageSource.ESTIMATED: ChargeSource.ESTIMATED}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Booking:
    """A reservation with the limits that it was held to.

    `started` if the ledger need not be told so, since it has been; `unbooked` if it does not know of it at all.
    """

    reservation: Reservation
    limits: tuple[Limit, ...]
    started: bool = False
    unbooked: bool = False


class Book:
    """Reserves and settles. One per dispatcher."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        observe: BudgetObserver,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        drain: float,
    ) -> None:
        """`drain` is how long, in seconds, calls in flight may finish after the process was told to stop."""
        self._ledger = ledger
        self._observe = observe
        self._clock = clock
        self._wall_clock = wall_clock
        self._drain = drain
        self._ends: set[asyncio.Task[None]] = set()
        # Unique among all processes, as ids of reservations must be; drawing each of them would be a system call.
        prefix = uuid.uuid4().hex
        self._ids = (f"{prefix}-{number:x}" for number in itertools.count())

    async def reserve(self, policy: TenantPolicy, model: str, worst_case: NanoUsd, *, timeout: float) -> Booking:
        """Put the worst case aside for a call that may take `timeout` seconds.

        Raises:
            BudgetExhausted: a limit has no room for it.
            LedgerUnavailable: whether there is room is not known.
        """
        if not policy.limits:
            worst_case = min(worst_case, _MOST_WITHOUT_LIMIT)
        attempt = Attempt(
            id=next(self._ids),
            tenant_id=policy.tenant_id,
            model=model,
            worst_case=worst_case,
            # Of a call that a killed process leaves behind nothing is known but that it cost no more than this.
            estimate=worst_case,
            limits=budget.with_overdraft(policy.limits, policy.on_exhausted, policy.overdraft),
            lifetime=min(timeout + self._drain + _MARGIN_SECONDS, MAX_LIFETIME),
            started=self._ledger.immediate,
        )
        reserving = self._timed("reserve", self._ledger.reserve(attempt))
        answer = await (reserving if self._ledger.immediate else self._or_given_back(reserving, policy.limits))
        if isinstance(answer, Refusal):
            self._observe.exhausted(policy.tenant_id, answer.balance.window)
            raise _exhausted(answer)
        self._observe.balances(policy.tenant_id, policy.limits, answer.balances, 0)
        return Booking(answer, policy.limits, started=attempt.started)

    def unbooked(self, policy: TenantPolicy, model: str, worst_case: NanoUsd) -> Booking:
        """For a call that is made although the ledger is away: it is booked when it ends, or later.

        Raises:
            LedgerUnavailable: as many as we may remember wait already.
        """
        if len(self._ends) >= MOST_PENDING:
            raise LedgerUnavailable(f"{MOST_PENDING} charges wait for it to be back")
        now = self._wall_clock()
        hour, day, month = (Balance(window, 0, 0) for window in budget.windows_at(now))
        reservation = Reservation(
            id=next(self._ids),
            tenant_id=policy.tenant_id,
            model=model,
            worst_case=worst_case,
            estimate=worst_case,
            expires_at=now,
            balances=(hour, day, month),
        )
        return Booking(reservation, policy.limits, unbooked=True)

    async def start(self, booking: Booking) -> bool:
        """The upstream is about to be called. False if the reservation has expired: do not call.

        Raises:
            LedgerUnavailable: nobody can say.
        """
        if booking.started or booking.unbooked:
            return True
        return await self._timed("mark_started", self._ledger.mark_started(booking.reservation))

    async def settle(self, booking: Booking, cost: NanoUsd, usage: Usage) -> None:
        """It cost this. Returns when that is written, or after `WAIT_SECONDS`."""
        charge = Charge(cost=min(cost, _LARGEST_CHARGE), source=_SOURCES[usage.source], tokens=usage.by_class())
        await self._end(self._settle(booking, charge))

    async def release(self, booking: Booking) -> None:
        """Certainly nothing was used."""
        if not booking.unbooked:
            await self._end(self._release(booking))

    async def close(self, timeout: float) -> None:
        """Wait for what is still to be written, `timeout` seconds at most. The rest is the ledger's to expire."""
        if self._ends:
            await asyncio.wait(self._ends, timeout=timeout)
        left = list(self._ends)
        if left:
            logger.error("the ledger did not take %d charges: it will expire them at their worst case", len(left))
        await tasks.end(left)

    async def _settle(self, booking: Booking, charge: Charge) -> None:
        settled = await self._persist("settle", lambda: self._ledger.settle(booking.reservation, charge))
        tenant_id = booking.reservation.tenant_id
        self._observe.balances(tenant_id, booking.limits, settled.balances, settled.change)
        if settled.overrun is not None:
            self._observe.overrun(tenant_id, *settled.overrun)

    async def _release(self, booking: Booking) -> None:
        await self._persist("release", lambda: self._ledger.release(booking.reservation))

    async def _or_given_back(
        self, reserving: Coroutine[Any, Any, Reservation | Refusal], limits: tuple[Limit, ...]
    ) -> Reservation | Refusal:
        """What the ledger answers. If nobody waits for that any more, it gets back what it has put aside."""
        task = asyncio.create_task(reserving)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._give_back(task, limits))
            raise

    async def _give_back(self, task: asyncio.Future[Reservation | Refusal], limits: tuple[Limit, ...]) -> None:
        try:
            answer = await task
        except LedgerUnavailable:
            return  # It was not started: if the ledger has it, it will expire for nothing.
        if isinstance(answer, Reservation):
            await self._release(Booking(answer, limits))

    async def _end(self, work: Awaitable[None]) -> None:
        task = self._spawn(work)
        if task is not None:
            await asyncio.wait([task], timeout=WAIT_SECONDS)

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Task[None] | None":
        """Do it, whatever becomes of the caller; the task in which it goes on, `None` if it is done."""

        async def run() -> None:
            try:
                await work
            except Exception:
                logger.exception("an end of an attempt could not be written to the ledger: it will expire there")

        task = tasks.begun(run()) if self._ledger.immediate else asyncio.create_task(run())
        if task is not None:
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)
        return task

    async def _persist(self, step: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Until it is done. Steps are idempotent, so that one whose answer was lost may be made again."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._timed(step, call())
            except LedgerUnavailable as error:
                if pause == _FIRST_PAUSE:
                    logger.warning("a charge could not be written: trying again until it is: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _timed(self, step: str, call: Awaitable[_T]) -> _T:
        started, failed = self._clock(), True
        try:
            result = await call
            failed = False
            return result
        finally:
            self._observe.ledger_called(step, self._clock() - started, failed=failed)


def _exhausted(refusal: Refusal) -> BudgetExhausted:
    return BudgetExhausted(
        period=refusal.limit.period.value,
        limit=budget.format_usd(refusal.limit.amount),
        left=budget.format_usd(refusal.left),
        needed=budget.format_usd(refusal.needed),
        window_end=refusal.balance.window.end,
        retry_after=refusal.retry_after,
    )
