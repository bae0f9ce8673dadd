"""Conversations from protos to values, checked. Field paths in errors are those of the proto."""

import base64
import math
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from dispatcher_service.chat import (
    OWNED_KEYS,
    Audio,
    Chat,
    File,
    Image,
    JsonSchemaFormat,
    Message,
    Part,
    PartKind,
    PlainFormat,
    Role,
    Text,
)
from dispatcher_service.errors import InvalidRequest, PayloadTooLarge
from dispatcher_service.tool_translation import (
    read_json_object,
    read_name,
    read_tool_call,
    read_tool_choice,
    read_tools,
)
from pointsman.dispatcher.v1 import chat_pb2

_ROLES: Final = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_DEVELOPER: Role.DEVELOPER,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}
_KNOWN_ROLES: Final = ", ".join(chat_pb2.Role.Name(role) for role in _ROLES)
_EFFORT: Final = re.compile(r"[a-z]{1,16}")
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+")
_MAX_STOP_SEQUENCES: Final = 4
_MAX_METADATA: Final = 16


def read_chat(chat: chat_pb2.Chat, *, max_bytes: int) -> Chat:
    """Check a conversation and turn it into a value.

    Raises:
        InvalidRequest: a field cannot be used.
        PayloadTooLarge: more than `max_bytes` in all.
    """
    if not chat.messages:
        raise InvalidRequest("chat.messages", "add at least one message")
    text_bytes, other_bytes = _sizes(chat)
    if text_bytes + other_bytes > max_bytes:
        total = text_bytes + other_bytes
        raise PayloadTooLarge("chat.messages", f"{total} bytes of text and parts: shorten to at most {max_bytes}")
    messages = tuple(_message(message, f"chat.messages[{index}]") for index, message in enumerate(chat.messages))
    if not any(message.role is Role.USER and message.text.strip() for message in messages):
        raise InvalidRequest("chat.messages", "no user message with text: add one, it is what gets routed")
    # Of some twenty fields a conversation sets a few: only those are looked at.
    fields = {field.name: _READERS[field.name](chat) for field, _ in chat.ListFields() if field.name in _READERS}
    extra_body = fields.pop("extra_body_json", {})
    return Chat(messages=messages, text_bytes=text_bytes, extra_body=extra_body, **fields)


def number(field: str, value: float, low: float, high: float) -> float:
    """`value` if it lies in [low, high], which NaN does not; else InvalidRequest."""
    if math.isnan(value) or not low <= value <= high:
        raise InvalidRequest(field, f"{value:g} is outside [{low:g}, {high:g}]")
    return value


def _sizes(chat: chat_pb2.Chat) -> tuple[int, int]:
    """Bytes of all that becomes prompt text, and bytes of parts that are not text."""
    text, other = 0, 0
    for message in chat.messages:
        text += len(message.name.encode())
        for call in message.tool_calls:
            text += len(call.name.encode()) + len(call.arguments_json.encode())
        for part in message.content:
            kind = part.WhichOneof("part")
            if kind in ("text", "refusal"):
                text += len((part.text or part.refusal).encode())
            elif kind is not None:
                other += len(part.image_url.url) + len(part.image.data) + len(part.audio.data)
                other += len(part.file.inline.data)
    for tool in chat.tools:
        text += len(tool.name) + len(tool.description.encode()) + len(tool.parameters_json.encode())
        text += len(tool.custom.grammar.definition.encode())
    if chat.HasField("response_format"):
        schema = chat.response_format.json_schema
        text += len(schema.name) + len(schema.description.encode()) + len(schema.schema_json.encode())
    return text, other + len(chat.extra_body_json.encode())


