"""gRPC statuses of the dispatcher as HTTP statuses and OpenAI error objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from pointsman.client import PointsmanCallError

BAD_REQUEST = 400

_STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller is told. `param` is the member that cannot be used, `code` our reason, where there is one."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    def document(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def failure_of(error: PointsmanCallError) -> Failure:
    """The dispatcher's refusal. OpenAI's clients retry 409, 429 and 5xx, and wait as `retry_after` says."""
    return Failure(
        _STATUSES.get(error.code, 500),
        error.message,
        param=error.violations[0].field.removeprefix("chat.") if error.violations else None,
        code=error.reason or None,
        retry_after=error.retry_after,
    )


def not_found(name: str, known: str) -> Failure:
    """No such model."""
    return Failure(404, f"there is no model {name!r}: write {known}", param="model", code="model_not_found")
