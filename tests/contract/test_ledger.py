"""One suite for the three ledgers: what `dispatcher_service.ledger.contract` says holds for each of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from dispatcher_service.budget import MAX_LIMIT, BudgetWindow, Period
from dispatcher_service.ledger.contract import (
    MAX_LIFETIME,
    RETENTION,
    SETTLED_RETENTION,
    Balances,
    Charge,
    ChargeSource,
    Document,
    DocumentWrite,
    Ledger,
    Overrun,
    OverrunCause,
)
from tests.ledgers import NOON, Backend, attempt, backend, charge, granted, refused
from tests.valkey import ValkeyServer

TODAY = date(2026, 11, 10)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with backend(request.param, tmp_path, lambda: request.getfixturevalue("valkey")) as found:
        yield found


@pytest.fixture
async def ledger(book: Backend) -> AsyncIterator[Ledger]:
    opened = book.open()
    try:
        yield opened
    finally:
        await opened.close()


def _sums(balances: Balances) -> list[tuple[int, int]]:
    return [(balance.spent, balance.reserved) for balance in balances]


async def test_a_reservation_counts_in_hour_day_and_month_at_once(ledger: Ledger) -> None:
    first = await granted(ledger, attempt("a", 100))
    second = await granted(ledger, attempt("b", 30))
    assert _sums(first.balances) == [(0, 100)] * 3
    assert _sums(second.balances) == [(0, 130)] * 3
    assert _sums(await ledger.balances("acme")) == [(0, 130)] * 3
    assert _sums(await ledger.balances("other")) == [(0, 0)] * 3


async def test_what_fits_exactly_is_granted_and_one_more_is_refused(ledger: Ledger) -> None:
    await granted(ledger, attempt("a", 999, day=1_000))
    await granted(ledger, attempt("b", 1, day=1_000))
    await refused(ledger, attempt("c", 1, day=1_000))
    assert (await ledger.balances("acme"))[1].committed == 1_000


async def test_a_refusal_says_which_limit_what_is_left_and_when_the_window_ends(book: Backend, ledger: Ledger) -> None:
    book.clock.now = NOON + 30 * 60
    await granted(ledger, attempt("a", 700, day=1_000))
    refusal = await refused(ledger, attempt("b", 400, day=1_000, month=50_000))
    assert (refusal.limit.period, refusal.limit.amount) == (Period.DAY, 1_000)
    assert (refusal.left, refusal.needed) == (300, 400)
    assert refusal.balance.window.end == datetime(2026, 11, 11, tzinfo=UTC).timestamp()
    assert refusal.retry_after == pytest.approx(11.5 * 3600, abs=2.0)


async def test_of_several_limits_without_room_the_one_with_least_left_is_named(ledger: Ledger) -> None:
    await granted(ledger, attempt("a", 90))
    assert (await refused(ledger, attempt("b", 50, hour=120, day=100, month=110))).limit.period is Period.DAY


async def test_a_refused_attempt_leaves_no_trace_in_any_window(ledger: Ledger) -> None:
    await refused(ledger, attempt("a", 200, hour=1_000, month=100))
    assert _sums(await ledger.balances("acme")) == [(0, 0)] * 3


async def test_settle_replaces_the_reservation_by_the_cost(ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    assert await ledger.mark_started(reservation)
    settled = await ledger.settle(reservation, charge(42))
    assert (settled.charged, settled.change, settled.late, settled.repeated, settled.overrun) == (
        42,
        42,
        False,
        False,
        None,
    )
    assert _sums(settled.balances) == [(42, 0)] * 3


async def test_settling_again_changes_nothing_whatever_it_says(ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    await ledger.settle(reservation, charge(42))
    for cost in (42, 99):
        again = await ledger.settle(reservation, charge(cost))
        assert (again.charged, again.change, again.repeated) == (42, 0, True)
    assert _sums(await ledger.balances("acme")) == [(42, 0)] * 3
    assert [(row.calls, row.cost) for row in await ledger.usage(TODAY, TODAY)] == [(1, 42)]


async def test_release_gives_the_money_back_once(ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    assert await ledger.release(reservation)
    assert not await ledger.release(reservation)
    assert not await ledger.mark_started(reservation)
    assert _sums(await ledger.balances("acme")) == [(0, 0)] * 3


async def test_reserving_again_by_the_same_id_reserves_once(ledger: Ledger) -> None:
    first = await granted(ledger, attempt("a", 100, day=150))
    again = await granted(ledger, attempt("a", 100, day=150))
    assert (again.id, again.worst_case, again.expires_at) == (first.id, first.worst_case, first.expires_at)
    assert _sums(await ledger.balances("acme")) == [(0, 100)] * 3


async def test_a_burst_of_attempts_is_granted_however_many_come_at_once(ledger: Ledger) -> None:
    await asyncio.gather(*(granted(ledger, attempt(f"{number}", 10)) for number in range(300)))
    assert (await ledger.balances("acme"))[0].reserved == 3_000


async def test_a_reservation_that_was_not_started_expires_into_nothing(book: Backend, ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100, day=100))
    await refused(ledger, attempt("b", 1, day=100))
    book.clock.now += 61
    assert not await ledger.mark_started(reservation)
    # The money is back for the very next attempt: no sweeper has to run first.
    await granted(ledger, attempt("c", 100, day=100))
    assert _sums(await ledger.balances("acme")) == [(0, 100)] * 3
    assert await ledger.usage(TODAY, TODAY) == []


@pytest.mark.parametrize("how", ["mark", "at once"])
async def test_a_started_one_expires_at_its_estimate_and_a_late_settle_corrects_it(
    book: Backend, ledger: Ledger, how: str
) -> None:
    reservation = await granted(ledger, attempt("a", 100, estimate=60, started=how == "at once"))
    if how == "mark":
        assert await ledger.mark_started(reservation)
    book.clock.now += 61
    assert await ledger.expire() == 1
    assert await ledger.expire() == 0
    assert _sums(await ledger.balances("acme")) == [(60, 0)] * 3
    assert [(row.source, row.calls, row.cost) for row in await ledger.usage(TODAY, TODAY)] == [
        (ChargeSource.EXPIRED, 1, 60)
    ]
    settled = await ledger.settle(reservation, charge(45))
    assert (settled.charged, settled.change, settled.late) == (45, -15, True)
    assert _sums(settled.balances) == [(45, 0)] * 3
    assert [(row.source, row.calls, row.cost) for row in await ledger.usage(TODAY, TODAY)] == [
        (ChargeSource.REPORTED, 1, 45)
    ]
    assert (await ledger.settle(reservation, charge(45))).repeated


async def test_a_settle_after_a_release_is_charged(ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    await ledger.release(reservation)
    settled = await ledger.settle(reservation, charge(30))
    assert (settled.change, settled.late) == (30, True)
    assert _sums(settled.balances) == [(30, 0)] * 3


async def test_a_settle_of_what_the_ledger_does_not_know_is_charged_once(book: Backend, ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100, started=True))
    book.clock.now += MAX_LIFETIME
    await ledger.expire()
    book.clock.now += RETENTION + 1
    await ledger.expire()
    settled = await ledger.settle(reservation, charge(70))
    assert (settled.change, settled.late, settled.repeated) == (70, True, False)
    assert (await ledger.settle(reservation, charge(70))).repeated


async def test_a_settled_one_is_forgotten_after_its_retention(book: Backend, ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    await ledger.settle(reservation, charge(10))
    book.clock.now += SETTLED_RETENTION + 1
    assert await ledger.expire() == 0
    await granted(ledger, attempt("a", 100))
    assert _sums(await ledger.balances("acme"))[1] == (10, 100)


async def test_a_charge_belongs_to_the_windows_in_which_it_was_reserved(book: Backend, ledger: Ledger) -> None:
    book.clock.now = NOON + 3_599
    reservation = await granted(ledger, attempt("a", 100))
    book.clock.now += 2
    settled = await ledger.settle(reservation, charge(80))
    assert settled.balances[0].window == BudgetWindow(Period.HOUR, int(NOON), int(NOON) + 3600)
    assert _sums(settled.balances) == [(80, 0)] * 3
    assert _sums(await ledger.balances("acme")) == [(0, 0), (80, 0), (80, 0)]


async def test_a_new_hour_has_new_money_and_the_day_remembers(book: Backend, ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100, hour=100, day=150))
    await ledger.settle(reservation, charge(100))
    await refused(ledger, attempt("b", 50, hour=100, day=150))
    book.clock.now += 3600
    await granted(ledger, attempt("b", 50, hour=100, day=150))
    assert (await refused(ledger, attempt("c", 1, hour=100, day=150))).limit.period is Period.DAY


async def test_a_month_ends_with_the_calendar(book: Backend, ledger: Ledger) -> None:
    book.clock.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp()
    await granted(ledger, attempt("a", 100, month=100))
    await refused(ledger, attempt("b", 1, month=100))
    book.clock.now += 61
    fresh = await granted(ledger, attempt("b", 100, month=100))
    assert fresh.windows[2].end == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


async def test_a_limit_that_is_set_at_noon_knows_the_morning(ledger: Ledger) -> None:
    await ledger.settle(await granted(ledger, attempt("a", 100)), charge(100))
    assert (await refused(ledger, attempt("b", 1, day=100))).left == 0


async def test_a_settle_above_its_reservation_is_an_overrun_only_if_it_passes_a_limit(ledger: Ledger) -> None:
    one = await granted(ledger, attempt("a", 100, day=250))
    other = await granted(ledger, attempt("b", 100, day=250))
    within = await ledger.settle(one, charge(140))
    assert within.overrun is None
    passed = await ledger.settle(other, charge(130))
    assert passed.overrun == (OverrunCause.ABOVE_RESERVATION, 20)
    overruns = await ledger.overruns("acme")
    assert overruns == {
        OverrunCause.ABOVE_RESERVATION: Overrun(1, 20),
        OverrunCause.LOWERED_LIMIT: Overrun(0, 0),
        OverrunCause.LATE_SETTLE: Overrun(0, 0),
    }


async def test_a_lowered_limit_is_counted_once_and_refuses(ledger: Ledger) -> None:
    await granted(ledger, attempt("a", 100, day=200))
    for _ in range(2):
        assert (await refused(ledger, attempt("b", 1, day=70))).left == 0
    assert (await ledger.overruns("acme"))[OverrunCause.LOWERED_LIMIT] == Overrun(1, 30)


async def test_a_late_settle_that_passes_a_limit_is_counted(book: Backend, ledger: Ledger) -> None:
    late = await granted(ledger, attempt("a", 100, day=100, estimate=0, started=True))
    book.clock.now += 61
    await granted(ledger, attempt("b", 90, day=100))
    settled = await ledger.settle(late, charge(25))
    assert settled.overrun == (OverrunCause.LATE_SETTLE, 15)
    assert (await ledger.overruns("acme"))[OverrunCause.LATE_SETTLE] == Overrun(1, 15)
    assert settled.balances[1].committed == 115


async def test_limits_around_150_000_dollars_are_exact_to_the_nano_dollar(ledger: Ledger) -> None:
    """In doubles written by tostring, 100000000000124 comes back as 1.0000000000012e+14."""
    limit = 150_000_000_000_124
    spent = 0
    for index in range(3):
        reservation = await granted(ledger, attempt(f"a{index}", 50_000_000_000_000, day=limit))
        cost = 50_000_000_000_000 - 1 - index
        assert (await ledger.settle(reservation, charge(cost))).change == cost
        spent += cost
    left = limit - spent
    assert left == 130
    assert (await refused(ledger, attempt("b", left + 1, day=limit))).left == left
    last = await granted(ledger, attempt("c", left, day=limit))
    assert _sums(await ledger.balances("acme")) == [(spent, left)] * 3
    await ledger.settle(last, charge(left))
    assert _sums(await ledger.balances("acme")) == [(limit, 0)] * 3
    assert sum(row.cost for row in await ledger.usage(TODAY, TODAY)) == limit


async def test_the_largest_limit_is_exact(ledger: Ledger) -> None:
    await granted(ledger, attempt("a", MAX_LIMIT - 1, month=MAX_LIMIT))
    await granted(ledger, attempt("b", 1, month=MAX_LIMIT))
    await refused(ledger, attempt("c", 1, month=MAX_LIMIT))
    assert (await ledger.balances("acme"))[2].committed == MAX_LIMIT


async def test_the_report_adds_calls_cost_and_tokens_by_tenant_day_model_and_source(
    book: Backend, ledger: Ledger
) -> None:
    for index in range(2):
        reservation = await granted(ledger, attempt(f"a{index}"))
        await ledger.settle(reservation, charge(10, input=5, cached_input=4, output=3, reasoning=2, cache_write=1))
    weak = await granted(ledger, attempt("b", model="gpt-weak", tenant_id="zeta/x"))
    await ledger.settle(weak, Charge(cost=7, source=ChargeSource.ESTIMATED, tokens={"input": 9}))
    book.clock.now += 86_400
    await ledger.settle(await granted(ledger, attempt("c")), charge(1))
    rows = await ledger.usage(TODAY, TODAY)
    assert [(row.tenant_id, row.day, row.model, row.source, row.calls, row.cost) for row in rows] == [
        ("acme", TODAY, "gpt-strong", ChargeSource.REPORTED, 2, 20),
        ("zeta/x", TODAY, "gpt-weak", ChargeSource.ESTIMATED, 1, 7),
    ]
    assert rows[0].tokens == {"input": 10, "cached_input": 8, "cache_write": 2, "output": 6, "reasoning": 4}
    assert len(await ledger.usage(TODAY, date(2026, 11, 11))) == 3


async def test_old_windows_are_forgotten_and_the_report_is_not(book: Backend, ledger: Ledger) -> None:
    await ledger.settle(await granted(ledger, attempt("a")), charge(10))
    book.clock.now += 900 * 86_400
    await granted(ledger, attempt("b"))
    book.clock.now -= 900 * 86_400
    assert _sums(await ledger.balances("acme")) == [(0, 0)] * 3
    assert [row.cost for row in await ledger.usage(TODAY, TODAY)] == [10]


async def test_a_document_is_written_by_whoever_knows_its_version(ledger: Ledger) -> None:
    assert await ledger.get_document("acme", "pace") is None
    assert await ledger.put_document("acme", "pace", b"one", expected=0)
    assert not await ledger.put_document("acme", "pace", b"two", expected=0)
    assert await ledger.put_document("acme", "pace", b"\x00two\xff", expected=1)
    assert await ledger.get_document("acme", "pace") == Document(2, b"\x00two\xff")
    assert await ledger.get_document("other", "pace") is None


async def test_nothing_is_lost_when_the_book_is_opened_again(book: Backend, ledger: Ledger) -> None:
    reservation = await granted(ledger, attempt("a", 100))
    await ledger.settle(await granted(ledger, attempt("b", 100)), charge(10))
    again = book.open()
    try:
        assert _sums(await again.balances("acme")) == [(10, 100)] * 3
        assert (await again.settle(reservation, charge(5))).change == 5
    finally:
        if book.name != "memory":
            await again.close()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"estimate": 101}, "estimate"), ({"lifetime": 0.0}, "lifetime"), ({"worst_case": 2**53}, "worst case")],
)
def test_an_attempt_that_makes_no_sense_is_refused_where_it_is_made(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        attempt("a", **{"worst_case": 100, **changes})  # type: ignore[arg-type]


def test_a_charge_in_an_unknown_token_class_is_refused() -> None:
    with pytest.raises(ValueError, match="audio"):
        charge(1, audio=3)


async def test_documents_are_found_and_deleted_by_prefix_for_one_tenant(ledger: Ledger) -> None:
    names = ["text:a:1", "text:a:2", "text:ab:1", "text:*:1", "other"]
    for tenant in ("acme", "acme2"):
        for name in names:
            assert await ledger.put_document(tenant, name, name.encode(), expected=0)
    found = {name: document.body async for name, document in ledger.documents("acme", "text:a")}
    assert found == {name: name.encode() for name in ("text:a:1", "text:a:2", "text:ab:1")}
    assert await ledger.delete_documents("acme", "text:*") == 1
    assert await ledger.delete_documents("acme", "text:a:") == 2
    assert await ledger.delete_document("acme", "other")
    assert not await ledger.delete_document("acme", "other")
    assert [name async for name, _ in ledger.documents("acme", "")] == ["text:ab:1"]
    assert len([name async for name, _ in ledger.documents("acme2", "text:")]) == 4
    # A name that was deleted begins anew.
    assert await ledger.put_document("acme", "other", b"", expected=0)


def _files_hold(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.glob("ledger.db*"))


async def test_scrubbing_leaves_nothing_of_a_deleted_document_in_the_file(
    book: Backend, ledger: Ledger, tmp_path: Path
) -> None:
    canary = b"the canary sings at noon"
    for name, body in (("text:1", canary * 100), ("text:2", canary), ("other", b"kept")):
        assert await ledger.put_document("acme", name, body, expected=0)
    assert await ledger.put_document("acme", "text:2", b"short now", expected=1)
    assert await ledger.delete_documents("acme", "text:") == 2
    await ledger.scrub()
    if book.name == "sqlite":
        assert not _files_hold(tmp_path, canary)
    assert await ledger.get_document("acme", "other") is not None


async def test_a_document_is_gone_when_its_lifetime_is_over(book: Backend, ledger: Ledger) -> None:
    lifetime = 0.2 if book.name == "redis" else 60.0  # Redis counts lifetimes on its own clock
    assert await ledger.put_document("acme", "text:1", b"body", expected=0, lifetime=lifetime)
    assert await ledger.get_document("acme", "text:1") is not None
    if book.name == "redis":
        await asyncio.sleep(lifetime + 0.05)
    book.clock.now += lifetime
    assert await ledger.get_document("acme", "text:1") is None
    assert [name async for name, _ in ledger.documents("acme", "text:")] == []
    assert not await ledger.delete_document("acme", "text:1")
    assert await ledger.put_document("acme", "text:2", b"body", expected=0, lifetime=lifetime)


async def test_several_documents_are_written_together_each_by_its_own_version(ledger: Ledger) -> None:
    assert await ledger.put_documents([]) == []
    assert await ledger.put_document("acme", "decision:1", b"old", expected=0)
    writes = [
        DocumentWrite("acme", "decision:1", b"lost", 0),
        DocumentWrite("acme", "decision:1", b"new", 1),
        DocumentWrite("zeta", "decision:1", b"\x00\xff", 0, 60.0),
        DocumentWrite("zeta", "decision:1", b"lost", 0, 60.0),
    ]
    assert await ledger.put_documents(writes) == [False, True, True, False]
    assert await ledger.get_document("acme", "decision:1") == Document(2, b"new")
    assert await ledger.get_document("zeta", "decision:1") == Document(1, b"\x00\xff")
