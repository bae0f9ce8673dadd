"""`pointsman decisions`: what is kept of a tenant's requests, as JSON lines for training and for people."""

import argparse
import asyncio
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dispatcher_service.errors import LedgerUnavailable

LEDGER_VARIABLE = "DISPATCHER_LEDGER"


def add_commands(subparsers: Any) -> None:
    """Add `decisions` to an argparse subparsers object; it sets `run`, from the arguments to an exit code."""
    decisions = subparsers.add_parser("decisions", help="export what is kept of a tenant's requests")
    commands = decisions.add_subparsers(required=True, metavar="COMMAND", dest="decisions_command")
    parser = commands.add_parser(
        "export", help="one DecisionRecord per line, with its text and feedback where they are kept"
    )
    parser.add_argument(
        "--ledger",
        default=os.environ.get(LEDGER_VARIABLE),
        help=f"sqlite:PATH or redis://host:port/db (default: ${LEDGER_VARIABLE})",
    )
    parser.add_argument("--tenant", required=True, help="whose")
    parser.add_argument("--out", type=Path, help="file to write (default: standard output)")
    parser.add_argument("--with-text", action="store_true", help="only records whose text is kept")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.ledger or arguments.ledger.startswith("memory:"):
        return _fail("--ledger: name the dispatchers' ledger, sqlite:PATH or redis://host:port/db")
    try:
        count = asyncio.run(_export(arguments.ledger, arguments.tenant, arguments.out, arguments.with_text))
    except (ValueError, LedgerUnavailable) as error:
        return _fail(f"--ledger {arguments.ledger}: {error}")
    except OSError as error:
        return _fail(f"--out {arguments.out}: {error.strerror}")
    print(f"{count} records of tenant {arguments.tenant}", file=sys.stderr)
    return 0


async def _export(url: str, tenant_id: str, out: Path | None, with_text: bool) -> int:
    # Imported here: `pointsman --help` needs no package of its commands.
    from dispatcher_service.ledger.opening import open_ledger
    from dispatcher_service.records import messages
    from dispatcher_service.records.store import RecordStore

    ledger = open_ledger(url)
    store = RecordStore(ledger, retention=0)
    count = 0
    try:
        with nullcontext(sys.stdout) if out is None else out.open("w", encoding="utf-8") as file:
            async for record in store.all(tenant_id):
                if with_text and not record.HasField("text"):
                    continue
                file.write(messages.line(record) + "\n")
                count += 1
    finally:
        await ledger.close()
    return count


def _fail(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 1
