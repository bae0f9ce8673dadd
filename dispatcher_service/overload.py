"""When the whole process has too much to do: calls are refused before their body is read.

Three things are looked at, since each is blind to what another sees:

- *calls* under way: bounds memory, and the work that may wake up at once;
- *lag* of the event loop: how long what is ready has to wait. It also sees what has not reached a handler yet, where a
  count of running handlers is still low;
- *age* of one call: how long it waited before its handler began, below and before the event loop. gRPC shows only what
  is left of a caller's deadline, so that the age is known of callers who say what they gave (`x-pointsman-timeout`, as
  our client does). Who says too much is only refused sooner.
"""

import asyncio
import enum
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from dispatcher_service.errors import Overloaded
from dispatcher_service.statuses import to_status

TIMEOUT_KEY = "x-pointsman-timeout"
"""Metadata entry: the deadline that the caller gave this call, in seconds."""

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]  # Generic for type checkers only.

_SAMPLE_SECONDS = 0.05
_REMEMBERED = 4
"""Samples. A peak counts for a fifth of a second: long enough that a burst is not let in between two others."""

_RETRY_SECONDS = (0.5, 1.5)
"""Callers who were refused together should not come back together."""


class Cause(enum.Enum):
    """Why a call was refused. Closed: a metric label."""

    CALLS = "calls"
    LAG = "lag"
    AGE = "age"


class LoopLag:
    """How far the event loop is behind, in seconds: a task that wakes up at a fixed pace, and is late by that much."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._due = clock() + _SAMPLE_SECONDS
        self._late: deque[float] = deque([0.0], maxlen=_REMEMBERED)

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self._due = self._clock() + _SAMPLE_SECONDS
            await asyncio.sleep(_SAMPLE_SECONDS)
            self._late.append(max(self._clock() - self._due, 0.0))

    def seconds(self) -> float:
        """The largest of the last fifth of a second, and of the sample that is overdue now."""
        return max(*self._late, self._clock() - self._due)


class Overload:
    """Whether the process takes another call."""

    def __init__(
        self,
        *,
        max_calls: int,
        max_backlog: float,
        lag: Callable[[], float],
        refused: Callable[[Cause], None],
    ) -> None:
        """All state belongs to one event loop.

        Args:
            max_calls: that may be under way.
            max_backlog: seconds of lag or age beyond which calls are refused.
            lag: see `LoopLag.seconds`.
            refused: told of each refusal.
        """
        self._max_calls = max_calls
        self._max_backlog = max_backlog
        self._lag = lag
        self._refused = refused
        self._calls = 0

    def check(self) -> None:
        """Pass if there is room for a call that is just arriving.

        Raises:
            Overloaded: there is none.
        """
        if self._calls >= self._max_calls:
            raise self._refuse(Cause.CALLS)
        if self._lag() > self._max_backlog:
            raise self._refuse(Cause.LAG)

    def call(self, context: Any) -> AbstractContextManager[None]:
        """Counts a call as long as the block runs.

        Raises:
            Overloaded: others took the room since `check`, or the call has waited too long already.
        """
        return _Call(self, context)

    def enter(self, context: Any) -> None:
        """See `call`. Whoever got in must `leave`."""
        # No await between check and count: atomic on one event loop.
        if self._calls >= self._max_calls:
            raise self._refuse(Cause.CALLS)
        if _age(context) > self._max_backlog:
            raise self._refuse(Cause.AGE)
        self._calls += 1

    def leave(self) -> None:
        """A call has ended."""
        self._calls -= 1

    def _refuse(self, cause: Cause) -> Overloaded:
        self._refused(cause)
        return Overloaded(retry_after=random.uniform(*_RETRY_SECONDS))  # noqa: S311 - a jitter, no secret


class _Call(AbstractContextManager[None]):
    """See `Overload.call`."""

    def __init__(self, overload: Overload, context: Any) -> None:
        self._overload = overload
        self._context = context

    def __enter__(self) -> None:
        self._overload.enter(self._context)

    def __exit__(self, *_: object) -> None:
        self._overload.leave()


class Refusing(grpc.aio.ServerInterceptor):
    """Refuses calls of one service where `Overload` says so. Others, such as health and administration, pass."""

    def __init__(self, overload: Overload, *, service: str, ended: Callable[[str, str, str], None]) -> None:
        """`ended` is called with method, status and reason of each call that was refused."""
        self._overload = overload
        self._prefix = f"/{service}/"
        self._ended = ended

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """See grpc.aio.ServerInterceptor."""
        method = handler_call_details.method
        if method.startswith(self._prefix):
            try:
                self._overload.check()
            except Overloaded as error:
                return self._refusal(method.removeprefix(self._prefix), error)
        return await continuation(handler_call_details)

    def _refusal(self, method: str, error: Overloaded) -> "_Handler":
        status = to_status(error)
        assert status is not None
        self._ended(method, error.status, error.reason)

        async def refuse(_requests: object, context: Any) -> None:
            await context.abort_with_status(status.to_grpc())

        # To gRPC a call whose requests stream: so it starts without waiting for a message, and none is ever read.
        return grpc.stream_unary_rpc_method_handler(refuse)


def _age(context: Any) -> float:
    """Seconds since the call arrived, 0 if that cannot be told."""
    left = context.time_remaining()
    given = _values(context.invocation_metadata() or ())
    if left is None or len(given) != 1:
        return 0.0
    try:
        return float(given[0]) - float(left)
    except ValueError:
        return 0.0


def _values(metadata: Sequence[tuple[str, str | bytes]]) -> list[str]:
    return [value for key, value in metadata if key == TIMEOUT_KEY and isinstance(value, str)]
