"""What every client call shares: gRPC's error turned into ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from pointsman.runtime.status import Violation, decode


class PointsmanCallError(Exception):
    """A call failed. `str(error)` is the service's message.

    Attributes:
        code: the gRPC status.
        message: what the service, or gRPC itself, says.
        reason: the ErrorInfo reason, such as `INVALID_REQUEST`; empty if the failure did not come from the service,
            for example because nothing listens at the address.
        violations: the fields that cannot be used, each with its mend.
        retry_after: seconds after which a retry can help, `None` if the service does not say that one can.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after


@contextmanager
def call_errors() -> Iterator[None]:
    """gRPC's error to ours, keeping the cause."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        status = decode(error)
        if status is None:
            raise PointsmanCallError(error.code(), error.details() or "no details") from error
        raise PointsmanCallError(
            status.code,
            status.message,
            reason=status.reason,
            violations=status.violations,
            retry_after=status.retry_after,
        ) from error
