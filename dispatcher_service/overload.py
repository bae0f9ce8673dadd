"""When the whole process has too much to do: calls are refused before their body is read.

What a call waits for is its turn in the `line`. One that would wait too long is refused as soon as it is received,
and receiving comes before work: as long as gRPC can hand calls over as fast as they come, that is before what was let
in is answered. Too long is

- for a burst, `max_backlog` seconds: callers who come together are all answered, one after the other;
- for an overload that lasts, a tenth of it: once a call had to be refused, the line is kept short until it has been
  empty. Who is let in then is answered soon, and a wait that all have would help nobody;
- for a caller with a deadline, half of what is left of it when the call begins to wait.

Three things more are looked at, since each is blind to what another sees:

- *calls* under way: bounds memory, and the work that may wake up at once;
- *lag* of the event loop: how long what is ready has to wait, such as answers of upstreams that come all at once;
- *age* of one call: how long it waited before its handler began, below and before the event loop. gRPC shows only what
  is left of a caller's deadline, so that the age is known of callers who say what they gave (`x-pointsman-timeout`, as
  our client does). Who says too much is only refused sooner.
"""

import asyncio
import enum
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import grpc
import grpc.aio

from dispatcher_service.errors import Overloaded
from dispatcher_service.line import Line
from dispatcher_service.statuses import to_status

TIMEOUT_KEY: Final = "x-pointsman-timeout"
"""Metadata entry: the deadline that the caller gave this call, in seconds."""

_SAMPLE_SECONDS: Final = 0.05
_REMEMBERED: Final = 4
"""Samples. A peak counts for a fifth of a second: long enough that a burst is not let in between two others."""

_LASTING: Final = 0.1
"""The part of `max_backlog` that a call may wait in an overload that lasts."""

_OF_DEADLINE: Final = 0.5
"""The part of what is left of a caller's deadline that may pass before the call begins."""

_RETRY_SECONDS: Final = (0.5, 1.5)
"""Callers who were refused together should not come back together."""

_RETRIES: Final = 32
"""Statuses that are made in advance, between those seconds: making one takes as long as all the rest of a refusal."""


class Cause(enum.Enum):
    """Why a call was refused. Closed: a metric label."""

    CALLS = "calls"
    WAIT = "wait"
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
        line: Line,
        lag: Callable[[], float],
        refused: Callable[[Cause], None],
    ) -> None:
        """All state belongs to one event loop.

        Args:
            max_calls: that may be under way.
            max_backlog: seconds of waiting, of lag or of age beyond which calls are refused.
            line: where calls wait for their turn.
            lag: see `LoopLag.seconds`.
            refused: told of each refusal.
        """
        self._max_calls = max_calls
        self._max_backlog = max_backlog
        self._line = line
        self._lag = lag
        self._refused = refused
        self._calls = 0
        self._lasting = False

    def takes(self) -> bool:
        """Whether there is room for a call that gRPC has just handed over. To be asked once about each."""
        self._line.received()
        if self._calls >= self._max_calls:
            return self._refuse(Cause.CALLS)
        if self._line.seconds() > self._longest_wait():
            return self._refuse(Cause.WAIT)
        if self._lag() > self._max_backlog:
            return self._refuse(Cause.LAG)
        return True

    def call(self, context: Any) -> AbstractAsyncContextManager[None]:
        """Waits for a call's turn and counts it as long as the block runs.

        Raises:
            Overloaded: others took the room since `takes`, or the call cannot wait so long.
        """
        return _Call(self, context)

    async def enter(self, context: Any) -> None:
        """See `call`. Whoever got in must `leave`."""
        left = context.time_remaining()
        # No await between check and count: atomic on one event loop.
        if self._calls >= self._max_calls:
            raise self._overloaded(Cause.CALLS)
        if left is not None:
            if self._line.seconds() > _OF_DEADLINE * left:
                raise self._overloaded(Cause.WAIT)
            if _age(context, left) > self._max_backlog:
                raise self._overloaded(Cause.AGE)
        self._calls += 1
        try:
            await self._line.turn()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """A call has ended."""
        self._calls -= 1

    def _longest_wait(self) -> float:
        if self._lasting and not self._line:
            self._lasting = False
        return self._max_backlog * _LASTING if self._lasting else self._max_backlog

    def _refuse(self, cause: Cause) -> bool:
        """Always false."""
        # Nothing lasts because of a caller who would not even wait in the short line.
        if cause is Cause.WAIT and self._line.seconds() > self._max_backlog * _LASTING:
            self._lasting = True
        self._refused(cause)
        return False

    def _overloaded(self, cause: Cause) -> Overloaded:
        self._refuse(cause)
        return Overloaded(retry_after=random.uniform(*_RETRY_SECONDS))  # noqa: S311 - a jitter, no secret


class _Call(AbstractAsyncContextManager[None]):
    """See `Overload.call`."""

    def __init__(self, overload: Overload, context: Any) -> None:
        self._overload = overload
        self._context = context

    async def __aenter__(self) -> None:
        await self._overload.enter(self._context)

    async def __aexit__(self, *_: object) -> None:
        self._overload.leave()


class Refusing:
    """Stands before a server while a service is added to it, whose calls it refuses where `Overload` says so.

    Other services, such as health and administration, are added to the server itself.
    """

    def __init__(self, server: grpc.aio.Server, overload: Overload, *, ended: Callable[[str, str, str], None]) -> None:
        """`ended` is called with method, status and reason of each call that was refused."""
        self._server = server
        self._overload = overload
        self._ended = ended

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See `grpc.aio.Server`."""
        self._server.add_generic_rpc_handlers(
            tuple(_RefusingHandler(handler, self._overload, self._ended) for handler in handlers)
        )

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """They would go past us."""


class _RefusingHandler(grpc.GenericRpcHandler):
    """The look-up of a method is the first that is seen of a call, and costs least: nothing of it is read yet."""

    def __init__(
        self, inner: grpc.GenericRpcHandler, overload: Overload, ended: Callable[[str, str, str], None]
    ) -> None:
        self._inner = inner
        self._overload = overload
        self._ended = ended
        least, most = _RETRY_SECONDS
        waits = [least + (most - least) * step / (_RETRIES - 1) for step in range(_RETRIES)]
        statuses = [_status(Overloaded(retry_after=wait)) for wait in waits]

        async def refuse(_requests: object, context: Any) -> None:
            await context.abort_with_status(random.choice(statuses))  # noqa: S311 - a jitter, no secret

        # To gRPC a call whose requests stream: so it starts without waiting for a message, and none is ever read.
        self._refusal: Any = grpc.stream_unary_rpc_method_handler(refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc.GenericRpcHandler."""
        handler = self._inner.service(handler_call_details)
        if handler is None or self._overload.takes():
            return handler
        self._ended(handler_call_details.method.rpartition("/")[2], Overloaded.status, Overloaded.reason)
        return self._refusal


def _status(error: Overloaded) -> grpc.Status:
    status = to_status(error)
    assert status is not None
    return status.to_grpc()


def _age(context: Any, left: float) -> float:
    """Seconds since the call arrived, 0 if that cannot be told."""
    given = [value for key, value in context.invocation_metadata() or () if key == TIMEOUT_KEY]
    try:
        return float(given[0]) - left if len(given) == 1 else 0.0
    except ValueError:
        return 0.0
