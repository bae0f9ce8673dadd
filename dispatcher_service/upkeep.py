"""What a ledger needs although nobody calls: expiring what was left behind, and telling metrics how accounts stand.

Windows end by themselves: without this the gauges of a tenant that fell silent would show yesterday's spending.
"""

import asyncio
import logging
from collections.abc import Callable

from dispatcher_service.catalogue import Catalogue, StrongCallShare
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.contract import Ledger, Overrun, OverrunCause
from dispatcher_service.ports import BudgetObserver
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 15.0


class Upkeep:
    """Looks after a ledger. Several dispatchers may do so at once."""

    def __init__(self, ledger: Ledger, *, catalogue: Callable[[], Catalogue], observe: BudgetObserver) -> None:
        self._ledger = ledger
        self._catalogue = catalogue
        self._observe = observe

    async def run(self, interval: float = INTERVAL_SECONDS) -> None:
        """Once now, then every `interval` seconds, until it is cancelled."""
        away = False
        while True:
            try:
                await self.once()
                away = False
            except LedgerUnavailable as error:
                if not away:
                    logger.warning("the ledger is away", extra=fields(error=str(error)))
                away = True
            except Exception:
                logger.exception("upkeep of the ledger failed")
            await asyncio.sleep(interval)

    async def once(self) -> None:
        """One round.

        Raises:
            LedgerUnavailable: the ledger cannot be reached or trusted.
        """
        tenants = self._catalogue().tenants
        self._observe.shares({t: p.dial.share for t, p in tenants.items() if isinstance(p.dial, StrongCallShare)})
        expired = await self._ledger.expire()
        if expired:
            logger.warning("reservations expired: a dispatcher was killed, or is stuck", extra=fields(count=expired))
            self._observe.expired(expired)
        totals = dict.fromkeys(OverrunCause, Overrun(0, 0))
        for tenant_id, policy in tenants.items():
            if not policy.limits:
                continue
            self._observe.balances(tenant_id, policy.limits, await self._ledger.balances(tenant_id), 0)
            for cause, overrun in (await self._ledger.overruns(tenant_id)).items():
                known = totals[cause]
                totals[cause] = Overrun(known.count + overrun.count, known.amount + overrun.amount)
        self._observe.overruns(totals)
