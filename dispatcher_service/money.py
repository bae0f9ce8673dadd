"""The parts around a ledger, put together: booking, pacing, and what both need done in the background."""

import asyncio
import time
from collections.abc import Callable

from dispatcher_service import tasks
from dispatcher_service.booking import Book
from dispatcher_service.budget_metrics import BudgetMetrics
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.pacer import LedgerPacer
from dispatcher_service.upkeep import Upkeep

_LAST_WRITES_SECONDS = 5.0


class Money:
    """One per process. The ledger itself is opened and closed by others, who use it too."""

    def __init__(
        self, ledger: Ledger, *, catalogue: Callable[[], Catalogue], metrics: BudgetMetrics, drain: float
    ) -> None:
        """`drain` as for `booking.Book`."""
        self.book = Book(ledger, observe=metrics, clock=time.monotonic, wall_clock=time.time, drain=drain)
        self.pacer = LedgerPacer(
            ledger,
            clock=time.monotonic,
            wall_clock=time.time,
            observe=metrics.paced,
            called=metrics.ledger_called,
        )
        self._upkeep = Upkeep(ledger, catalogue=catalogue, observe=metrics)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin the background work."""
        self._tasks = [asyncio.create_task(self._upkeep.run()), asyncio.create_task(self.pacer.run())]

    async def close(self) -> None:
        """Write what is still to be written, for a few seconds at most."""
        await tasks.end(self._tasks)
        await self.book.close(_LAST_WRITES_SECONDS)
        await self.pacer.close(_LAST_WRITES_SECONDS)
