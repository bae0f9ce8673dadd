"""Requests from protos to values. What passes here is valid: the use case checks no fields again.

Field paths in errors are those of the proto, so that a caller finds the field at once.
"""

import secrets
from collections.abc import Mapping

from dispatcher_service.chat import Request
from dispatcher_service.chat_translation import number, read_chat
from dispatcher_service.errors import InvalidRequest
from pointsman.dispatcher.v1 import dispatcher_pb2

_MAX_IDENTIFIER = 128
_MAX_LABELS = 8
_MAX_LABEL_KEY = 64
_MAX_LABEL_VALUE = 256

AnyRequest = dispatcher_pb2.CompleteRequest | dispatcher_pb2.StreamCompleteRequest | dispatcher_pb2.RouteRequest


def read_request(proto: AnyRequest, *, tenant_id: str, timeout: float | None, max_conversation_bytes: int) -> Request:
    """Check a request and turn it into a value.

    Args:
        proto: as received.
        tenant_id: who pays.
        timeout: seconds until the caller's deadline, `None` without one.
        max_conversation_bytes: limit on the conversation, in bytes.

    Raises:
        InvalidRequest: a field cannot be used.
        PayloadTooLarge: the conversation is too large.
    """
    # Route leaves no trace, and so has neither an id nor labels.
    request_id, labels = "", {}
    if not isinstance(proto, dispatcher_pb2.RouteRequest):
        request_id, labels = (
            read_identifier("request_id", proto.request_id) or secrets.token_hex(16),
            _labels(proto.labels),
        )
    return Request(
        tenant_id=tenant_id,
        chat=read_chat(proto.chat, max_bytes=max_conversation_bytes),
        request_id=request_id,
        caller_named=not isinstance(proto, dispatcher_pb2.RouteRequest) and bool(proto.request_id),
        alpha=number("alpha", proto.alpha, 0, 1) if proto.HasField("alpha") else None,
        labels=labels,
        timeout=timeout,
        conversation_id=read_identifier("conversation_id", proto.conversation_id),
        accept_replacement=isinstance(proto, dispatcher_pb2.StreamCompleteRequest) and proto.accept_replacement,
    )


def read_identifier(field: str, text: str) -> str:
    """A name that a caller gave: empty for none.

    Raises:
        InvalidRequest: it is too long or has other characters.
    """
    if len(text) > _MAX_IDENTIFIER or not (text.isascii() and text.isprintable()):
        raise InvalidRequest(field, f"write at most {_MAX_IDENTIFIER} characters of printable ASCII")
    return text


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > _MAX_LABELS:
        raise InvalidRequest("labels", f"{len(labels)} labels: keep at most {_MAX_LABELS}")
    for key, value in labels.items():
        if not 1 <= len(key) <= _MAX_LABEL_KEY:
            raise InvalidRequest(f"labels[{key[:20]!r}]", f"write a key of 1 to {_MAX_LABEL_KEY} characters")
        if len(value) > _MAX_LABEL_VALUE:
            raise InvalidRequest(f"labels[{key!r}]", f"write a value of at most {_MAX_LABEL_VALUE} characters")
    return dict(labels)
