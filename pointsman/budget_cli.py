"""`pointsman budget`: how budgets stand, and changing policies at run time, over the dispatcher's BudgetService."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointsman._budgets import Budget, BudgetClient, Policy

_Action = Callable[..., Coroutine[Any, Any, None]]
"""From the arguments and a client to what it prints."""

CREDENTIAL_VARIABLE = "POINTSMAN_CREDENTIAL"

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_KINDS = {"weak": "all_weak", "strong": "all_strong", "off": "model_off", "none": ""}


def add_commands(subparsers: Any) -> None:
    """Add `budget` to an argparse subparsers object; it sets `run`, from the arguments to an exit code."""
    budget = subparsers.add_parser("budget", help="how budgets stand; change policies at run time")
    commands = budget.add_subparsers(required=True, metavar="COMMAND", dest="budget_command")

    show = _command(commands, "show", "spent, reserved and left, of one tenant or of all", _show)
    show.add_argument("tenant", nargs="?", help="(default: all)")

    policy = _command(
        commands, "policy", "every value of a policy with its source, overrides, and the audit trail", _policy
    )
    policy.add_argument("tenant")

    change = _command(commands, "set", "change values of a policy, for good", _set)
    change.add_argument("tenant")
    change.add_argument("values", nargs="*", type=_assignment, metavar="KEY=VALUE", help="such as usd_per_day=20")
    change.add_argument("--unset", action="append", default=[], metavar="KEY", help="take away what the file sets")
    change.add_argument("--reset", action="append", default=[], metavar="KEY", help="leave it to the file again")
    _audit(change)

    override = _command(commands, "override", "turn a tenant, or all, for a while", _override)
    override.add_argument("kind", choices=list(_KINDS), help="all weak, all strong, a model off, or none any more")
    override.add_argument("model", nargs="?", default="", help="to turn off")
    override.add_argument("--tenant", default="", help="(default: all tenants)")
    override.add_argument("--for", dest="lifetime", type=_lifetime, metavar="TIME", help="such as 30m, 2h or 7d")
    _audit(override)


def _command(commands: Any, name: str, about: str, run: _Action) -> Any:
    parser = commands.add_parser(name, help=about)
    parser.add_argument("--address", default="127.0.0.1:50052", help="the dispatcher's gRPC target")
    parser.add_argument("--ca", type=Path, help="PEM file to trust the dispatcher by; default: in the clear")
    parser.add_argument(
        "--as",
        dest="caller",
        default="",
        metavar="TENANT",
        help="whom to call as, at a dispatcher without authentication",
    )
    parser.set_defaults(run=lambda arguments: _run(arguments, run))
    return parser


def _audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why, for the audit trail")
    parser.add_argument("--author", default="", help="for whom, where that is not whose credential it is")


def _run(
    arguments: argparse.Namespace, run: "Callable[[argparse.Namespace, BudgetClient], Coroutine[Any, Any, None]]"
) -> int:
    from pointsman._budgets import BudgetClient
    from pointsman.client import ClientTls, PointsmanCallError

    async def call() -> None:
        tls = None if arguments.ca is None else ClientTls(ca=arguments.ca)
        credential = os.environ.get(CREDENTIAL_VARIABLE, "")
        async with BudgetClient(arguments.address, credential=credential, tenant=arguments.caller, tls=tls) as client:
            await run(arguments, client)

    try:
        asyncio.run(call())
    except PointsmanCallError as error:
        hint = f" (set ${CREDENTIAL_VARIABLE}, or --as TENANT where the dispatcher runs without authentication)"
        print(f"error: {error}{hint if error.reason == 'UNAUTHENTICATED' else ''}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


async def _show(arguments: argparse.Namespace, client: "BudgetClient") -> None:
    budgets = await client.budgets() if arguments.tenant is None else [await client.budget(arguments.tenant)]
    header = ["tenant", "window", "ends (UTC)", "spent_usd", "reserved_usd", "limit_usd", "left_usd"]
    _print_table(header, [row for budget in budgets for row in _rows(budget)], left=3)
    for budget in budgets:
        for cause, (count, amount) in budget.overruns.items():
            if count:
                print(f"{budget.tenant_id}: limits were passed {count} times, by ${amount:f} in all: {cause}")


def _rows(budget: "Budget") -> list[list[str]]:
    return [
        [budget.tenant_id, window.period, _time(window.end), _usd(window.spent_usd), _usd(window.reserved_usd),
         _usd(window.limit_usd), _usd(window.left_usd)]
        for window in budget.windows
    ]  # fmt: skip


async def _policy(arguments: argparse.Namespace, client: "BudgetClient") -> None:
    _print_policy(await client.policy(arguments.tenant))


async def _set(arguments: argparse.Namespace, client: "BudgetClient") -> None:
    _print_policy(
        await client.set_policy(
            arguments.tenant,
            dict(arguments.values),
            unset=arguments.unset,
            reset=arguments.reset,
            reason=arguments.reason,
            author=arguments.author,
        )
    )


async def _override(arguments: argparse.Namespace, client: "BudgetClient") -> None:
    kind = _KINDS[arguments.kind]
    if not kind:
        policy = await client.clear_overrides(
            tenant_id=arguments.tenant, reason=arguments.reason, author=arguments.author
        )
    elif arguments.lifetime is None:
        raise ValueError("--for: say how long, such as 2h: what is to last is for `pointsman budget set`")
    else:
        policy = await client.override(
            kind,
            tenant_id=arguments.tenant,
            model=arguments.model,
            lifetime=arguments.lifetime,
            reason=arguments.reason,
            author=arguments.author,
        )
    _print_policy(policy)


def _print_policy(policy: "Policy") -> None:
    if policy.values:
        rows = [
            [value.key, json.dumps(value.value), value.source, "" if value.change is None else value.change.author]
            for value in policy.values.values()
        ]
        _print_table(["key", "value", "source", "by"], rows, left=4)
    for problem in policy.problems:
        print(f"not in force: {problem}")
    for override in policy.overrides:
        whom = "all tenants" if override.for_everyone else "this tenant"
        model = f" {override.model}" if override.model else ""
        print(
            f"override for {whom}: {override.kind}{model} until {_time(override.expires_at)}, "
            f"by {override.change.author}: {override.change.reason}"
        )
    for change in policy.history:
        print(f"{_time(change.at)}  {change.author}: {change.summary} ({change.reason})")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _usd(amount: Decimal | None) -> str:
    """All its digits, at least two decimals."""
    if amount is None:
        return ""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE, such as strong_call_share=0.2")
    try:
        # Numbers keep their digits, since amounts are exact.
        return key, json.loads(value, parse_float=lambda digits: Decimal(digits) if "usd" in key else float(digits))
    except ValueError:
        return key, value  # a word, such as on_exhausted=reject


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number and m, h or d, such as 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
