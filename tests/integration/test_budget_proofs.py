"""The ledger's promises, held by whole processes that are killed. The long forms are `make test-full`'s."""

from pathlib import Path

import pytest

from tests import proofs


@pytest.mark.parametrize("backend", ["sqlite", "valkey"])
def test_dispatchers_killed_under_load_leave_a_book_that_bounds_the_bill(tmp_path: Path, backend: str) -> None:
    proofs.killed_under_load(tmp_path, backend, kills=5).check()


def test_two_dispatchers_spend_one_limit_to_its_end_and_not_beyond(tmp_path: Path) -> None:
    result = proofs.one_limit_for_many(tmp_path, dispatchers=2, calls=450, concurrency=2)
    result.books.check()
    assert result.highest_committed <= result.books.limit
    assert result.usable >= 0.99
    assert set(result.load.statuses) == {"OK", "RESOURCE_EXHAUSTED"}


def test_a_valkey_killed_under_load_grants_nothing_while_it_is_away_and_nothing_twice(tmp_path: Path) -> None:
    result = proofs.server_restarted(tmp_path, restarts=1)
    result.books.check()
    assert set(result.load.statuses) == {"OK", "UNAVAILABLE"}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["sqlite", "valkey"])
def test_fifty_kills_leave_a_book_that_bounds_the_bill(tmp_path: Path, backend: str) -> None:
    proofs.killed_under_load(tmp_path, backend, kills=50, seed=2).check()


@pytest.mark.full
@pytest.mark.timeout(900)
def test_four_dispatchers_and_ten_thousand_calls_spend_one_limit_to_its_end(tmp_path: Path) -> None:
    result = proofs.one_limit_for_many(tmp_path, dispatchers=4, calls=10_000, concurrency=32)
    result.books.check()
    assert result.highest_committed <= result.books.limit
    assert result.usable >= 0.99


@pytest.mark.full
def test_ten_restarts_of_valkey_grant_nothing_twice(tmp_path: Path) -> None:
    result = proofs.server_restarted(tmp_path, restarts=10)
    result.books.check()
