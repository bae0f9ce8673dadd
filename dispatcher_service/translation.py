"""Requests from protos to values. What passes here is valid: the use case checks no fields again.

Field paths in errors are those of the proto, so that a caller finds the field at once.
"""

import math
import uuid
from collections.abc import Mapping

from dispatcher_service.chat import Chat, Message, Request, Role
from dispatcher_service.errors import InvalidRequest, PayloadTooLarge
from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2

_ROLES = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_DEVELOPER: Role.DEVELOPER,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}
_KNOWN_ROLES = ", ".join(chat_pb2.Role.Name(role) for role in _ROLES)
_MAX_STOP_SEQUENCES = 4
_MAX_REQUEST_ID = 128
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
        max_conversation_bytes: limit on the UTF-8 text of the conversation.

    Raises:
        InvalidRequest: a field cannot be used.
        PayloadTooLarge: too much text.
    """
    # Route leaves no trace, and so has neither an id nor labels.
    request_id, labels = "", {}
    if not isinstance(proto, dispatcher_pb2.RouteRequest):
        request_id, labels = _request_id(proto.request_id), _labels(proto.labels)
    return Request(
        tenant_id=tenant_id,
        chat=_chat(proto.chat, max_conversation_bytes),
        request_id=request_id,
        alpha=_number("alpha", proto.alpha, 0, 1) if proto.HasField("alpha") else None,
        labels=labels,
        timeout=timeout,
    )


def _chat(chat: chat_pb2.Chat, max_bytes: int) -> Chat:
    if not chat.messages:
        raise InvalidRequest("chat.messages", "add at least one message")
    _check_size(chat, max_bytes)
    if chat.HasField("max_tokens") and chat.max_tokens < 1:
        raise InvalidRequest("chat.max_tokens", f"{chat.max_tokens} is less than 1: raise it or leave it unset")
    if len(chat.stop) > _MAX_STOP_SEQUENCES:
        raise InvalidRequest("chat.stop", f"{len(chat.stop)} sequences: keep at most {_MAX_STOP_SEQUENCES}")
    for index, sequence in enumerate(chat.stop):
        if not sequence:
            raise InvalidRequest(f"chat.stop[{index}]", "empty: remove it")
    if chat.HasField("top_p") and chat.top_p == 0:
        raise InvalidRequest("chat.top_p", "0 leaves no token to choose: write more than 0, at most 1")
    messages = tuple(_message(message, index) for index, message in enumerate(chat.messages))
    if not any(message.role is Role.USER and any(text.strip() for text in message.texts) for message in messages):
        raise InvalidRequest("chat.messages", "no user message with text: add one, it is what gets routed")
    return Chat(
        messages=messages,
        temperature=_optional(chat, "temperature", 0, 2),
        top_p=_optional(chat, "top_p", 0, 1),
        max_tokens=chat.max_tokens if chat.HasField("max_tokens") else None,
        stop=tuple(chat.stop),
        seed=chat.seed if chat.HasField("seed") else None,
        presence_penalty=_optional(chat, "presence_penalty", -2, 2),
        frequency_penalty=_optional(chat, "frequency_penalty", -2, 2),
    )


def _check_size(chat: chat_pb2.Chat, max_bytes: int) -> None:
    total = sum(len(part.text.encode()) for message in chat.messages for part in message.content)
    if total > max_bytes:
        raise PayloadTooLarge("chat.messages", f"{total} bytes of text: shorten to at most {max_bytes}")


def _message(message: chat_pb2.Message, index: int) -> Message:
    path = f"chat.messages[{index}]"
    if message.role not in _ROLES:
        raise InvalidRequest(f"{path}.role", f"{message.role} is no role: write one of {_KNOWN_ROLES}")
    if not message.content:
        raise InvalidRequest(f"{path}.content", "add at least one part; its text may be empty")
    for part_index, part in enumerate(message.content):
        kind = part.WhichOneof("part")
        if kind != "text":
            found = f"a part of kind {kind}" if kind else "a part without content"
            raise InvalidRequest(f"{path}.content[{part_index}]", f"{found}: only text is routed, send text parts")
    return Message(role=_ROLES[message.role], texts=tuple(part.text for part in message.content), name=message.name)


def _optional(chat: chat_pb2.Chat, field: str, low: float, high: float) -> float | None:
    if not chat.HasField(field):  # type: ignore[arg-type]  # the stubs want a literal
        return None
    return _number(f"chat.{field}", getattr(chat, field), low, high)


def _number(field: str, value: float, low: float, high: float) -> float:
    if math.isnan(value) or not low <= value <= high:
        raise InvalidRequest(field, f"{value:g} is outside [{low:g}, {high:g}]")
    return value


def _request_id(text: str) -> str:
    if not text:
        return uuid.uuid4().hex
    if len(text) > _MAX_REQUEST_ID or not (text.isascii() and text.isprintable()):
        raise InvalidRequest("request_id", f"write at most {_MAX_REQUEST_ID} characters of printable ASCII")
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
