"""The ledger's backends under one clock that tests turn by hand."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dispatcher_service.budget import Limit, Period
from dispatcher_service.ledger.contract import Attempt, Charge, ChargeSource, Ledger, Refusal, Reservation
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.ledger.redis import RedisLedger, connect
from dispatcher_service.ledger.sqlite import SqliteLedger
from tests.valkey import ValkeyServer

NOON = datetime(2026, 11, 10, 12, 0, tzinfo=UTC).timestamp()


class ManualClock:
    """Seconds since the epoch; stands still until it is moved.

    It begins half a second past noon: a server's clock, shifted to this one, differs from it by a millisecond or so.
    """

    def __init__(self) -> None:
        self.now = NOON + 0.5

    def __call__(self) -> float:
        return self.now

    def shift(self) -> float:
        """What to add to the clock of a server on this host to get this one."""
        return self.now - time.time()


@dataclass(frozen=True)
class Backend:
    """A kind of ledger. `open` opens the same book each time; `memory` has no book to open again."""

    name: str
    clock: ManualClock
    open: Callable[[], Ledger]


@contextlib.contextmanager
def backend(kind: str, folder: Path, valkey: Callable[[], ValkeyServer]) -> Iterator[Backend]:
    """A backend with an empty book."""
    clock = ManualClock()
    if kind == "memory":
        memory = MemoryLedger(clock)
        yield Backend(kind, clock, lambda: memory)
    elif kind == "sqlite":
        yield Backend(kind, clock, lambda: SqliteLedger(folder / "ledger.db", clock=clock))
    else:
        server = valkey()
        asyncio.run(_flush(server))
        yield Backend(kind, clock, lambda: RedisLedger(connect(server.url), clock_shift=clock.shift))


async def _flush(server: ValkeyServer) -> None:
    client = connect(server.url)
    await client.flushall()
    await client.aclose()


def attempt(id_: str, worst_case: int = 100, **changes: object) -> Attempt:
    """An attempt of tenant `acme` without limits; `changes` are other fields, or `hour`, `day`, `month` limits."""
    limits = tuple(Limit(period, int(str(changes.pop(period.value)))) for period in Period if period.value in changes)
    plain = Attempt(
        id=id_,
        tenant_id="acme",
        model="gpt-strong",
        worst_case=worst_case,
        estimate=worst_case // 2,
        limits=limits,
        lifetime=60.5,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def charge(cost: int, **tokens: int) -> Charge:
    return Charge(cost=cost, source=ChargeSource.REPORTED, tokens=tokens)


async def granted(ledger: Ledger, wanted: Attempt) -> Reservation:
    """Reserve what must be granted."""
    result = await ledger.reserve(wanted)
    assert isinstance(result, Reservation), result
    return result


async def refused(ledger: Ledger, wanted: Attempt) -> Refusal:
    """Reserve what must be refused."""
    result = await ledger.reserve(wanted)
    assert isinstance(result, Refusal), result
    return result
