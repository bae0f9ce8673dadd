"""How much each tenant has asked for in the last minute: counted here, or in Redis for all dispatchers together.

The counting is the `limits` library's. When Redis cannot be asked, this process counts by itself for a while: a rate is
fairness, not money, and the ledger is what holds the budget. Each dispatcher then allows the whole rate.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import limits
import limits.errors
import limits.storage
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from dispatcher_service.breaker import Breaker
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds."""

_PREFIX = "pointsman-rates"
_TIMEOUT = 0.25
_COOLDOWN = 5.0
_MIN_RETRY = 0.05

Value = TypeVar("Value")


class Rates:
    """Takes requests and tokens from what tenants may have per minute."""

    def __init__(
        self,
        shared: Storage | None,
        *,
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shared` is the storage of all dispatchers, `None` to count here; `failed` is told of its failures."""
        self._shared = shared
        self._own = MemoryStorage()
        self._failed = failed
        self._breaker = Breaker(failures=1, cooldown=_COOLDOWN, clock=clock)

    async def take_request(self, tenant_id: str, per_minute: int) -> float | None:
        """Count one request in a sliding window.

        Returns:
            `None` if it was within the rate, else the seconds after which one may be.
        """
        item = limits.RateLimitItemPerMinute(per_minute, namespace="requests")

        async def take(storage: Storage) -> float | None:
            window = SlidingWindowCounterRateLimiter(storage)
            if await window.hit(item, tenant_id):
                return None
            return _until((await window.get_window_stats(item, tenant_id)).reset_time)

        return await self._counting(take)

    async def take_tokens(self, tenant_id: str, per_minute: int, count: int) -> float | None:
        """Count tokens in a window of a minute that begins with the first of them. Returns as `take_request`."""
        item = limits.RateLimitItemPerMinute(per_minute, namespace="tokens")

        async def take(storage: Storage) -> float | None:
            window = FixedWindowRateLimiter(storage)
            if await window.hit(item, tenant_id, cost=count):
                return None
            # The window has counted them all the same.
            await storage.incr(item.key_for(tenant_id), item.get_expiry(), amount=-count)
            return _until((await window.get_window_stats(item, tenant_id)).reset_time)

        return await self._counting(take)

    async def correct_tokens(self, tenant_id: str, per_minute: int, difference: int) -> None:
        """Count `difference` tokens more, or less, than were taken. Is never refused: they have been used."""
        item = limits.RateLimitItemPerMinute(per_minute, namespace="tokens")

        async def correct(storage: Storage) -> None:
            await storage.incr(item.key_for(tenant_id), item.get_expiry(), amount=difference)

        if difference:
            await self._counting(correct)

    async def close(self) -> None:
        """Close the connections of the shared storage."""
        bridge: Any = getattr(self._shared, "bridge", None)
        if bridge is not None:
            await bridge.get_connection().aclose()

    async def _counting(self, use: Callable[[Storage], Awaitable[Value]]) -> Value:
        if self._shared is None or not self._breaker.allow():
            return await use(self._own)
        try:
            value = await use(self._shared)
        except limits.errors.StorageError as error:
            self._breaker.failed()
            self._failed()
            logger.warning(
                "the rates' storage cannot be asked: counting in this process for a while",
                extra=fields(seconds=_COOLDOWN, problem=str(error.storage_error)),
            )
            return await use(self._own)
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return value


def open_rates(ledger_url: str, *, failed: Callable[[], None]) -> Rates:
    """Count where the ledger is, if that is Redis; else in this process.

    Args:
        ledger_url: see `DISPATCHER_LEDGER`.
        failed: told of each failure of Redis.
    """
    if not ledger_url.startswith(("redis://", "rediss://", "redis+cluster://")):
        return Rates(None, failed=failed)
    # Here, since a dispatcher without Redis needs not have its package.
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "implementation": "redispy",
        "key_prefix": _PREFIX,
        "wrap_exceptions": True,
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    shared = limits.storage.storage_from_string(f"async+{ledger_url}", **options)
    assert isinstance(shared, Storage)
    return Rates(shared, failed=failed)


def _until(reset_time: float) -> float:
    return min(max(reset_time - time.time(), _MIN_RETRY), WINDOW)
