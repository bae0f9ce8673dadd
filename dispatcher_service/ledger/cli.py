"""`pointsman ledger`: what the ledger says was spent, as finance needs it, and beside an invoice."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from dispatcher_service.budget import format_usd
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger import report, report_tables
from dispatcher_service.ledger.contract import Ledger, UsageRow
from dispatcher_service.ledger.opening import default_url, open_ledger
from dispatcher_service.ledger.report import ReportError
from dispatcher_service.ledger.report_tables import Account

LEDGER_VARIABLE = "DISPATCHER_LEDGER"
DIFFERENT = 3
"""Exit code of a reconciliation with differences beyond the tolerance, and of a report that does not add up."""

_TRIES = 5


def add_commands(subparsers: Any) -> None:
    """Add `ledger` to an argparse subparsers object; it sets `run`, from the arguments to an exit code."""
    ledger = subparsers.add_parser("ledger", help="report what was spent; lay an invoice beside it")
    commands = ledger.add_subparsers(required=True, metavar="COMMAND", dest="ledger_command")
    parser = commands.add_parser("report", help="calls, cost and tokens; an invoice beside them; windows and overruns")
    parser.add_argument(
        "--ledger",
        default=os.environ.get(LEDGER_VARIABLE),
        help=f"sqlite:PATH or redis://host:port/db (default: ${LEDGER_VARIABLE}, or the dispatcher's own default)",
    )
    parser.add_argument(
        "--by", default="tenant,model,day", help="some of tenant,model,day,source (default: the first three)"
    )
    parser.add_argument("--from", dest="first", type=_day, help="first day, YYYY-MM-DD in UTC (default: of this month)")
    parser.add_argument("--to", dest="last", type=_day, help="last day, included (default: today)")
    parser.add_argument("--tenant", help="this tenant only")
    parser.add_argument("--csv", action="store_true", help="CSV on standard output instead of tables")
    parser.add_argument(
        "--reconcile",
        type=Path,
        metavar="INVOICE.csv",
        help="CSV with the columns day, model, cost_usd: show the differences by day and model",
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        type=_renaming,
        metavar="INVOICE=OURS",
        help="with --reconcile: a model's name on the invoice and in the catalogue; may be repeated",
    )
    parser.add_argument(
        "--tolerance",
        type=_amount,
        default=Decimal(0),
        metavar="USD",
        help="with --reconcile: a day and model may differ by so much (default: 0)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `ledger report`. Returns the exit code: 0, 1 what went wrong, 2 bad arguments, 3 differences."""
    try:
        return asyncio.run(_report(arguments))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except LedgerUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


async def _report(arguments: argparse.Namespace) -> int:
    by = report.parse_dimensions(arguments.by)
    invoice = None
    if arguments.reconcile is not None:
        invoice = report.read_invoice(arguments.reconcile, renamed=dict(arguments.rename))
    today = datetime.now(tz=UTC).date()
    first, last = invoice.days if invoice is not None else (today.replace(day=1), today)
    first, last = arguments.first or first, arguments.last or last
    if first > last:
        raise ReportError(f"--from {first} is after --to {last}")
    ledger = _open(arguments.ledger)
    try:
        if invoice is not None:
            rows = _of(arguments.tenant, await ledger.usage(first, last))
            return _show_differences(arguments, report.reconcile(rows, invoice))
        if arguments.csv:
            rows = _of(arguments.tenant, await ledger.usage(first, last))
            report_tables.write_rows(sys.stdout, by, report.group(rows, by))
            return 0
        return await _show(ledger, arguments, by, first, last)
    finally:
        await ledger.close()


def _open(url: str | None) -> Ledger:
    if not url:
        url = default_url(os.environ)
    kind, _, rest = url.partition(":")
    if kind == "memory":
        raise ReportError("memory: is a dispatcher's own memory: only that process can read it")
    path = rest.partition("?")[0]
    if kind == "sqlite" and not Path(path).is_file():
        raise ReportError(f"{path}: no such file: is this the ledger's path, seen from here?")
    try:
        return open_ledger(url, timeout=10.0)
    except ValueError as error:
        raise ReportError(str(error)) from error


