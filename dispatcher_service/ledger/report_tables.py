"""The cost report as text: tables for people, CSV for spreadsheets. Amounts keep all their digits."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TextIO

from dispatcher_service.budget import format_usd
from dispatcher_service.ledger.contract import TOKEN_CLASSES, Balances, ChargeSource, Overrun, OverrunCause
from dispatcher_service.ledger.report import Difference, ReportRow, total_of

_COLUMNS = ("calls", "cost_usd", *(f"{source.value}_usd" for source in ChargeSource), *TOKEN_CLASSES)
_DIFFERENCES = ("day", "model", "ledger_usd", "of_it_unsure_usd", "invoice_usd", "difference_usd")


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's windows of one moment, and its overruns since the ledger began."""

    tenant_id: str
    balances: Balances
    overruns: Mapping[OverrunCause, Overrun]


def rows(by: Sequence[str], found: Sequence[ReportRow], total: ReportRow) -> str:
    """The report's rows, by the dimensions `by`, above their total."""
    last = ["total", *[""] * (len(by) - 1), *_numbers(total)]
    return _table([*by, *_COLUMNS], [*([*row.key, *_numbers(row)] for row in found), last], left=len(by))


def write_rows(file: TextIO, by: Sequence[str], found: Iterable[ReportRow]) -> None:
    """The same as CSV, without a total."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*by, *_COLUMNS])
    writer.writerows([*row.key, *_numbers(row)] for row in found)


def windows(accounts: Iterable[Account]) -> str:
    """Every tenant's hour, day and month."""
    lines = [
        [
            account.tenant_id,
            balance.window.period.value,
            f"{datetime.fromtimestamp(balance.window.start, tz=UTC):%Y-%m-%d %H:%M}",
            format_usd(balance.spent),
            format_usd(balance.reserved),
        ]
        for account in accounts
        for balance in account.balances
    ]
    return _table(["tenant", "window", "from", "spent_usd", "reserved_usd"], lines, left=3)


def overruns(accounts: Iterable[Account]) -> str:
    """Every tenant's counters."""
    lines = [
        [account.tenant_id, cause.value, str(overrun.count), format_usd(overrun.amount)]
        for account in accounts
        for cause, overrun in account.overruns.items()
    ]
    return _table(["tenant", "cause", "times", "in_all_usd"], lines, left=2)


def differences(found: Sequence[Difference]) -> str:
    """Ledger beside invoice, above their totals."""
    sums = [total_of(column) for column in zip(*(_amounts(line) for line in found), strict=True)]
    last = ["total", "", *map(_plain, sums)]
    return _table(_DIFFERENCES, [*map(_difference, found), last], left=2)


def write_differences(file: TextIO, found: Iterable[Difference]) -> None:
    """The same as CSV, without totals."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_DIFFERENCES)
    writer.writerows(map(_difference, found))


def _numbers(row: ReportRow) -> list[str]:
    costs = [row.cost, *(row.by_source[source] for source in ChargeSource)]
    return [str(row.calls), *map(format_usd, costs), *(str(row.tokens[name]) for name in TOKEN_CLASSES)]


def _difference(line: Difference) -> list[str]:
    return [line.day.isoformat(), line.model, *map(_plain, _amounts(line))]


def _amounts(line: Difference) -> tuple[Decimal, ...]:
    return line.ledger, line.unsure, line.invoice, line.difference


def _plain(amount: Decimal) -> str:
    """All its digits, no exponent, at least two decimals."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Columns as wide as their cells: the first `left` of them flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    text = []
    for line in (header, ["-" * width for width in widths], *lines):
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)