def _message(message: chat_pb2.Message, path: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(f"{path}.role", f"{message.role} is no role: write one of {_KNOWN_ROLES}")
    if message.tool_calls and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{path}.tool_calls", "only assistant messages call tools: remove them")
    if bool(message.tool_call_id) != (role is Role.TOOL):
        mend = "name the call that this answers" if role is Role.TOOL else "only tool messages have one: remove it"
        raise InvalidRequest(f"{path}.tool_call_id", mend)
    if not message.content and not message.tool_calls:
        raise InvalidRequest(f"{path}.content", "add at least one part; its text may be empty")
    return Message(
        role=role,
        parts=tuple(_part(part, role, f"{path}.content[{index}]") for index, part in enumerate(message.content)),
        name=message.name,
        tool_calls=tuple(
            read_tool_call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls)
        ),
        tool_call_id=message.tool_call_id,
    )


def _part(part: chat_pb2.ContentPart, role: Role, path: str) -> Part:
    kind = part.WhichOneof("part")
    if kind is None:
        raise InvalidRequest(path, "a part without content: set one of its fields")
    if kind == "text":
        return Text(part.text)
    if kind == "refusal":
        if role is not Role.ASSISTANT:
            raise InvalidRequest(f"{path}.refusal", "only assistant messages refuse: send text")
        return Text(part.refusal, PartKind.REFUSAL)
    if role is not Role.USER:
        raise InvalidRequest(f"{path}.{kind}", "only user messages hold parts other than text: send text")
    if kind == "image_url":
        if not part.image_url.url.startswith(("https://", "http://", "data:")):
            raise InvalidRequest(f"{path}.image_url.url", "write an http(s) or data URL")
        return Image(part.image_url.url, part.image_url.detail)
    if kind == "image":
        return Image(_data_url(part.image.data, part.image.media_type, f"{path}.image"), part.image.detail)
    if kind == "audio":
        if part.audio.format not in ("wav", "mp3"):
            raise InvalidRequest(f"{path}.audio.format", f"{part.audio.format!r} is unknown: write wav or mp3")
        return Audio(_base64(part.audio.data, f"{path}.audio.data"), part.audio.format)
    return _file(part.file, f"{path}.file")


def _file(file: chat_pb2.File, path: str) -> File:
    source = file.WhichOneof("source")
    if source is None or (source == "file_id" and not file.file_id):
        raise InvalidRequest(path, "set file_id or inline")
    if source == "file_id":
        return File(file_id=file.file_id)
    if not file.inline.filename:
        raise InvalidRequest(f"{path}.inline.filename", "name the file")
    return File(
        filename=file.inline.filename,
        file_data=_data_url(file.inline.data, file.inline.media_type, f"{path}.inline"),
    )


def _data_url(data: bytes, media_type: str, path: str) -> str:
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidRequest(f"{path}.media_type", f"{media_type!r} is no media type: write one such as image/png")
    return f"data:{media_type};base64,{_base64(data, f'{path}.data')}"


def _base64(data: bytes, path: str) -> str:
    if not data:
        raise InvalidRequest(path, "empty: add the bytes")
    return base64.b64encode(data).decode()


def _parallel_tool_calls(chat: chat_pb2.Chat) -> bool:
    if not chat.tools:
        raise InvalidRequest("chat.parallel_tool_calls", "there are no tools: add chat.tools, or leave it unset")
    return chat.parallel_tool_calls


def _response_format(chat: chat_pb2.Chat) -> PlainFormat | JsonSchemaFormat:
    kind = chat.response_format.WhichOneof("format")
    if kind is None:
        raise InvalidRequest("chat.response_format", "set text, json_object or json_schema")
    if kind != "json_schema":
        return PlainFormat(kind)
    form, path = chat.response_format.json_schema, "chat.response_format.json_schema"
    return JsonSchemaFormat(
        name=read_name(form.name, f"{path}.name"),
        schema=read_json_object(form.schema_json, f"{path}.schema_json"),
        description=form.description,
        strict=form.strict if form.HasField("strict") else None,
    )


