"""The edge of every gRPC method: errors become rich statuses, results are counted, cancellation passes through."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from pointsman.runtime.logs import fields
from pointsman.runtime.status import RichStatus

Response = TypeVar("Response")
ToStatus = Callable[[Exception], RichStatus | None]
"""Maps an error of the service's own hierarchy; `None` for an error it does not know."""
Observe = Callable[[str, str, float], None]
"""Called once per call with the method, the status name (`OK`, `INVALID_ARGUMENT`, …) and the seconds it took."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failed` is called with the ErrorInfo reason of each call that ends in an error."""
        self._to_status = to_status
        self._observe = observe
        self._failed = failed
        self._clock = clock

    async def run(self, method: str, context: Any, body: Awaitable[Response]) -> Response:
        """Await `body` and return its result; abort the call if it raises."""
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
            self._observe(method, code, self._clock() - started)

    def _status(self, method: str, error: Exception) -> RichStatus:
        status = self._to_status(error)
        if status is not None:
            return status
        trace_id = uuid.uuid4().hex
        logger.error("internal error", exc_info=error, extra=fields(method=method, trace_id=trace_id))
        return RichStatus(
            code=grpc.StatusCode.INTERNAL,
            message=f"internal error; the service's log has it under trace id {trace_id}",
            reason="INTERNAL",
            metadata={"trace_id": trace_id},
        )
