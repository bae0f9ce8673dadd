"""Opens the ledger that a URL names."""

import time
from collections.abc import Mapping
from pathlib import Path

from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.ledger.sqlite import SqliteLedger


def default_url(environ: Mapping[str, str]) -> str:
    """The embedded ledger, which all dispatchers of a user share; its place follows the XDG base directories.

    Creates the directory.

    Raises:
        OSError: it cannot be created: nobody can write there, as in most containers.
    """
    state = environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
        directory = base / "pointsman"
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"is not set, and the default place cannot be used: {error}: set sqlite:FILE or redis://…"
        ) from error
    return f"sqlite:{directory / 'ledger.sqlite'}"


def open_ledger(url: str, *, timeout: float = 1.0) -> Ledger:
    """The ledger that a URL names.

    Args:
        url: `memory:`, `sqlite:PATH` (add `?durable=1` to survive power cuts), or `redis://…`, `rediss://…`,
            `redis+cluster://…`; for `valkey://` write `redis://`.
        timeout: seconds that a step may take before `LedgerUnavailable`.

    Raises:
        ValueError: no such kind of ledger.
        LedgerUnavailable: the SQLite file cannot be used. A Redis server is asked on first use.
    """
    kind, _, rest = url.partition(":")
    if kind == "memory":
        return MemoryLedger(time.time)
    if kind == "sqlite":
        path, _, options = rest.partition("?")
        return SqliteLedger(Path(path), clock=time.time, timeout=timeout, durable=options == "durable=1")
    if kind.partition("+")[0] in ("redis", "rediss"):
        # The `redis` extra is needed only here.
        from dispatcher_service.ledger.redis import RedisLedger, connect  # noqa: PLC0415

        return RedisLedger(connect(url, timeout=timeout), patience=timeout)
    raise ValueError(f"{kind}: a ledger is memory:, sqlite:PATH or redis://host:port/db")