def _extra_body(chat: chat_pb2.Chat) -> Mapping[str, Any]:
    extra = read_json_object(chat.extra_body_json, "chat.extra_body_json")
    for key in extra:
        if key in OWNED_KEYS:
            raise InvalidRequest(
                "chat.extra_body_json",
                f"{key!r} belongs to a field of chat or to the dispatcher: remove it",
            )
    return extra


def _stop(chat: chat_pb2.Chat) -> tuple[str, ...]:
    sequences = tuple(chat.stop)
    if len(sequences) > _MAX_STOP_SEQUENCES:
        raise InvalidRequest("chat.stop", f"{len(sequences)} sequences: keep at most {_MAX_STOP_SEQUENCES}")
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise InvalidRequest(f"chat.stop[{index}]", "empty: remove it")
    return sequences


def _logit_bias(chat: chat_pb2.Chat) -> Mapping[int, int]:
    for token, bias in chat.logit_bias.items():
        number(f"chat.logit_bias[{token}]", bias, -100, 100)
    return dict(chat.logit_bias)


def _top_p(chat: chat_pb2.Chat) -> float:
    if chat.top_p == 0:
        raise InvalidRequest("chat.top_p", "0 leaves no token to choose: write more than 0, at most 1")
    return number("chat.top_p", chat.top_p, 0, 1)


def _top_logprobs(chat: chat_pb2.Chat) -> int:
    top = _whole("top_logprobs", 0, 20)(chat)
    if not chat.logprobs:
        raise InvalidRequest("chat.top_logprobs", "needs chat.logprobs: set that to true, or leave this unset")
    return top


def _reasoning_effort(chat: chat_pb2.Chat) -> str:
    effort = chat.reasoning_effort
    if not _EFFORT.fullmatch(effort):
        raise InvalidRequest("chat.reasoning_effort", f"{effort[:20]!r}: write a word such as low, medium or high")
    return effort


def _metadata(chat: chat_pb2.Chat) -> Mapping[str, str]:
    metadata = chat.metadata
    if len(metadata) > _MAX_METADATA:
        raise InvalidRequest("chat.metadata", f"{len(metadata)} pairs: keep at most {_MAX_METADATA}")
    for key, value in metadata.items():
        if not 1 <= len(key) <= 64 or len(value) > 512:
            raise InvalidRequest(f"chat.metadata[{key[:20]!r}]", "keys have 1 to 64, values at most 512 characters")
    return dict(metadata)


def _whole(name: str, low: int, high: int) -> Callable[[chat_pb2.Chat], int]:
    def read(chat: chat_pb2.Chat) -> int:
        value: int = getattr(chat, name)
        if not low <= value <= high:
            bound = f"less than {low}: raise it" if value < low else f"more than {high}: lower it"
            raise InvalidRequest(f"chat.{name}", f"{value} is {bound}, or leave it unset")
        return value

    return read


def _number(name: str, low: float, high: float) -> Callable[[chat_pb2.Chat], float]:
    return lambda chat: number(f"chat.{name}", getattr(chat, name), low, high)


_READERS: Final[Mapping[str, Callable[[chat_pb2.Chat], Any]]] = {
    "temperature": _number("temperature", 0, 2),
    "top_p": _top_p,
    "max_tokens": _whole("max_tokens", 1, 2**53),
    "stop": _stop,
    "seed": attrgetter("seed"),
    "presence_penalty": _number("presence_penalty", -2, 2),
    "frequency_penalty": _number("frequency_penalty", -2, 2),
    "n": _whole("n", 1, 128),
    "logit_bias": _logit_bias,
    "logprobs": attrgetter("logprobs"),
    "top_logprobs": _top_logprobs,
    "response_format": _response_format,
    "tools": lambda chat: read_tools(chat.tools),
    "tool_choice": read_tool_choice,
    "parallel_tool_calls": _parallel_tool_calls,
    "reasoning_effort": _reasoning_effort,
    "user": attrgetter("user"),
    "metadata": _metadata,
    "extra_body_json": _extra_body,
}
"""How each field but the messages is read where it is set."""
