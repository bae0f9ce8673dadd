"""Rich gRPC statuses: one value that becomes google.rpc details on the server and is read back by the client.

Source: https://google.aip.dev/193 (ErrorInfo on every error) and google/rpc/error_details.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "pointsman"
_MAX_MESSAGE = 1_000  # HTTP/2 trailers are limited; a message is a sentence, not a document.


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that cannot be used. `field` is a path (`chat.messages[2].role`); `mend` says what to write instead."""

    field: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RichStatus:
    """A gRPC status with its details.

    `reason` is the ErrorInfo reason in UPPER_SNAKE_CASE; `retry_after` is in seconds, `None` if a retry won't help;
    `quota` names the limit that was hit (QuotaFailure subject, description).
    """

    code: grpc.StatusCode
    message: str
    reason: str
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None
    quota: tuple[str, str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_grpc(self) -> grpc.Status:
        """The value that `context.abort_with_status` takes."""
        details: list[message.Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        ]
        if self.violations:
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.mend)
                        for v in self.violations
                    ]
                )
            )
        if self.quota is not None:
            subject, description = self.quota
            violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)
            details.append(error_details_pb2.QuotaFailure(violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(
            code=code_pb2.Code.Value(self.code.name), message=self.message[:_MAX_MESSAGE], details=map(_pack, details)
        )
        to_status: grpc.Status = rpc_status.to_status(status)
        return to_status


def decode(error: grpc.RpcError) -> RichStatus | None:
    """The rich status inside a failed call, or `None` if the server sent no details."""
    status = rpc_status.from_call(error)
    if status is None:
        return None
    reason, metadata = "", {}
    violations: tuple[Violation, ...] = ()
    retry_after, quota = None, None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            failure = error_details_pb2.QuotaFailure.FromString(detail.value)
            quota = (failure.violations[0].subject, failure.violations[0].description)
    return RichStatus(
        code=grpc.StatusCode[code_pb2.Code.Name(status.code)],
        message=status.message,
        reason=reason,
        violations=violations,
        retry_after=retry_after,
        quota=quota,
        metadata=metadata,
    )


def _pack(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
