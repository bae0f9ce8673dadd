"""The cost report over real ledgers: sums that are exact, an invoice beside them, errors that name line and mend."""

import asyncio
import contextlib
import csv
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from dispatcher_service.ledger.contract import Charge, ChargeSource
from dispatcher_service.ledger.opening import default_url, open_ledger
from dispatcher_service.ledger.redis import connect
from pointsman import cli
from tests.ledgers import attempt, granted
from tests.valkey import ValkeyServer


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'ledger.db'}"
    server: ValkeyServer = request.getfixturevalue("valkey")
    asyncio.run(_flush(server.url))
    return server.url


async def _flush(url: str) -> None:
    async with aclosing(connect(url)) as client:
        await client.flushall()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'ledger.db'}"


def _spend(url: str, charges: list[tuple[str, str, int, ChargeSource]]) -> None:
    async def run() -> None:
        ledger = open_ledger(url, timeout=10)
        try:
            for index, (tenant, model, cost, source) in enumerate(charges):
                reservation = await granted(ledger, attempt(f"{index}", max(cost, 1), tenant_id=tenant, model=model))
                await ledger.settle(reservation, Charge(cost=cost, source=source, tokens={"input": cost}))
        finally:
            await ledger.close()

    _before_midnight()
    asyncio.run(run())


def _before_midnight() -> None:
    """A test that spans midnight sees two days: wait for the new one if it is near."""
    left = 86_400 - datetime.now(tz=UTC).timestamp() % 86_400
    if left < 10:
        asyncio.run(asyncio.sleep(left + 0.1))


def _today() -> str:
    return datetime.now(tz=UTC).date().isoformat()


