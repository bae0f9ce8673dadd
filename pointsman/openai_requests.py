"""OpenAI chat-completions JSON to the dispatcher's `Chat`, field for field. Nothing is dropped in silence.

Types are checked here, as far as the proto has them; ranges and combinations are the dispatcher's to check, so that
there is one set of rules. `null` means "not set", as in OpenAI's API. Members that `Chat` does not know travel as its
`extra_body_json`, which the dispatcher takes by the tenant's allow-list only.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.dispatcher.v1 import chat_pb2


class OpenAIRequestError(ValueError):
    """A member of the request cannot be used. `param` is its path, as in OpenAI's error objects."""

    def __init__(self, param: str, mend: str) -> None:
        super().__init__(f"{param}: {mend}")
        self.param = param
        self.mend = mend


_SCALARS = (
    "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "n", "logprobs", "top_logprobs",
    "parallel_tool_calls", "reasoning_effort", "user",
)  # fmt: skip
"""Members that `Chat` has under the same name and with the same type."""

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
_TOOL_CHOICES = {
    "none": chat_pb2.TOOL_CHOICE_MODE_NONE,
    "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO,
    "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
_FORMATS = {
    "text": chat_pb2.ResponseFormat(text=chat_pb2.TextFormat()),
    "json_object": chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat()),
}


def read_chat(body: Mapping[str, Any]) -> chat_pb2.Chat:
    """The conversation and its sampling parameters.

    Args:
        body: of POST /chat/completions, without the members that say where and how to answer (`model`, `stream`,
            `stream_options`).

    Raises:
        OpenAIRequestError: a member has no meaning here, or another type.
    """
    rest = _set_members(body)
    chat = chat_pb2.Chat()
    for name in _SCALARS:
        if name in rest:
            _assign(chat, name, rest.pop(name))
    if "max_tokens" in rest and "max_completion_tokens" in rest:
        raise OpenAIRequestError("max_tokens", "stands beside max_completion_tokens: send one of them")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in rest:
            _assign(chat, "max_tokens", rest.pop(name), param=name)
    chat.messages.extend(
        _message(message, f"messages[{index}]")
        for index, message in enumerate(_array(rest.pop("messages", ()), "messages"))
    )
    if "stop" in rest:
        stop = rest.pop("stop")
        chat.stop.extend(_text(each, "stop") for each in ([stop] if isinstance(stop, str) else _array(stop, "stop")))
    for token, bias in _object(rest.pop("logit_bias", {}), "logit_bias").items():
        with_path = f"logit_bias.{token}"
        if not token.isdecimal() or isinstance(bias, bool) or not isinstance(bias, int):
            raise OpenAIRequestError(with_path, "write token ids with whole numbers")
        chat.logit_bias[int(token)] = bias
    for key, value in _object(rest.pop("metadata", {}), "metadata").items():
        chat.metadata[key] = _text(value, f"metadata.{key}")
    chat.tools.extend(
        _tool(tool, f"tools[{index}]") for index, tool in enumerate(_array(rest.pop("tools", ()), "tools"))
    )
    if "tool_choice" in rest:
        chat.tool_choice.CopyFrom(_tool_choice(rest.pop("tool_choice")))
    if "response_format" in rest:
        chat.response_format.CopyFrom(_response_format(rest.pop("response_format")))
    if rest:
        chat.extra_body_json = json.dumps(rest, ensure_ascii=False)
    return chat


def _message(value: Any, path: str) -> chat_pb2.Message:
    # Clients send a model's earlier answer back as they got it, with members that hold nothing.
    members = {name: member for name, member in _object(value, path).items() if member not in (None, [], {})}
    role = members.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise OpenAIRequestError(f"{path}.role", f"write one of {', '.join(_ROLES)}")
    message = chat_pb2.Message(role=_ROLES[role])
    content = members.pop("content", None)
    if isinstance(content, str):
        message.content.add(text=content)
    elif content is not None:
        message.content.extend(
            _part(part, f"{path}.content[{index}]") for index, part in enumerate(_array(content, f"{path}.content"))
        )
    if "refusal" in members:
        message.content.add(refusal=_text(members.pop("refusal"), f"{path}.refusal"))
    for name in ("name", "tool_call_id"):
        if name in members:
            _assign(message, name, members.pop(name), param=f"{path}.{name}")
    for index, call in enumerate(_array(members.pop("tool_calls", ()), f"{path}.tool_calls")):
        message.tool_calls.append(_tool_call(call, f"{path}.tool_calls[{index}]"))
    _refuse_rest(members, path)
    return message


def _part(value: Any, path: str) -> chat_pb2.ContentPart:
    members = _set_members(_object(value, path))
    kind = members.pop("type", None)
    if not isinstance(kind, str) or kind not in ("text", "refusal", "image_url", "input_audio", "file"):
        raise OpenAIRequestError(f"{path}.type", "write text, image_url, input_audio, file or refusal")
    inner = members.pop(kind, None)
    _refuse_rest(members, path)
    path = f"{path}.{kind}"
    if kind == "text":
        return chat_pb2.ContentPart(text=_text(inner, path))
    if kind == "refusal":
        return chat_pb2.ContentPart(refusal=_text(inner, path))
    fields = _set_members(_object(inner, path))
    part = _READ_PART[kind](fields, path)
    _refuse_rest(fields, path)
    return part


