"""The ledger in one process's memory: for tests, simulations and dispatchers that need not remember."""

import enum
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from dispatcher_service.budget import BudgetWindow, Limit, Windows, windows_at
from dispatcher_service.ledger.contract import (
    RETENTION,
    SETTLED_RETENTION,
    TOKEN_CLASSES,
    WINDOWS_KEPT,
    Attempt,
    Balance,
    Balances,
    Charge,
    ChargeSource,
    Document,
    DocumentWrite,
    Overrun,
    OverrunCause,
    Refusal,
    Reservation,
    Settled,
    UsageRow,
)
from dispatcher_service.ledger.memory_documents import MemoryDocuments
from dispatcher_service.pricing import NanoUsd


class _State(enum.Enum):
    OPEN = "open"
    STARTED = "started"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(slots=True)
class _Account:
    spent: NanoUsd = 0
    reserved: NanoUsd = 0
    limit: NanoUsd | None = None


@dataclass(slots=True)
class _Entry:
    reservation: Reservation
    state: _State
    due_at: float
    charged: NanoUsd = 0


@dataclass(slots=True)
class _Row:
    calls: int = 0
    cost: NanoUsd = 0
    tokens: list[int] = field(default_factory=lambda: [0] * len(TOKEN_CLASSES))


class MemoryLedger:
    """See `contract.Ledger`. No method awaits anything, so that each is atomic on its event loop."""

    immediate = True

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._clock = clock
        self._accounts: dict[str, dict[BudgetWindow, _Account]] = defaultdict(dict)
        self._entries: dict[str, _Entry] = {}
        self._rows: dict[tuple[str, date, str, ChargeSource], _Row] = defaultdict(_Row)
        self._overruns: dict[tuple[str, OverrunCause], Overrun] = {}
        self._documents = MemoryDocuments()
        self._next_due = float("inf")

    async def reserve(self, attempt: Attempt) -> Reservation | Refusal:
        now = self._clock()
        self._expire(now)
        known = self._entries.get(attempt.id)
        if known is not None:
            return known.reservation
        windows = windows_at(now)
        accounts = self._accounts_of(attempt.tenant_id, windows, now)
        refusal = self._check(attempt, windows, accounts, now)
        if refusal is not None:
            return refusal
        for account in accounts:
            account.reserved += attempt.worst_case
        reservation = Reservation(
            id=attempt.id,
            tenant_id=attempt.tenant_id,
            model=attempt.model,
            worst_case=attempt.worst_case,
            estimate=attempt.estimate,
            expires_at=now + attempt.lifetime,
            balances=_balances(windows, accounts),
        )
        state = _State.STARTED if attempt.started else _State.OPEN
        self._entries[attempt.id] = _Entry(reservation, state, reservation.expires_at)
        self._next_due = min(self._next_due, reservation.expires_at)
        return reservation

    async def mark_started(self, reservation: Reservation) -> bool:
        now = self._clock()
        self._expire(now)
        entry = self._entries.get(reservation.id)
        if entry is None or entry.state not in (_State.OPEN, _State.STARTED):
            return False
        entry.state = _State.STARTED
        return True

    async def settle(self, reservation: Reservation, charge: Charge) -> Settled:
        now = self._clock()
        entry = self._entries.get(reservation.id)
        if entry is None:
            # Forgotten or lost; the money is gone all the same.
            entry = self._entries[reservation.id] = _Entry(reservation, _State.RELEASED, now)
        accounts = self._accounts_of(reservation.tenant_id, reservation.windows, now)
        if entry.state is _State.SETTLED:
            return Settled(
                charged=entry.charged,
                change=0,
                repeated=True,
                late=False,
                overrun=None,
                balances=_balances(reservation.windows, accounts),
            )
        late = entry.state not in (_State.OPEN, _State.STARTED)
        freed = 0 if late else reservation.worst_case
        change = charge.cost - entry.charged
        for account in accounts:
            account.reserved -= freed
            account.spent += change
        if entry.state is _State.EXPIRED:
            self._book(reservation, ChargeSource.EXPIRED, -1, -entry.charged, (0,) * len(TOKEN_CLASSES))
        self._book(reservation, charge.source, 1, charge.cost, charge.counts())
        cause = OverrunCause.LATE_SETTLE if late else OverrunCause.ABOVE_RESERVATION
        overrun = self._count_overrun(reservation.tenant_id, accounts, cause, change - freed)
        self._close(entry, _State.SETTLED, charge.cost, now + SETTLED_RETENTION)
        return Settled(
            charged=charge.cost,
            change=change,
            repeated=False,
            late=late,
            overrun=overrun,
            balances=_balances(reservation.windows, accounts),
        )

    async def release(self, reservation: Reservation) -> bool:
        now = self._clock()
        entry = self._entries.get(reservation.id)
        if entry is None or entry.state not in (_State.OPEN, _State.STARTED):
            return False
        for account in self._accounts_of(reservation.tenant_id, reservation.windows, now):
            account.reserved -= reservation.worst_case
        self._close(entry, _State.RELEASED, 0, now + RETENTION)
        return True

    async def expire(self) -> int:
        return self._expire(self._clock())

    async def balances(self, tenant_id: str) -> Balances:
        now = self._clock()
        self._expire(now)
        windows = windows_at(now)
        return _balances(windows, self._accounts_of(tenant_id, windows, now))

    async def overruns(self, tenant_id: str) -> Mapping[OverrunCause, Overrun]:
        return {cause: self._overruns.get((tenant_id, cause), Overrun(0, 0)) for cause in OverrunCause}

    async def usage(self, first: date, last: date) -> list[UsageRow]:
        rows = [
            UsageRow(
                tenant_id=tenant_id,
                day=day,
                model=model,
                source=source,
                calls=row.calls,
                cost=row.cost,
                tokens=dict(zip(TOKEN_CLASSES, row.tokens, strict=True)),
            )
            for (tenant_id, day, model, source), row in self._rows.items()
            if first <= day <= last and (row.calls or row.cost)
        ]
        return sorted(rows, key=lambda row: (row.tenant_id, row.day, row.model, row.source.value))

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        return self._documents.get(tenant_id, name, now=self._clock())

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        now = self._clock()
        known = self._documents.get(tenant_id, name, now=now)
        if (known.version if known else 0) != expected:
            return False
        ends_at = None if lifetime is None else now + lifetime
        self._documents.put(tenant_id, name, Document(expected + 1, body), ends_at=ends_at, now=now)
        return True

    async def put_documents(self, writes: Sequence[DocumentWrite]) -> list[bool]:
        return [
            await self.put_document(w.tenant_id, w.name, w.body, expected=w.expected, lifetime=w.lifetime)
            for w in writes
        ]

    async def documents(self, tenant_id: str, prefix: str) -> AsyncIterator[tuple[str, Document]]:
        for name in self._documents.names(tenant_id, prefix):
            document = self._documents.get(tenant_id, name, now=self._clock())
            if document is not None:
                yield name, document

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        return self._documents.delete(tenant_id, name, now=self._clock())

    async def delete_documents(self, tenant_id: str, prefix: str) -> int:
        now = self._clock()
        return sum(
            self._documents.delete(tenant_id, name, now=now) for name in self._documents.names(tenant_id, prefix)
        )

    async def scrub(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _accounts_of(self, tenant_id: str, windows: Windows, now: float) -> list[_Account]:
        accounts = self._accounts[tenant_id]
        if windows[0] not in accounts:
            for window in [old for old in accounts if old.start < now - WINDOWS_KEPT[old.period]]:
                del accounts[window]
        return [accounts.setdefault(window, _Account()) for window in windows]

    def _check(self, attempt: Attempt, windows: Windows, accounts: list[_Account], now: float) -> Refusal | None:
        """The refusal by the limit with the least left, `None` if all have room. Notes lowered limits."""
        limits = {limit.period: limit for limit in attempt.limits}
        tightest: tuple[NanoUsd, Limit, Balance] | None = None
        for window, account in zip(windows, accounts, strict=True):
            limit = limits.get(window.period)
            committed = account.spent + account.reserved
            if limit is None:
                account.limit = None
                continue
            if committed > limit.amount and (account.limit is None or account.limit > limit.amount):
                self._add_overrun(attempt.tenant_id, OverrunCause.LOWERED_LIMIT, committed - limit.amount)
            account.limit = limit.amount
            left = limit.amount - committed
            if attempt.worst_case > left and (tightest is None or left < tightest[0]):
                tightest = left, limit, Balance(window, account.spent, account.reserved)
        if tightest is None:
            return None
        return Refusal(limit=tightest[1], balance=tightest[2], needed=attempt.worst_case, now=now)

    def _count_overrun(
        self, tenant_id: str, accounts: list[_Account], cause: OverrunCause, growth: NanoUsd
    ) -> tuple[OverrunCause, NanoUsd] | None:
        """Counts that committed grew by `growth` and so passed limits; the largest excess, `None` if it passed none."""
        excess = max(
            min(growth, account.spent + account.reserved - account.limit) if account.limit is not None else 0
            for account in accounts
        )
        if excess <= 0:
            return None
        self._add_overrun(tenant_id, cause, excess)
        return cause, excess

    def _add_overrun(self, tenant_id: str, cause: OverrunCause, amount: NanoUsd) -> None:
        known = self._overruns.get((tenant_id, cause), Overrun(0, 0))
        self._overruns[tenant_id, cause] = Overrun(known.count + 1, known.amount + amount)

    def _book(
        self, reservation: Reservation, source: ChargeSource, calls: int, cost: NanoUsd, tokens: tuple[int, ...]
    ) -> None:
        day = datetime.fromtimestamp(reservation.windows[1].start, tz=UTC).date()
        row = self._rows[reservation.tenant_id, day, reservation.model, source]
        row.calls += calls
        row.cost += cost
        row.tokens = [known + more for known, more in zip(row.tokens, tokens, strict=True)]

    def _close(self, entry: _Entry, state: _State, charged: NanoUsd, forget_at: float) -> None:
        entry.state, entry.charged, entry.due_at = state, charged, forget_at
        self._next_due = min(self._next_due, forget_at)

    def _expire(self, now: float) -> int:
        if now < self._next_due:
            return 0
        expired = 0
        for entry in [entry for entry in self._entries.values() if entry.due_at <= now]:
            reservation = entry.reservation
            if entry.state not in (_State.OPEN, _State.STARTED):
                del self._entries[reservation.id]
                continue
            expired += 1
            started = entry.state is _State.STARTED
            charged = reservation.estimate if started else 0
            for account in self._accounts_of(reservation.tenant_id, reservation.windows, now):
                account.reserved -= reservation.worst_case
                account.spent += charged
            if started:
                self._book(reservation, ChargeSource.EXPIRED, 1, charged, (0,) * len(TOKEN_CLASSES))
            self._close(entry, _State.EXPIRED if started else _State.RELEASED, charged, now + RETENTION)
        self._next_due = min((entry.due_at for entry in self._entries.values()), default=float("inf"))
        return expired


def _balances(windows: Windows, accounts: list[_Account]) -> Balances:
    hour, day, month = (
        Balance(window, account.spent, account.reserved) for window, account in zip(windows, accounts, strict=True)
    )
    return hour, day, month
