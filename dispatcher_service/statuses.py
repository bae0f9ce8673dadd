"""The hierarchy of errors as gRPC statuses with their details: what every servicer hands its boundary."""

from datetime import UTC, datetime

import grpc

from dispatcher_service.errors import BudgetExhausted, InvalidRequest, PointsmanError, RateLimited
from pointsman.runtime.status import RichStatus, Violation


def to_status(error: Exception) -> RichStatus | None:
    """See `pointsman.runtime.boundary.ToStatus`."""
    if not isinstance(error, PointsmanError):
        return None
    violations = (Violation(error.field, error.mend),) if isinstance(error, InvalidRequest) else ()
    # A request that ends in an error has still cost what it has cost.
    metadata = {"cost_nano_usd": str(error.cost)} if error.cost else {}
    quota = None
    if isinstance(error, BudgetExhausted):
        quota = (f"usd_per_{error.period}", str(error))
        metadata |= {
            "period": error.period,
            "limit_usd": error.limit,
            "left_usd": error.left,
            "needed_usd": error.needed,
            "window_end": datetime.fromtimestamp(error.window_end, tz=UTC).isoformat().replace("+00:00", "Z"),
        }
    if isinstance(error, RateLimited):
        quota = (error.rate, str(error))
        metadata |= {"rate": error.rate, "limit": str(error.limit)}
    return RichStatus(
        code=grpc.StatusCode[error.status],
        message=str(error),
        reason=error.reason,
        violations=violations,
        retry_after=error.retry_after,
        quota=quota,
        metadata=metadata,
    )
