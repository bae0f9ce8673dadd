"""The commands `demo` and `run`."""

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def add_commands(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets `run`, from the arguments to an exit code."""
    demo = subparsers.add_parser("demo", help="route real prompts as two tenants and show what it cost")
    demo.set_defaults(run=_demo)
    run = subparsers.add_parser("run", help="the same services, up until Ctrl-C")
    run.set_defaults(run=_run)


def _demo(_: argparse.Namespace) -> int:
    # Imported here: `pointsman --help` needs neither gRPC nor rich.
    from apps.demo.show import demo, terminal

    return until_signal(lambda: demo(terminal(), os.environ), interrupted=INTERRUPTED)


def _run(_: argparse.Namespace) -> int:
    from apps.demo.show import run, terminal

    # Being stopped is how it ends.
    return until_signal(lambda: run(terminal(), os.environ), interrupted=0)


def until_signal(main: Callable[[], Awaitable[int]], *, interrupted: int) -> int:
    """Run `main`; SIGINT, SIGTERM and SIGHUP cancel it, so that its children are stopped whichever way we end."""

    async def guarded() -> int:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await main()

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        return interrupted
