"""The edge of every gRPC method: errors become rich statuses, results are counted, cancellation passes through."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import grpc

from pointsman.runtime.logs import fields
from pointsman.runtime.status import RichStatus

Response = TypeVar("Response")
ToStatus = Callable[[Exception], RichStatus | None]
"""Maps an error of the service's own hierarchy; `None` for an error it does not know."""
Observe = Callable[[str, str, float], None]
"""Called once per call with the method, the status name (`OK`, `INVALID_ARGUMENT`, …) and the seconds it took."""

Ended = Callable[[str], None]
"""Told the status name of a call when it ends."""
Around = Callable[[str, Any], AbstractContextManager[Ended]]
"""Entered around every call with its method and context: a trace's span, for example."""

logger = logging.getLogger(__name__)


class Boundary:
    """Runs the body of a gRPC method.

    An error of the service's hierarchy becomes its status. Any other error becomes INTERNAL with a trace id and
    nothing else: its text may hold what the caller must not see, so it goes to the log under that id.
    """

    def __init__(
        self,
        *,
        to_status: ToStatus,
        observe: Observe,
        failed: Callable[[str], None],
        around: Around | None = None,
        trace_id: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failed` is called with the ErrorInfo reason of each call that ends in an error; `trace_id` may be empty."""
        self._to_status = to_status
        self._observe = observe
        self._failed = failed
        self._around = around
        self._trace_id = trace_id
        self._clock = clock

    async def run(self, method: str, context: Any, body: Awaitable[Response]) -> Response:
        """Await `body` and return its result; abort the call if it raises."""
        if self._around is None:
            return await self._run(method, context, body, _ignore)
        with self._around(method, context) as ended:
            return await self._run(method, context, body, ended)

    async def _run(self, method: str, context: Any, body: Awaitable[Response], ended: Ended) -> Response:
        started = self._clock()
        code = "OK"
        try:
            return await body
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise  # A handler that swallows this leaks its task (grpc issue 43360).
        except Exception as error:
            status = self._status(method, error)
            code = status.code.name
            self._failed(status.reason)
            await context.abort_with_status(status.to_grpc())
            raise AssertionError("abort_with_status always raises") from error
        finally:
            ended(code)
            self._observe(method, code, self._clock() - started)

    def _status(self, method: str, error: Exception) -> RichStatus:
        status = self._to_status(error)
        if status is not None:
            return status
        trace_id = self._trace_id() or uuid.uuid4().hex
        logger.error("internal error", exc_info=error, extra=fields(method=method, trace_id=trace_id))
        return RichStatus(
            code=grpc.StatusCode.INTERNAL,
            message=f"internal error; the service's log has it under trace id {trace_id}",
            reason="INTERNAL",
            metadata={"trace_id": trace_id},
        )


def _ignore(_: str) -> None:
    pass
