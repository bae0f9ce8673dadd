"""The edge of one gRPC service: its calls are counted while they run and traced, and their errors become statuses."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from dispatcher_service.metrics import Metrics
from dispatcher_service.statuses import to_status
from dispatcher_service.tracing import Tracing
from pointsman.runtime.boundary import Boundary

_Response = TypeVar("_Response")


class Edge:
    """What every method of a servicer goes through."""

    def __init__(self, service: str, *, metrics: Metrics, tracing: Tracing) -> None:
        """`service` is its full name."""
        self._metrics = metrics
        self._boundary = Boundary(
            to_status=to_status,
            observe=metrics.call_ended,
            failed=metrics.call_failed,
            around=lambda method, context: tracing.call(f"{service}/{method}", context),
            trace_id=tracing.trace_id,
        )

    async def run(self, method: str, context: Any, body: Awaitable[_Response]) -> _Response:
        """Await `body` and return its result; abort the call if it raises."""
        in_flight = self._metrics.in_flight(method)
        in_flight.inc()
        try:
            return await self._boundary.run(method, context, body)
        finally:
            in_flight.dec()
