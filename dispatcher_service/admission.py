"""Who gets in: the process's own limits first, then what the tenant may have per minute and at once.

Requests and calls at once are looked at at the door, before the request is read. Tokens are known only afterwards: a
layer around the use case takes the prompt's estimate before a call and corrects it by what was used. Replays of a
stored answer stay above that layer and take no tokens.
"""

import contextlib
import enum
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from dispatcher_service.catalogue import Catalogue
from dispatcher_service.chat import Request
from dispatcher_service.dispatch import Answer, Broken, Finished, StreamEvent
from dispatcher_service.errors import PointsmanError, RateLimited
from dispatcher_service.layers import Dispatching
from dispatcher_service.outcome import Bill, Choice
from dispatcher_service.overload import Overload
from dispatcher_service.pricing import estimate_usage
from dispatcher_service.rates import Rates

_CONCURRENCY_RETRY_SECONDS = 1.0


class Rate(enum.Enum):
    """What a tenant has too much of. Closed: a metric label."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENCY = "max_concurrent_requests"


Refused = Callable[[Rate], None]
"""Called once per refusal."""


class Admission:
    """The door."""

    def __init__(
        self, *, overload: Overload, rates: Rates, catalogue: Callable[[], Catalogue], refused: Refused
    ) -> None:
        """`catalogue` gives the configuration of this moment."""
        self._overload = overload
        self._rates = rates
        self._catalogue = catalogue
        self._refused = refused
        self._running: Counter[str] = Counter()

    def call(self, tenant_id: str, context: Any) -> AbstractAsyncContextManager[None]:
        """Lets one call of a configured tenant in when its turn comes, as long as the block runs.

        Raises:
            Overloaded: the process has too much to do.
            RateLimited: the tenant has asked for too much.
        """
        return _Call(self, tenant_id, self._overload.call(context))

    async def enter(self, tenant_id: str) -> None:
        """See `call`. Whoever got in must `leave`."""
        rates = self._catalogue().tenants[tenant_id].rates
        # No await between check and count: atomic on one event loop.
        if rates.max_concurrent_requests is not None and self._running[tenant_id] >= rates.max_concurrent_requests:
            raise _limited(self._refused, Rate.CONCURRENCY, rates.max_concurrent_requests, _CONCURRENCY_RETRY_SECONDS)
        self._running[tenant_id] += 1
        if rates.requests_per_minute is None:
            return
        try:
            wait = await self._rates.take_request(tenant_id, rates.requests_per_minute)
            if wait is not None:
                raise _limited(self._refused, Rate.REQUESTS, rates.requests_per_minute, wait)
        except BaseException:
            self.leave(tenant_id)
            raise

    def leave(self, tenant_id: str) -> None:
        """The call has ended."""
        self._running[tenant_id] -= 1
        if not self._running[tenant_id]:
            del self._running[tenant_id]


class _Call(AbstractAsyncContextManager[None]):
    """See `Admission.call`."""

    def __init__(self, door: Admission, tenant_id: str, counted: AbstractAsyncContextManager[None]) -> None:
        self._door = door
        self._tenant_id = tenant_id
        self._counted = counted

    async def __aenter__(self) -> None:
        await self._counted.__aenter__()
        try:
            await self._door.enter(self._tenant_id)
        except BaseException:
            await self._counted.__aexit__(None, None, None)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._door.leave(self._tenant_id)
        await self._counted.__aexit__(None, None, None)


class TokenRates:
    """A layer around the use case that holds tokens per minute; the methods are those of `dispatch.Dispatcher`."""

    def __init__(
        self, inner: Dispatching, *, rates: Rates, catalogue: Callable[[], Catalogue], refused: Refused
    ) -> None:
        self._inner = inner
        self._rates = rates
        self._catalogue = catalogue
        self._refused = refused

    async def route(self, request: Request) -> Choice:
        """A route uses no tokens."""
        return await self._inner.route(request)

    async def complete(self, request: Request) -> Answer:
        """See `dispatch.Dispatcher.complete`.

        Raises:
            RateLimited: the tenant has used its tokens of this minute.
        """
        per_minute = self._per_minute(request)
        if per_minute is None:
            return await self._inner.complete(request)
        async with self._taken(request, per_minute) as taken:
            answer = await self._inner.complete(request)
            taken.used = _tokens(answer.bill)
            return answer

    def stream(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """See `dispatch.Dispatcher.stream`. Errors as for `complete`."""
        per_minute = self._per_minute(request)
        return self._inner.stream(request) if per_minute is None else self._held(request, per_minute)

    def _per_minute(self, request: Request) -> int | None:
        policy = self._catalogue().tenants.get(request.tenant_id)
        return None if policy is None else policy.rates.tokens_per_minute

    async def _held(self, request: Request, per_minute: int) -> AsyncGenerator[StreamEvent, None]:
        async with (
            self._taken(request, per_minute) as taken,
            contextlib.aclosing(self._inner.stream(request)) as events,
        ):
            async for event in events:
                if isinstance(event, Finished) or (isinstance(event, Broken) and event.bill is not None):
                    taken.used = _tokens(event.bill)
                yield event

    @asynccontextmanager
    async def _taken(self, request: Request, per_minute: int) -> AsyncIterator["_Taken"]:
        taken = _Taken(estimate_usage(prompt_bytes=request.chat.text_bytes, answer_bytes=0).input_tokens)
        wait = await self._rates.take_tokens(request.tenant_id, per_minute, taken.estimate)
        if wait is not None:
            raise _limited(self._refused, Rate.TOKENS, per_minute, wait)
        try:
            yield taken
        except PointsmanError as error:
            if taken.used is None and not error.cost:
                taken.used = 0  # Nothing was called, or nothing is billed.
            raise
        finally:
            # Of a call that was given up the estimate stays.
            if taken.used is not None:
                await self._rates.correct_tokens(request.tenant_id, per_minute, taken.used - taken.estimate)


class _Taken:
    """Tokens that were taken for a call, and those that it used once that is known."""

    def __init__(self, estimate: int) -> None:
        self.estimate = estimate
        self.used: int | None = None


def _tokens(bill: Bill | None) -> int:
    return 0 if bill is None else bill.tokens


def _limited(refused: Refused, rate: Rate, limit: int, retry_after: float) -> RateLimited:
    refused(rate)
    return RateLimited(rate.value, limit=limit, retry_after=retry_after)
