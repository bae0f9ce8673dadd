"""The ledger in a SQLite file: the default of a single host, for one dispatcher process or several.

How safe the file is, and who waits for whom, says sqlite_file.py.
"""

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from dispatcher_service.budget import PERIODS, Limit, Windows, windows_at
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
from dispatcher_service.ledger.sqlite_documents import SqliteDocuments
from dispatcher_service.ledger.sqlite_file import SqliteFile
from dispatcher_service.ledger.sqlite_schema import MIGRATIONS, Migration
from dispatcher_service.pricing import NanoUsd

_OPEN, _STARTED, _SETTLED, _RELEASED, _EXPIRED = range(5)
_SWEEP = 256
"""Reservations that one step expires or forgets at most, so that no step is long."""
_SWEEP_PAUSE_MS = 100
"""So much later than it is due a reservation may expire while calls come in, unless its money is wanted before."""
_NO_TOKENS = (0,) * len(TOKEN_CLASSES)

_ONE_ACCOUNT = "SELECT period, spent, reserved, cap FROM windows WHERE tenant = ? AND period = {} AND start = ?"
_ACCOUNTS = " UNION ALL ".join(_ONE_ACCOUNT.format(period) for period in range(3))
# Columns are named throughout: a newer version's file may have more of them (see sqlite_schema.py).
_RESERVATION = (
    "INSERT INTO reservations (id, tenant, model, state, worst_case, estimate, charged, hour, day, month, expires_ms, "
    "due_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ADD_TO_ACCOUNTS = """
    INSERT INTO windows (tenant, period, start, spent, reserved, cap)
    VALUES (?, 0, ?, ?, ?, NULL), (?, 1, ?, ?, ?, NULL), (?, 2, ?, ?, ?, NULL)
    ON CONFLICT DO UPDATE SET spent = spent + excluded.spent, reserved = reserved + excluded.reserved
    RETURNING period, spent, reserved, cap
"""
_ADD_USAGE = """
    INSERT INTO usage
        (tenant, day, model, source, calls, cost, input, cached_input, cache_write, output, reasoning)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, cost = cost + excluded.cost,
        input = input + excluded.input, cached_input = cached_input + excluded.cached_input,
        cache_write = cache_write + excluded.cache_write, output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning
"""
_ADD_OVERRUN = """
    INSERT INTO overruns (tenant, cause, count, amount) VALUES (?, ?, 1, ?)
    ON CONFLICT DO UPDATE SET count = count + 1, amount = amount + excluded.amount
"""

_Account = tuple[int, NanoUsd, NanoUsd, NanoUsd | None]
"""Period, spent, reserved, and the limit last enforced there."""
_Accounts = list[_Account]
"""One per period, in their order."""


class SqliteLedger:
    """See `contract.Ledger`."""

    immediate = True

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        timeout: float = 2.0,
        durable: bool = False,
        migrations: tuple[Migration, ...] = MIGRATIONS,
    ) -> None:
        """Open or create the file.

        Args:
            path: the file; two more appear beside it (`-wal`, `-shm`).
            clock: seconds since the epoch.
            timeout: seconds to wait for other processes before `LedgerUnavailable`.
            durable: also survive power cuts.
            migrations: for tests: those of another version of this program.

        Raises:
            LedgerUnavailable: it cannot be opened, or belongs to a version that this one must not run beside.
        """
        self._file = SqliteFile(path, clock=clock, timeout=timeout, durable=durable, migrations=migrations)
        self._db = self._file.db
        self._documents = SqliteDocuments(self._db)
        self._swept_ms = -_SWEEP_PAUSE_MS
        self._hours: dict[str, int] = {}
        """By tenant the hour in which this process last forgot windows that are too old to keep."""

    async def reserve(self, attempt: Attempt) -> Reservation | Refusal:
        return await self._file.step(lambda now_ms: self._reserve(attempt, now_ms))

    async def mark_started(self, reservation: Reservation) -> bool:
        def step(now_ms: int) -> bool:
            cursor = self._db.execute(
                "UPDATE reservations SET state = ? WHERE id = ? AND state IN (?, ?) AND due_ms > ?",
                (_STARTED, reservation.id, _OPEN, _STARTED, now_ms),
            )
            return cursor.rowcount == 1

        return await self._file.step(step)

    async def settle(self, reservation: Reservation, charge: Charge) -> Settled:
        return await self._file.step(lambda now_ms: self._settle(reservation, charge, now_ms))

    async def release(self, reservation: Reservation) -> bool:
        def step(now_ms: int) -> bool:
            cursor = self._db.execute(
                "UPDATE reservations SET state = ?, due_ms = ? WHERE id = ? AND state IN (?, ?)",
                (_RELEASED, now_ms + int(RETENTION * 1000), reservation.id, _OPEN, _STARTED),
            )
            if cursor.rowcount == 1:
                starts = [window.start for window in reservation.windows]
                self._add(reservation.tenant_id, starts, spent=0, reserved=-reservation.worst_case)
            return cursor.rowcount == 1

        return await self._file.step(step)

    async def expire(self) -> int:
        return await self._file.step(self._sweep)

    async def balances(self, tenant_id: str) -> Balances:
        def step(now_ms: int) -> Balances:
            self._sweep(now_ms)
            windows = windows_at(now_ms / 1000)
            return _balances(windows, self._accounts(tenant_id, windows))

        return await self._file.step(step)

    async def overruns(self, tenant_id: str) -> Mapping[OverrunCause, Overrun]:
        rows = await self._file.step(
            lambda _: self._db.execute(
                "SELECT cause, count, amount FROM overruns WHERE tenant = ?", (tenant_id,)
            ).fetchall()
        )
        found = {cause: Overrun(count, amount) for cause, count, amount in rows}
        return {cause: found.get(cause.value, Overrun(0, 0)) for cause in OverrunCause}

    async def usage(self, first: date, last: date) -> list[UsageRow]:
        rows = await self._file.step(
            lambda _: self._db.execute(
                "SELECT tenant, day, model, source, calls, cost, input, cached_input, cache_write, output, reasoning "
                "FROM usage WHERE day BETWEEN ? AND ? AND (calls != 0 OR cost != 0) "
                "ORDER BY tenant, day, model, source",
                (_midnight(first), _midnight(last)),
            ).fetchall()
        )
        return [
            UsageRow(
                tenant_id=tenant_id,
                day=datetime.fromtimestamp(day, tz=UTC).date(),
                model=model,
                source=ChargeSource(source),
                calls=calls,
                cost=cost,
                tokens=dict(zip(TOKEN_CLASSES, tokens, strict=True)),
            )
            for tenant_id, day, model, source, calls, cost, *tokens in rows
        ]

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        return await self._file.step(lambda now_ms: self._documents.get(tenant_id, name, now_ms))

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        write = DocumentWrite(tenant_id, name, body, expected, lifetime)
        return (await self.put_documents((write,)))[0]

    async def put_documents(self, writes: Sequence[DocumentWrite]) -> list[bool]:
        return await self._file.step(lambda now_ms: self._documents.put(writes, now_ms))

    async def documents(self, tenant_id: str, prefix: str) -> AsyncIterator[tuple[str, Document]]:
        after = ""
        while True:
            page = await self._file.step(functools.partial(self._documents.page, tenant_id, prefix, after))
            if not page:
                return
            for name, document in page:
                yield name, document
            after = page[-1][0]

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        return await self._file.step(lambda now_ms: self._documents.delete(tenant_id, name, now_ms))

    async def delete_documents(self, tenant_id: str, prefix: str) -> int:
        return await self._file.step(lambda now_ms: self._documents.delete_all(tenant_id, prefix, now_ms))

    async def scrub(self) -> None:
        await self._file.scrub()

    async def close(self) -> None:
        await self._file.close()

    def _reserve(self, attempt: Attempt, now_ms: int) -> Reservation | Refusal:
        if abs(now_ms - self._swept_ms) >= _SWEEP_PAUSE_MS:
            self._sweep(now_ms)
        answer = self._granted(attempt, now_ms)
        if isinstance(answer, Refusal) and self._sweep(now_ms):
            # What was in the way may just have expired.
            answer = self._granted(attempt, now_ms)
        return answer

    def _granted(self, attempt: Attempt, now_ms: int) -> Reservation | Refusal:
        """The reservation if it fits, which is seen once it is added: a statement less than looking first."""
        windows = windows_at(now_ms / 1000)
        starts = [window.start for window in windows]
        if self._hours.get(attempt.tenant_id) != starts[0]:
            self._forget_windows(attempt.tenant_id, starts[0])
            self._hours[attempt.tenant_id] = starts[0]
        accounts = self._add(attempt.tenant_id, starts, spent=0, reserved=attempt.worst_case)
        refusal = self._check(attempt, windows, accounts, now_ms)
        if refusal is None:
            expires_ms = now_ms + int(attempt.lifetime * 1000)
            state = _STARTED if attempt.started else _OPEN
            inserted = self._db.execute(
                _RESERVATION,
                (attempt.id, attempt.tenant_id, attempt.model, state, attempt.worst_case, attempt.estimate, 0, *starts,
                 expires_ms, expires_ms),
            )  # fmt: skip
            if inserted.rowcount == 1:
                return Reservation(
                    id=attempt.id,
                    tenant_id=attempt.tenant_id,
                    model=attempt.model,
                    worst_case=attempt.worst_case,
                    estimate=attempt.estimate,
                    expires_at=expires_ms / 1000,
                    balances=_balances(windows, accounts),
                )
        self._add(attempt.tenant_id, starts, spent=0, reserved=-attempt.worst_case)
        known = self._known(attempt.id)
        if known is not None:
            return known
        assert refusal is not None  # or another row of this id was in the way
        return refusal

    def _known(self, id_: str) -> Reservation | None:
        """What was reserved by this id before."""
        row = self._db.execute(
            "SELECT tenant, model, worst_case, estimate, hour, expires_ms FROM reservations WHERE id = ?", (id_,)
        ).fetchone()
        if row is None:
            return None
        tenant_id, model, worst_case, estimate, hour, expires_ms = row
        windows = windows_at(hour)
        return Reservation(
            id=id_,
            tenant_id=tenant_id,
            model=model,
            worst_case=worst_case,
            estimate=estimate,
            expires_at=expires_ms / 1000,
            balances=_balances(windows, self._accounts(tenant_id, windows)),
        )

    def _check(self, attempt: Attempt, windows: Windows, accounts: _Accounts, now_ms: int) -> Refusal | None:
        """The refusal by the limit with the least left, `None` if all have room. Notes changed limits.

        `accounts` hold the attempt already.
        """
        limits = {limit.period: limit for limit in attempt.limits}
        tightest: tuple[NanoUsd, Limit, Balance] | None = None
        for window, (period, spent, reserved, cap) in zip(windows, accounts, strict=True):
            limit = limits.get(window.period)
            amount = None if limit is None else limit.amount
            held = reserved - attempt.worst_case
            committed = spent + held
            if amount != cap:
                self._db.execute(
                    "UPDATE windows SET cap = ? WHERE tenant = ? AND period = ? AND start = ?",
                    (amount, attempt.tenant_id, period, window.start),
                )
            if limit is None:
                continue
            if committed > limit.amount and (cap is None or cap > limit.amount):
                overrun = (attempt.tenant_id, OverrunCause.LOWERED_LIMIT.value, committed - limit.amount)
                self._db.execute(_ADD_OVERRUN, overrun)
            left = limit.amount - committed
            if attempt.worst_case > left and (tightest is None or left < tightest[0]):
                tightest = left, limit, Balance(window, spent, held)
        if tightest is None:
            return None
        return Refusal(limit=tightest[1], balance=tightest[2], needed=attempt.worst_case, now=now_ms / 1000)

    def _settle(self, reservation: Reservation, charge: Charge, now_ms: int) -> Settled:
        tenant_id, windows = reservation.tenant_id, reservation.windows
        starts = [window.start for window in windows]
        due_ms = now_ms + int(SETTLED_RETENTION * 1000)
        state, charged = self._closed(reservation, charge, due_ms)
        if state == _SETTLED:
            return Settled(
                charged=charged,
                change=0,
                repeated=True,
                late=False,
                overrun=None,
                balances=_balances(windows, self._accounts(tenant_id, windows)),
            )
        late = state not in (_OPEN, _STARTED)
        freed = 0 if late else reservation.worst_case
        change = charge.cost - charged
        accounts = self._add(tenant_id, starts, spent=change, reserved=-freed)
        place = tenant_id, starts[1], reservation.model
        if state == _EXPIRED:
            self._db.execute(_ADD_USAGE, (*place, ChargeSource.EXPIRED.value, -1, -charged, *_NO_TOKENS))
        self._db.execute(_ADD_USAGE, (*place, charge.source.value, 1, charge.cost, *charge.counts()))
        cause = OverrunCause.LATE_SETTLE if late else OverrunCause.ABOVE_RESERVATION
        growth = change - freed
        excess = max([0 if cap is None else min(growth, spent + held - cap) for _, spent, held, cap in accounts])
        if excess > 0:
            self._db.execute(_ADD_OVERRUN, (tenant_id, cause.value, excess))
        return Settled(
            charged=charge.cost,
            change=change,
            repeated=False,
            late=late,
            overrun=(cause, excess) if excess > 0 else None,
            balances=_balances(windows, accounts),
        )

    def _closed(self, reservation: Reservation, charge: Charge, due_ms: int) -> tuple[int, NanoUsd]:
        """The state and the charge that a reservation had before it was settled, as it is now."""
        closed = "UPDATE reservations SET state = ?, charged = ?, due_ms = ? WHERE id = ?"
        values = (_SETTLED, charge.cost, due_ms, reservation.id)
        if self._db.execute(f"{closed} AND state IN (?, ?)", (*values, _OPEN, _STARTED)).rowcount == 1:
            return _STARTED, 0
        known = self._db.execute("SELECT state, charged FROM reservations WHERE id = ?", (reservation.id,)).fetchone()
        if known is None:
            # Forgotten or lost; the money is gone all the same.
            starts = [window.start for window in reservation.windows]
            self._db.execute(
                _RESERVATION,
                (reservation.id, reservation.tenant_id, reservation.model, _SETTLED, reservation.worst_case,
                 reservation.estimate, charge.cost, *starts, int(reservation.expires_at * 1000), due_ms),
            )  # fmt: skip
            return _RELEASED, 0
        state, charged = known
        if state != _SETTLED:
            self._db.execute(closed, values)
        return state, charged

    def _sweep(self, now_ms: int) -> int:
        """Expire what is due and forget what is old; returns how many expired."""
        due = self._db.execute(
            "SELECT id, tenant, model, state, worst_case, estimate, hour, day, month FROM reservations "
            "WHERE due_ms <= ? ORDER BY due_ms LIMIT ?",
            (now_ms, _SWEEP),
        ).fetchall()
        # After a full sweep there may be more.
        self._swept_ms = now_ms if len(due) < _SWEEP else -_SWEEP_PAUSE_MS
        expired = 0
        for id_, tenant_id, model, state, worst_case, estimate, *starts in due:
            if state not in (_OPEN, _STARTED):
                self._db.execute("DELETE FROM reservations WHERE id = ?", (id_,))
                continue
            expired += 1
            charged = estimate if state == _STARTED else 0
            self._add(tenant_id, starts, spent=charged, reserved=-worst_case)
            if state == _STARTED:
                self._db.execute(
                    _ADD_USAGE, (tenant_id, starts[1], model, ChargeSource.EXPIRED.value, 1, charged, *_NO_TOKENS)
                )
            self._db.execute(
                "UPDATE reservations SET state = ?, charged = ?, due_ms = ? WHERE id = ?",
                (_EXPIRED if state == _STARTED else _RELEASED, charged, now_ms + int(RETENTION * 1000), id_),
            )
        return expired

    def _accounts(self, tenant_id: str, windows: Windows) -> _Accounts:
        hour, day, month = windows
        rows = self._db.execute(_ACCOUNTS, (tenant_id, hour.start, tenant_id, day.start, tenant_id, month.start))
        found = {row[0]: row for row in rows}
        return [found.get(period, (period, 0, 0, None)) for period in range(3)]

    def _forget_windows(self, tenant_id: str, now: int) -> None:
        for period, kind in enumerate(PERIODS):
            self._db.execute(
                "DELETE FROM windows WHERE tenant = ? AND period = ? AND start < ?",
                (tenant_id, period, now - WINDOWS_KEPT[kind]),
            )

    def _add(self, tenant_id: str, starts: Sequence[int], *, spent: NanoUsd, reserved: NanoUsd) -> _Accounts:
        hour, day, month = starts
        values = (tenant_id, hour, spent, reserved, tenant_id, day, spent, reserved, tenant_id, month, spent, reserved)
        # In SQLite the rows come in the order of VALUES, but it promises none.
        return sorted(self._db.execute(_ADD_TO_ACCOUNTS, values).fetchall())


def _balances(windows: Windows, accounts: _Accounts) -> Balances:
    hour, day, month = windows
    in_hour, in_day, in_month = accounts
    return (
        Balance(hour, in_hour[1], in_hour[2]),
        Balance(day, in_day[1], in_day[2]),
        Balance(month, in_month[1], in_month[2]),
    )


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