def _of(tenant: str | None, rows: Sequence[UsageRow]) -> list[UsageRow]:
    return [row for row in rows if tenant is None or row.tenant_id == tenant]


async def _show(ledger: Ledger, arguments: argparse.Namespace, by: Sequence[str], first: date, last: date) -> int:
    """The report's tables, and whether its rows add up to the windows."""
    rows, month_rows, accounts, still = await _view(ledger, first, last)
    rows = _of(arguments.tenant, rows)
    print(f"{first} to {last} (UTC)\n")
    print(report_tables.rows(by, report.group(rows, by), report.total(rows)))
    accounts = [account for account in accounts if arguments.tenant in (None, account.tenant_id)]
    if accounts:
        print(f"\nwindows of this moment\n\n{report_tables.windows(accounts)}")
        print(f"\nlimits that were passed since the ledger began, by cause\n\n{report_tables.overruns(accounts)}")
    if not still:
        print("\ndispatchers were spending all the while: rows and windows are of different moments, and not compared")
        return 0
    return _check(month_rows, accounts)


async def _view(ledger: Ledger, first: date, last: date) -> tuple[list[UsageRow], list[UsageRow], list[Account], bool]:
    """Rows of the days, rows of this month, accounts, and whether all are of one moment: nothing was spent between."""
    for _ in range(_TRIES):
        before = await _accounts(ledger)
        rows = await ledger.usage(first, last)
        start = before[0].balances[2].window.start if before else 0
        month = datetime.fromtimestamp(start, tz=UTC).date()
        month_rows = await ledger.usage(month, month + timedelta(days=31))
        after = await _accounts(ledger)
        if _spent(before) == _spent(after):
            break
    else:
        return rows, [], after, False
    return rows, [row for row in month_rows if row.day.month == month.month], after, True


async def _accounts(ledger: Ledger) -> list[Account]:
    everyone = await ledger.usage(date(1970, 1, 1), date(9999, 12, 30))
    names = sorted({row.tenant_id for row in everyone})
    return [Account(name, await ledger.balances(name), await ledger.overruns(name)) for name in names]


def _spent(accounts: Iterable[Account]) -> list[tuple[str, list[int]]]:
    return [(account.tenant_id, [balance.spent for balance in account.balances]) for account in accounts]


def _check(month_rows: Sequence[UsageRow], accounts: Sequence[Account]) -> int:
    """Whether rows add up to the windows; says so."""
    wrong = 0
    for account in accounts:
        day, month = account.balances[1], account.balances[2]
        today = datetime.fromtimestamp(day.window.start, tz=UTC).date()
        own = _of(account.tenant_id, month_rows)
        for name, spent, rows in (("day", day.spent, [r for r in own if r.day == today]), ("month", month.spent, own)):
            booked = sum(row.cost for row in rows)
            if booked != spent:
                wrong += 1
                print(
                    f"error: {account.tenant_id}: rows of this {name} come to ${format_usd(booked)}, its window has "
                    f"${format_usd(spent)}: was the ledger changed by hand?",
                    file=sys.stderr,
                )
    if wrong:
        return DIFFERENT
    if accounts:
        print("\nrows and windows agree to the nano-dollar, today and this month")
    return 0


def _show_differences(arguments: argparse.Namespace, differences: Sequence[report.Difference]) -> int:
    beyond = [found for found in differences if abs(found.difference) > arguments.tolerance]
    if arguments.csv:
        report_tables.write_differences(sys.stdout, differences)
    else:
        print(report_tables.differences(differences))
        print(f"\n{len(beyond)} of {len(differences)} lines differ by more than ${arguments.tolerance:f}")
    return DIFFERENT if beyond else 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: write YYYY-MM-DD") from None


def _renaming(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"{text!r}: write the invoice's name, '=', and the catalogue's name")
    return theirs, ours


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount: write USD, such as 0.01") from None
    if not amount >= 0:
        raise argparse.ArgumentTypeError("write an amount of at least 0")
    return amount
