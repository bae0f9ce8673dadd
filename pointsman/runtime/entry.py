"""What both `__main__` modules do first: print help, read settings, set up logs, and end with one line on failure."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pointsman.runtime import logs
from pointsman.runtime.settings import SettingsError, describe, load
from pointsman.runtime.starting import StartError

Settings = TypeVar("Settings", bound=Any)


def run(
    cls: type[Settings],
    *,
    prefix: str,
    about: str,
    argv: list[str],
    environ: Mapping[str, str],
    main: Callable[[Settings], Awaitable[int | None]],
) -> int:
    """Run a service until it stops.

    `cls` must have `log_level` and `log_style`. Every failure to start is one line on standard error.

    Returns:
        The exit code: what `main` returns (`None` is 0: a drain), 2 for a bad setting or argument, 1 for any other
        failure to start.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(f"{about}\n\nSettings (environment variables):\n{describe(cls, prefix)}")  # noqa: T201
        return 0
    if argv:
        return _fail(f"unknown argument {argv[0]!r}; settings come from the environment, --help lists them", 2)
    try:
        settings = load(cls, prefix, environ)
    except SettingsError as error:
        return _fail(str(error), 2)
    logs.configure(settings.log_level, settings.log_style)
    try:
        return asyncio.run(_as_coroutine(main(settings))) or 0
    except StartError as error:
        return _fail(str(error), 1)


async def _as_coroutine(awaitable: Awaitable[int | None]) -> int | None:
    return await awaitable


def _fail(line: str, code: int) -> int:
    print(f"error: {line}", file=sys.stderr)  # noqa: T201
    return code