def test_rows_of_every_grouping_add_up_to_the_windows_to_the_nano_dollar(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, sources = random.Random(4), list(ChargeSource)
    charges = [
        (
            rng.choice(["acme", "zeta"]),
            rng.choice(["big", "small"]),
            rng.randrange(10**12),
            rng.choice(sources),
        )
        for _ in range(60)
    ]
    _spend(url, charges)
    spent = sum(cost for _, _, cost, _ in charges)
    for by in ("tenant,model,day", "tenant", "model", "day", "source", "day,tenant,source,model"):
        assert cli.main(["ledger", "report", "--ledger", url, "--by", by, "--csv"]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert sum(Decimal(row["cost_usd"]) for row in rows) * 10**9 == spent
        assert sum(int(row["calls"]) for row in rows) == 60
        for row in rows:
            parts = [Decimal(row[f"{source.value}_usd"]) for source in ChargeSource]
            assert sum(parts) == Decimal(row["cost_usd"])
    assert cli.main(["ledger", "report", "--ledger", url]) == 0
    out = capsys.readouterr().out
    assert "rows and windows agree to the nano-dollar" in out
    for tenant in ("acme", "zeta"):
        own = Decimal(sum(cost for name, _, cost, _ in charges if name == tenant)) / 10**9
        months = [line for line in out.splitlines() if line.startswith(tenant) and "month" in line]
        assert [Decimal(line.split()[4]) for line in months] == [own]
    assert cli.main(["ledger", "report", "--ledger", url, "--by", "tenant", "--tenant", "acme", "--csv"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["acme"]


def test_an_invoice_that_agrees_exits_0_and_one_that_does_not_3_with_the_differences(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _spend(
        url,
        [
            ("acme", "big", 1_500_000_001, ChargeSource.REPORTED),
            ("zeta", "big", 500_000_000, ChargeSource.ESTIMATED),
            ("acme", "small", 7, ChargeSource.REPORTED),
        ],
    )
    today = _today()
    invoice = tmp_path / "invoice.csv"
    # An amount beyond the nano-dollar is kept; lines of one day and model add up; other columns are ignored.
    invoice.write_text(
        f"model,region,cost_usd,day\nbig-2026,eu,1.5,{today}\nbig-2026,us,0.500000001,{today}\n"
        f"small,eu,0.0000000070,{today}\n",
        encoding="utf-8",
    )
    command = ["ledger", "report", "--ledger", url, "--reconcile", str(invoice)]
    assert cli.main([*command, "--rename", "big-2026=big"]) == 0
    assert "0 of 2 lines differ" in capsys.readouterr().out
    assert cli.main([*command, "--csv"]) == 3
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["model"], row["ledger_usd"], row["of_it_unsure_usd"], row["invoice_usd"]) for row in rows] == [
        ("big", "2.000000001", "0.50", "0.00"),
        ("big-2026", "0.00", "0.00", "2.000000001"),
        ("small", "0.000000007", "0.00", "0.000000007"),
    ]
    assert [row["difference_usd"] for row in rows] == ["-2.000000001", "2.000000001", "0.00"]
    assert cli.main([*command, "--tolerance", "2.000000001"]) == 0
    assert cli.main([*command, "--tolerance", "2"]) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("day,model\n2026-11-10,big\n", r"invoice.csv:1: no column cost_usd: the header needs day, model, cost_usd"),
        (
            "day,model,cost_usd\n2026-11-10,big,1\n10.11.2026,big,1\n",
            "invoice.csv:3: day '10.11.2026': write YYYY",
        ),
        ("day,model,cost_usd\n2026-11-10,big,$1\n", "invoice.csv:2: cost_usd '$1': write a plain decimal"),
        ("day,model,cost_usd\n2026-11-10,big,nan\n", "invoice.csv:2: cost_usd 'nan': write a finite number"),
        ("day,model,cost_usd\n2026-11-10,,1\n", "invoice.csv:2: model: missing"),
        ("day,model,cost_usd\n2026-11-10\n", "invoice.csv:2: model: missing"),
        ("day,model,cost_usd\n", "no lines below the header"),
    ],
)
def test_an_invoice_that_cannot_be_used_is_named_by_line(
    sqlite_url: str, tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _spend(sqlite_url, [])
    invoice = tmp_path / "invoice.csv"
    invoice.write_text(text, encoding="utf-8")
    assert cli.main(["ledger", "report", "--ledger", sqlite_url, "--reconcile", str(invoice)]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ledger", "sqlite:/nowhere/ledger.db"], "/nowhere/ledger.db: no such file"),
        (["--ledger", "memory:"], "only that process can read it"),
        (["--ledger", "postgres://x"], "a ledger is"),
        (["--ledger", "redis://127.0.0.1:1/0"], "the ledger is unavailable: Redis"),
        (["--ledger", "memory:", "--by", "tenant,tenant"], "name each dimension once"),
        (["--ledger", "memory:", "--by", "team"], "--by 'team'"),
        (["--ledger", "memory:", "--from", "2026-11-02", "--to", "2026-11-01"], "is after"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ledger", "report", *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert complaint in err
    assert len(err.splitlines()) == 1


def test_without_a_url_it_is_the_dispatchers_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPATCHER_LEDGER", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert cli.main(["ledger", "report"]) == 2
    assert "ledger.sqlite: no such file" in capsys.readouterr().err
    _spend(default_url(os.environ), [("acme", "big", 100, ChargeSource.REPORTED)])
    assert cli.main(["ledger", "report"]) == 0
    assert "acme" in capsys.readouterr().out


def test_a_ledger_that_does_not_add_up_is_said_to(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _spend(sqlite_url, [("acme", "big", 100, ChargeSource.REPORTED)])
    with contextlib.closing(sqlite3.connect(sqlite_url.partition(":")[2])) as db:
        db.execute("UPDATE usage SET cost = 99")
        db.commit()
    assert cli.main(["ledger", "report", "--ledger", sqlite_url]) == 3
    assert "acme: rows of this month come to $0.000000099, its window has $0.0000001" in capsys.readouterr().err
