"""Two versions of the program on one ledger, as in a rollout: N beside N+1, with books that agree."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from datetime import date
from pathlib import Path

import pytest

from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger import redis as redis_ledger
from dispatcher_service.ledger.contract import Ledger, Reservation
from dispatcher_service.ledger.redis import RedisLedger, connect
from dispatcher_service.ledger.redis_script import SCRIPT
from dispatcher_service.ledger.sqlite import SqliteLedger
from dispatcher_service.ledger.sqlite_schema import MIGRATIONS, Migration
from tests.ledgers import ManualClock, attempt, charge, granted
from tests.valkey import ValkeyServer

TODAY = date(2026, 11, 10)
N = MIGRATIONS[-1].version

# What a next version may add without raising `oldest`: columns with a default in every table, a table, an index.
_ADDITIONS = Migration(
    version=N + 1,
    oldest=MIGRATIONS[-1].oldest,
    statements=(
        *(f"ALTER TABLE {table} ADD COLUMN note TEXT NOT NULL DEFAULT ''"
          for table in ("windows", "reservations", "usage", "overruns", "documents")),
        "CREATE TABLE refunds (tenant TEXT NOT NULL, amount INTEGER NOT NULL)",
        "CREATE INDEX usage_by_day ON usage (day)",
    ),
)  # fmt: skip
_BREAK = Migration(version=N + 2, oldest=N + 2, statements=("ALTER TABLE usage RENAME COLUMN cost TO nano_usd",))

# The same for Redis: more fields in the hashes, and one more at the end of a reservation.
_NEXT_SCRIPT = SCRIPT.replace(
    "redis.call('HINCRBY', U, base .. 'calls', calls)",
    "redis.call('HINCRBY', U, base .. 'calls', calls) redis.call('HINCRBY', B, 'notes', 1)",
).replace("entry.expires, entry.model}, '|')", "entry.expires, entry.model, 'note'}, '|')")
assert _NEXT_SCRIPT.count("note") == 2, "the script has changed: write these additions anew"

Open = Callable[[bool], Ledger]
"""Opens the book as version N+1 if true, else as N."""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["sqlite", "redis"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    clock = ManualClock()
    opened: list[Ledger] = []

    def sqlite(next_version: bool) -> Ledger:
        migrations = (*MIGRATIONS, _ADDITIONS) if next_version else MIGRATIONS
        return SqliteLedger(tmp_path / "ledger.db", clock=clock, migrations=migrations)

    def redis(next_version: bool) -> Ledger:
        client = connect(request.getfixturevalue("valkey").url)
        if not next_version:
            return RedisLedger(client, clock_shift=clock.shift)
        schema = (redis_ledger.SCHEMA_VERSION + 1, redis_ledger.OLDEST_COMPATIBLE)
        return RedisLedger(client, clock_shift=clock.shift, schema=schema, script=_NEXT_SCRIPT)

    def open_(next_version: bool) -> Ledger:
        ledger = sqlite(next_version) if request.param == "sqlite" else redis(next_version)
        opened.append(ledger)
        return ledger

    if request.param == "redis":
        async with aclosing(connect(request.getfixturevalue("valkey").url)) as client:
            await client.flushall()
    yield open_
    for ledger in opened:
        await ledger.close()


async def _spend(ledger: Ledger, name: str, costs: list[int]) -> None:
    for index, cost in enumerate(costs):
        reservation = await granted(ledger, attempt(f"{name}-{index}", 100, day=1_000_000))
        assert await ledger.mark_started(reservation)
        await ledger.settle(reservation, charge(cost, input=cost))
        await asyncio.sleep(0)


async def test_version_n_and_the_next_one_keep_one_book_together(opener: Open) -> None:
    old = opener(False)
    await _spend(old, "before", [10, 20])
    started = await granted(old, attempt("moves over", 100, day=1_000_000))
    new = opener(True)  # migrates while the old one is at work
    late_old = opener(False)  # an old replica that is restarted during the rollout
    await asyncio.gather(_spend(old, "a", [1] * 40), _spend(new, "b", [2] * 40), _spend(late_old, "c", [3] * 40))
    # A reservation of the one is settled by the other, once.
    assert await new.mark_started(started)
    assert (await new.settle(started, charge(7))).change == 7
    assert (await old.settle(started, charge(9))).repeated
    spent = 10 + 20 + 40 * (1 + 2 + 3) + 7
    for ledger in (old, new, late_old):
        assert [(balance.spent, balance.reserved) for balance in await ledger.balances("acme")] == [(spent, 0)] * 3
        (row,) = await ledger.usage(TODAY, TODAY)
        assert (row.calls, row.cost, row.tokens["input"]) == (123, spent, spent - 7)
    # Limits hold across versions.
    assert isinstance(await new.reserve(attempt("fits", 100, day=spent + 100)), Reservation)
    assert not isinstance(await old.reserve(attempt("too much", 1, day=spent + 100)), Reservation)
    # And so do documents.
    assert await new.put_document("acme", "pace", b"new", expected=0)
    assert await old.put_document("acme", "pace", b"old", expected=1)
    assert not await new.put_document("acme", "pace", b"late", expected=1)


async def test_a_file_that_only_newer_programs_may_use_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    clock = ManualClock()
    await SqliteLedger(path, clock=clock, migrations=(*MIGRATIONS, _ADDITIONS, _BREAK)).close()
    with pytest.raises(LedgerUnavailable, match=rf"schema {N + 2}, .*or newer.*; this one has {N}: upgrade it"):
        SqliteLedger(path, clock=clock)


async def test_a_database_that_only_newer_programs_may_use_is_refused_in_one_sentence(valkey: ValkeyServer) -> None:
    async with aclosing(connect(valkey.url)) as client:
        await client.flushall()
    version = redis_ledger.SCHEMA_VERSION
    newer, older = (
        RedisLedger(connect(valkey.url), schema=(version + 2, version + 2)),
        RedisLedger(connect(valkey.url)),
    )
    try:
        await newer.balances("acme")
        with pytest.raises(LedgerUnavailable, match=rf"schema {version + 2}, .*this one has {version}: upgrade it"):
            await older.balances("acme")
    finally:
        await newer.close()
        await older.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    clock = ManualClock()
    ledger = SqliteLedger(path, clock=clock)
    await _spend(ledger, "a", [5])
    broken = Migration(version=N + 1, oldest=1, statements=("CREATE TABLE half (x INTEGER)", "NONSENSE"))
    with pytest.raises(LedgerUnavailable, match="NONSENSE"):
        SqliteLedger(path, clock=clock, migrations=(*MIGRATIONS, broken))
    with closing(sqlite3.connect(path)) as db:
        assert dict(db.execute("SELECT name, value FROM meta")) == {"version": N, "oldest": MIGRATIONS[-1].oldest}
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    assert (await ledger.balances("acme"))[1].spent == 5
    await ledger.close()
