"""From our values to OpenAI's chat completions: the body of a request, field for field."""

import json
from typing import Any, Final

from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import (
    AllowedTools,
    AnyText,
    Audio,
    Chat,
    File,
    Grammar,
    Image,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    PartKind,
    Text,
    Tool,
    ToolCall,
)

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(deployment: Deployment, chat: Chat, *, max_tokens: int | None, stream: bool) -> bytes:
    """The request's body as JSON: only what the caller has set, and `max_tokens` where there is such a bound.

    Raises:
        ValueError: a member of the caller's own has no form in JSON.
    """
    members = _members(deployment, chat, max_tokens) | {"stream": stream}
    if stream:
        # Always: it is what we bill by. The chunk that carries it ends here and is not passed on.
        members["stream_options"] = {"include_usage": True}
    return _ENCODER.encode({**members, **chat.extra_body}).encode()


def _members(deployment: Deployment, chat: Chat, max_tokens: int | None) -> dict[str, Any]:
    optional: dict[str, Any] = {
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        deployment.max_tokens_parameter: max_tokens,
        "stop": list(chat.stop) or None,
        "seed": chat.seed,
        "presence_penalty": chat.presence_penalty,
        "frequency_penalty": chat.frequency_penalty,
        "n": chat.n,
        "logit_bias": {str(token): bias for token, bias in chat.logit_bias.items()} or None,
        "logprobs": chat.logprobs,
        "top_logprobs": chat.top_logprobs,
        "response_format": _response_format(chat),
        "tools": [_tool(tool) for tool in chat.tools] or None,
        "tool_choice": _tool_choice(chat),
        "parallel_tool_calls": chat.parallel_tool_calls,
        "reasoning_effort": chat.reasoning_effort or None,
        "user": chat.user or None,
        "metadata": dict(chat.metadata) or None,
    }
    return {
        "model": deployment.upstream_model,
        "messages": [_message(message) for message in chat.messages],
        **{name: value for name, value in optional.items() if value is not None},
    }


def _message(message: Message) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": message.role.value}
    match message.parts:
        case ():
            pass  # an assistant message that only calls tools
        case (Text(text, PartKind.TEXT),):
            # One part goes as a plain string, which every compatible endpoint understands; several keep their borders.
            encoded["content"] = text
        case (Text(text, PartKind.REFUSAL),):
            encoded["refusal"] = text
        case parts:
            encoded["content"] = [_part(part) for part in parts]
    if message.name:
        encoded["name"] = message.name
    if message.tool_calls:
        encoded["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        encoded["tool_call_id"] = message.tool_call_id
    return encoded


def _tool_call(call: ToolCall) -> dict[str, Any]:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text, kind):
            return {"type": kind.value, kind.value: text}
        case Image(url, detail):
            return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}
        case Audio(data, sound):
            return {"type": "input_audio", "input_audio": {"data": data, "format": sound}}
        case File(file_id=file_id) if file_id:
            return {"type": "file", "file": {"file_id": file_id}}
        case File(filename=filename, file_data=file_data):
            return {"type": "file", "file": {"filename": filename, "file_data": file_data}}


def _response_format(chat: Chat) -> dict[str, Any] | None:
    match chat.response_format:
        case None:
            return None
        case JsonSchemaFormat() as form:
            schema: dict[str, Any] = {"name": form.name, "schema": form.schema}
            if form.description:
                schema["description"] = form.description
            if form.strict is not None:
                schema["strict"] = form.strict
            return {"type": "json_schema", "json_schema": schema}
        case plain:
            return {"type": plain.value}


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.custom is not None:
        return {"type": "custom", "custom": _custom(tool, tool.custom)}
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _custom(tool: Tool, form: Grammar | AnyText) -> dict[str, Any]:
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description:
        custom["description"] = tool.description
    match form:
        case Grammar(syntax, definition):
            custom["format"] = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
        case AnyText.STATED:
            custom["format"] = {"type": "text"}
    return custom


def _tool_choice(chat: Chat) -> str | dict[str, Any] | None:
    match chat.tool_choice:
        case None:
            return None
        case NamedTool() as tool:
            return _named(tool)
        case AllowedTools(mode, tools):
            allowed = {"mode": mode.value, "tools": [_named(tool) for tool in tools]}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case mode:
            return mode.value


def _named(tool: NamedTool) -> dict[str, Any]:
    kind = "custom" if tool.custom else "function"
    return {"type": kind, kind: {"name": tool.name}}
