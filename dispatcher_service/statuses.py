"""The hierarchy of errors as gRPC statuses with their details: what every servicer hands its boundary."""

import grpc

from dispatcher_service.errors import InvalidRequest, PointsmanError
from pointsman.runtime.status import RichStatus, Violation


def to_status(error: Exception) -> RichStatus | None:
    """See `pointsman.runtime.boundary.ToStatus`."""
    if not isinstance(error, PointsmanError):
        return None
    violations = (Violation(error.field, error.mend),) if isinstance(error, InvalidRequest) else ()
    return RichStatus(
        code=grpc.StatusCode[error.status],
        message=str(error),
        reason=error.reason,
        violations=violations,
        retry_after=error.retry_after,
        # A request that ends in an error has still cost what it has cost.
        metadata={"cost_nano_usd": str(error.cost)} if error.cost else {},
    )