def _image(fields: dict[str, Any], path: str) -> chat_pb2.ContentPart:
    url = _text(fields.pop("url", None), f"{path}.url")
    detail = _text(fields.pop("detail", ""), f"{path}.detail")
    return chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=url, detail=detail))


def _audio(fields: dict[str, Any], path: str) -> chat_pb2.ContentPart:
    data = _base64(_text(fields.pop("data", None), f"{path}.data"), f"{path}.data")
    return chat_pb2.ContentPart(
        audio=chat_pb2.AudioData(data=data, format=_text(fields.pop("format", None), f"{path}.format"))
    )


def _file(fields: dict[str, Any], path: str) -> chat_pb2.ContentPart:
    if "file_id" in fields:
        file_id = _text(fields.pop("file_id"), f"{path}.file_id")
        return chat_pb2.ContentPart(file=chat_pb2.File(file_id=file_id))
    filename = _text(fields.pop("filename", None), f"{path}.filename")
    url = _text(fields.pop("file_data", None), f"{path}.file_data")
    head, comma, encoded = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise OpenAIRequestError(f"{path}.file_data", "write data:MEDIA/TYPE;base64,…")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    data = chat_pb2.FileData(data=_base64(encoded, f"{path}.file_data"), media_type=media_type, filename=filename)
    return chat_pb2.ContentPart(file=chat_pb2.File(inline=data))


_READ_PART = {"image_url": _image, "input_audio": _audio, "file": _file}


def _tool_call(value: Any, path: str) -> chat_pb2.ToolCall:
    members = _set_members(_object(value, path))
    function = _function(members, path)
    # Pieces of a stream carry an index, and clients that collect them send it back.
    members.pop("index", None)
    call = chat_pb2.ToolCall(
        id=_text(members.pop("id", None), f"{path}.id"),
        name=_text(function.pop("name", None), f"{path}.function.name"),
        arguments_json=_text(function.pop("arguments", None), f"{path}.function.arguments"),
    )
    _refuse_rest(function, f"{path}.function")
    _refuse_rest(members, path)
    return call


def _tool(value: Any, path: str) -> chat_pb2.Tool:
    members = _set_members(_object(value, path))
    function = _function(members, path)
    tool = chat_pb2.Tool(
        name=_text(function.pop("name", None), f"{path}.function.name"),
        description=_text(function.pop("description", ""), f"{path}.function.description"),
    )
    if "parameters" in function:
        tool.parameters_json = _json_object(function.pop("parameters"), f"{path}.function.parameters")
    if "strict" in function:
        _assign(tool, "strict", function.pop("strict"), param=f"{path}.function.strict")
    _refuse_rest(function, f"{path}.function")
    _refuse_rest(members, path)
    return tool


def _function(members: dict[str, Any], path: str) -> dict[str, Any]:
    if members.pop("type", "function") != "function":
        raise OpenAIRequestError(f"{path}.type", "only functions are tools here: write function")
    return _set_members(_object(members.pop("function", None), f"{path}.function"))


def _tool_choice(value: Any) -> chat_pb2.ToolChoice:
    if isinstance(value, str):
        if value not in _TOOL_CHOICES:
            raise OpenAIRequestError("tool_choice", f"write one of {', '.join(_TOOL_CHOICES)}, or name a function")
        return chat_pb2.ToolChoice(mode=_TOOL_CHOICES[value])
    members = _set_members(_object(value, "tool_choice"))
    function = _function(members, "tool_choice")
    choice = chat_pb2.ToolChoice(function=_text(function.pop("name", None), "tool_choice.function.name"))
    _refuse_rest(function, "tool_choice.function")
    _refuse_rest(members, "tool_choice")
    return choice


def _response_format(value: Any) -> chat_pb2.ResponseFormat:
    members = _set_members(_object(value, "response_format"))
    kind = members.pop("type", None)
    if kind != "json_schema":
        _refuse_rest(members, "response_format")
        if not isinstance(kind, str) or kind not in _FORMATS:
            raise OpenAIRequestError("response_format.type", "write text, json_object or json_schema")
        return _FORMATS[kind]
    path = "response_format.json_schema"
    fields = _set_members(_object(members.pop("json_schema", None), path))
    form = chat_pb2.JsonSchemaFormat(
        name=_text(fields.pop("name", None), f"{path}.name"),
        description=_text(fields.pop("description", ""), f"{path}.description"),
        schema_json=_json_object(fields.pop("schema", None), f"{path}.schema"),
    )
    if "strict" in fields:
        _assign(form, "strict", fields.pop("strict"), param=f"{path}.strict")
    _refuse_rest(fields, path)
    _refuse_rest(members, "response_format")
    return chat_pb2.ResponseFormat(json_schema=form)


def _set_members(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member is not None}


def _assign(message: Any, name: str, value: Any, *, param: str = "") -> None:
    """Set a scalar field; protobuf itself knows the types."""
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise OpenAIRequestError(param or name, f"{type(value).__name__} does not fit: {error}") from error


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise OpenAIRequestError(path, "write a JSON object")
    return value


def _array(value: Any, path: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise OpenAIRequestError(path, "write a JSON array")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise OpenAIRequestError(path, "write a string")
    return value


def _json_object(value: Any, path: str) -> str:
    return json.dumps(_object(value, path), ensure_ascii=False)


def _base64(text: str, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise OpenAIRequestError(path, f"is not base64: {error}") from error


def _refuse_rest(members: Mapping[str, Any], path: str) -> None:
    for name in members:
        raise OpenAIRequestError(f"{path}.{name}", "is not known here: remove it")
