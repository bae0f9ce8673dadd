"""The cost report as values: rows grouped as finance wants them, and an invoice laid beside them. Exact throughout.

Amounts of the ledger are integer nano-USD; those of an invoice are decimals of any precision. No float takes part.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path

from dispatcher_service.ledger.contract import TOKEN_CLASSES, ChargeSource, UsageRow
from dispatcher_service.pricing import NANO_USD_PER_USD, NanoUsd

DIMENSIONS = ("tenant", "model", "day", "source")
"""What rows can be grouped by."""

INVOICE_COLUMNS = ("day", "model", "cost_usd")
"""What an invoice needs; others are ignored."""

_DIGITS = 60
"""Of precision for sums of decimals: far more than amounts have."""


class ReportError(Exception):
    """A dimension or an invoice that cannot be used. The message names the file, the line and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One line of the report.

    Attributes:
        key: the values of the dimensions that were asked for, in their order.
        calls: upstream calls that were charged.
        cost: nano-USD, of all sources.
        by_source: the part of the cost by how far it is to be trusted; every source is there.
        tokens: by class.
    """

    key: tuple[str, ...]
    calls: int
    cost: NanoUsd
    by_source: Mapping[ChargeSource, NanoUsd]
    tokens: Mapping[str, int]


def parse_dimensions(text: str) -> tuple[str, ...]:
    """`tenant,model,day` to its parts; each at most once.

    Raises:
        ReportError: one is unknown, or stands twice.
    """
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in DIMENSIONS:
            raise ReportError(f"--by {name!r}: write some of {', '.join(DIMENSIONS)}, with commas between them")
    if len(set(names)) != len(names):
        raise ReportError(f"--by {text}: name each dimension once")
    return names


def group(rows: Iterable[UsageRow], by: Sequence[str]) -> list[ReportRow]:
    """The ledger's rows summed up, one per combination of the dimensions, in their order."""
    groups: dict[tuple[str, ...], list[UsageRow]] = {}
    for row in rows:
        values = {"tenant": row.tenant_id, "model": row.model, "day": row.day.isoformat(), "source": row.source.value}
        groups.setdefault(tuple(values[name] for name in by), []).append(row)
    return [_sum(key, groups[key]) for key in sorted(groups)]


def total(rows: Iterable[UsageRow]) -> ReportRow:
    """All rows in one."""
    return _sum((), list(rows))


def _sum(key: tuple[str, ...], rows: Sequence[UsageRow]) -> ReportRow:
    return ReportRow(
        key=key,
        calls=sum(row.calls for row in rows),
        cost=sum(row.cost for row in rows),
        by_source={source: sum(row.cost for row in rows if row.source is source) for source in ChargeSource},
        tokens={name: sum(row.tokens[name] for row in rows) for name in TOKEN_CLASSES},
    )


@dataclass(frozen=True, slots=True)
class Invoice:
    """What an upstream bills: USD by day and model."""

    amounts: Mapping[tuple[date, str], Decimal]

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day."""
        days = [day for day, _ in self.amounts]
        return min(days), max(days)


def read_invoice(path: Path, *, renamed: Mapping[str, str]) -> Invoice:
    """Read a CSV file with a header line and the columns `day` (YYYY-MM-DD, UTC), `model` and `cost_usd`.

    Lines of one day and model are added up. `renamed` gives the catalogue's names of models by the invoice's.

    Raises:
        ReportError: the file cannot be read, a column is missing, or a line cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in INVOICE_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ReportError(
                    f"{path}:1: no column {', '.join(missing)}: the header needs {', '.join(INVOICE_COLUMNS)}"
                )
            amounts: dict[tuple[date, str], Decimal] = {}
            for line in reader:
                day, model, amount = _invoice_line(line, f"{path}:{reader.line_num}")
                key = day, renamed.get(model, model)
                with localcontext(prec=_DIGITS):
                    amounts[key] = amounts.get(key, Decimal(0)) + amount
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error
    if not amounts:
        raise ReportError(f"{path}: no lines below the header")
    return Invoice(amounts)


def _invoice_line(line: Mapping[str, str | None], where: str) -> tuple[date, str, Decimal]:
    day, model, cost = (str(line[name] or "").strip() for name in INVOICE_COLUMNS)
    try:
        parsed_day = date.fromisoformat(day)
    except ValueError as error:
        raise ReportError(f"{where}: day {day!r}: write YYYY-MM-DD") from error
    if not model:
        raise ReportError(f"{where}: model: missing")
    try:
        amount = Decimal(cost)
    except InvalidOperation as error:
        raise ReportError(f"{where}: cost_usd {cost!r}: write a plain decimal number such as 12.50") from error
    if not amount.is_finite():
        raise ReportError(f"{where}: cost_usd {cost!r}: write a finite number")
    return parsed_day, model, amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A day and a model, as the ledger and as the invoice have it; 0 where one of them has nothing.

    Attributes:
        ledger: USD, exact.
        unsure: the part of it that is estimated or expired, where a difference is to be expected.
        invoice: USD, exact.
    """

    day: date
    model: str
    ledger: Decimal
    unsure: Decimal
    invoice: Decimal

    @property
    def difference(self) -> Decimal:
        """Invoice minus ledger, exact."""
        with localcontext(prec=_DIGITS):
            return self.invoice - self.ledger


def reconcile(rows: Iterable[UsageRow], invoice: Invoice) -> list[Difference]:
    """Every day and model of either side, by day and model."""
    costs: dict[tuple[date, str], list[NanoUsd]] = {}
    for row in rows:
        cost = costs.setdefault((row.day, row.model), [0, 0])
        cost[0] += row.cost
        cost[1] += row.cost if row.source is not ChargeSource.REPORTED else 0
    return [
        Difference(
            day=day,
            model=model,
            ledger=usd(costs.get((day, model), [0, 0])[0]),
            unsure=usd(costs.get((day, model), [0, 0])[1]),
            invoice=invoice.amounts.get((day, model), Decimal(0)),
        )
        for day, model in sorted({*costs, *invoice.amounts})
    ]


def usd(amount: NanoUsd) -> Decimal:
    """An exact amount in US dollars."""
    with localcontext(prec=_DIGITS):
        return Decimal(amount) / NANO_USD_PER_USD


def total_of(amounts: Iterable[Decimal]) -> Decimal:
    """Their exact sum."""
    with localcontext(prec=_DIGITS):
        return sum(amounts, Decimal(0))
