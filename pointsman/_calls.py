"""What every client call shares: who calls, and gRPC's error turned into ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from pointsman.runtime.status import Violation, decode

_TENANT_KEY = "x-pointsman-tenant"
_TIMEOUT_KEY = "x-pointsman-timeout"

Credential = str | Callable[[], str]
"""An API key or a token, or a function that is asked for one before each call."""


class PointsmanCallError(Exception):
    """A call failed. `str(error)` is the service's message.

    Attributes:
        code: the gRPC status.
        message: what the service, or gRPC itself, says.
        reason: the ErrorInfo reason, such as `INVALID_REQUEST`; empty if the failure did not come from the service,
            for example because nothing listens at the address.
        violations: the fields that cannot be used, each with its mend.
        retry_after: seconds after which a retry can help, `None` if the service does not say that one can.
        quota: the limit that was hit and what is said of it, `None` if none was.
        cost_nano_usd: what the failed request has cost all the same.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        quota: tuple[str, str] | None = None,
        cost_nano_usd: int = 0,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        self.quota = quota
        self.cost_nano_usd = cost_nano_usd


def metadata(tenant: str, credential: Credential, timeout: float) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that may take `timeout` seconds; what is empty is not sent."""
    bearer = credential if isinstance(credential, str) else credential()
    return (
        *(((_TENANT_KEY, tenant),) if tenant else ()),
        *((("authorization", f"Bearer {bearer}"),) if bearer else ()),
        # Beside the deadline, of which the service sees what is left: so it knows how long the call has waited.
        (_TIMEOUT_KEY, f"{timeout:.3f}"),
    )


def broken_stream(how: str) -> PointsmanCallError:
    """A stream that is none of ours."""
    return PointsmanCallError(grpc.StatusCode.INTERNAL, f"the stream {how}: is this address a Pointsman dispatcher?")


@contextmanager
def call_errors() -> Iterator[None]:
    """gRPC's error to ours, keeping the cause."""
    try:
        yield
    except grpc.RpcError as error:
        raise _translated(error) from error


def _translated(error: Any) -> PointsmanCallError:
    """Errors of both of gRPC's APIs are calls too, which its stubs do not say."""
    status = decode(error)
    if status is None:
        return PointsmanCallError(error.code(), error.details() or "no details")
    cost = status.metadata.get("cost_nano_usd", "")
    return PointsmanCallError(
        status.code,
        status.message,
        reason=status.reason,
        violations=status.violations,
        retry_after=status.retry_after,
        quota=status.quota,
        cost_nano_usd=int(cost) if cost.isdigit() else 0,
    )
