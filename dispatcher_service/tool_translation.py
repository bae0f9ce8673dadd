"""Tools from protos to values, checked. Field paths in errors are those of the proto."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dispatcher_service.chat import AllowedTools, AnyText, Grammar, NamedTool, Tool, ToolCall, ToolChoiceMode
from dispatcher_service.errors import InvalidRequest
from pointsman.dispatcher.v1 import chat_pb2

_TOOL_CHOICES: Final = {
    chat_pb2.TOOL_CHOICE_MODE_NONE: ToolChoiceMode.NONE,
    chat_pb2.TOOL_CHOICE_MODE_AUTO: ToolChoiceMode.AUTO,
    chat_pb2.TOOL_CHOICE_MODE_REQUIRED: ToolChoiceMode.REQUIRED,
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_TOOLS: Final = 128


def read_tool_call(call: chat_pb2.ToolCall, path: str) -> ToolCall:
    """A call that a model made, repeated by the caller."""
    if not call.id:
        raise InvalidRequest(f"{path}.id", "repeat the id that the model gave")
    if not call.name:
        raise InvalidRequest(f"{path}.name", "repeat the name that the model gave")
    return ToolCall(id=call.id, name=call.name, arguments=call.arguments_json, custom=call.custom)


def read_tools(tools: Iterable[chat_pb2.Tool]) -> tuple[Tool, ...]:
    """The tools, with distinct names."""
    read = tuple(_tool(tool, f"chat.tools[{index}]") for index, tool in enumerate(tools))
    if len(read) > _MAX_TOOLS:
        raise InvalidRequest("chat.tools", f"{len(read)} tools: keep at most {_MAX_TOOLS}")
    names: set[str] = set()
    for index, tool in enumerate(read):
        if tool.name in names:
            raise InvalidRequest(f"chat.tools[{index}].name", f"{tool.name!r} stands twice: rename one")
        names.add(tool.name)
    return read


def _tool(tool: chat_pb2.Tool, path: str) -> Tool:
    return Tool(
        name=read_name(tool.name, f"{path}.name"),
        description=tool.description,
        parameters=read_json_object(tool.parameters_json, f"{path}.parameters_json") if tool.parameters_json else None,
        strict=tool.strict if tool.HasField("strict") else None,
        custom=_custom(tool, path),
    )


def _custom(tool: chat_pb2.Tool, path: str) -> Grammar | AnyText | None:
    if not tool.HasField("custom"):
        return None
    for field, is_set in (("parameters_json", bool(tool.parameters_json)), ("strict", tool.HasField("strict"))):
        if is_set:
            raise InvalidRequest(f"{path}.{field}", "a custom tool has none: remove it, or remove custom")
    grammar = tool.custom.grammar
    match tool.custom.WhichOneof("format"):
        case None:
            return AnyText.UNSTATED
        case "text":
            return AnyText.STATED
    if grammar.syntax not in ("lark", "regex"):
        raise InvalidRequest(
            f"{path}.custom.grammar.syntax", f"{grammar.syntax[:20]!r} is unknown: write lark or regex"
        )
    if not grammar.definition:
        raise InvalidRequest(f"{path}.custom.grammar.definition", "empty: write the grammar")
    return Grammar(grammar.syntax, grammar.definition)


def read_tool_choice(chat: chat_pb2.Chat) -> ToolChoiceMode | NamedTool | AllowedTools:
    """Which of the tools the model is to call, where that is said."""
    if not chat.tools:
        raise InvalidRequest("chat.tool_choice", "there are no tools: add chat.tools, or remove it")
    choice, custom = chat.tool_choice, {tool.name: tool.HasField("custom") for tool in chat.tools}
    match choice.WhichOneof("choice"):
        case "function":
            return _named(choice.function, custom, "chat.tool_choice.function", wanted=False)
        case "custom":
            return _named(choice.custom, custom, "chat.tool_choice.custom", wanted=True)
        case "allowed":
            mode = _TOOL_CHOICES.get(choice.allowed.mode)
            if mode not in (ToolChoiceMode.AUTO, ToolChoiceMode.REQUIRED):
                raise InvalidRequest("chat.tool_choice.allowed.mode", "write TOOL_CHOICE_MODE_AUTO or _REQUIRED")
            if not choice.allowed.names:
                raise InvalidRequest("chat.tool_choice.allowed.names", "add at least one of chat.tools")
            path = "chat.tool_choice.allowed.names"
            return AllowedTools(mode, tuple(_named(name, custom, path, wanted=None) for name in choice.allowed.names))
    if choice.mode not in _TOOL_CHOICES:
        raise InvalidRequest("chat.tool_choice", "set a mode, a function, a custom tool or some allowed tools")
    return _TOOL_CHOICES[choice.mode]


def _named(name: str, custom: Mapping[str, bool], path: str, *, wanted: bool | None) -> NamedTool:
    """One of the tools; `custom` says of each whether it is a custom one, `wanted` whether it must be."""
    if name not in custom or wanted not in (None, custom[name]):
        kind = {None: "", False: "functions of ", True: "custom tools of "}[wanted]
        raise InvalidRequest(path, f"{name[:64]!r} is not among the {kind}chat.tools")
    return NamedTool(name, custom[name])


def read_name(name: str, path: str) -> str:
    """A name as tools and schemas have."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(path, f"{name[:64]!r} cannot be a name: write 1 to 64 letters, digits, _ or -")
    return name


def read_json_object(text: str, path: str) -> Mapping[str, Any]:
    """A JSON object from its text; 1 stays 1 and 1.0 stays 1.0."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(path, f"not JSON ({error}): write a JSON object") from error
    if not isinstance(value, dict):
        raise InvalidRequest(path, f"a JSON {type(value).__name__}: write a JSON object")
    return value


def _refuse_constant(name: str) -> None:
    # RFC 8259 knows no NaN and Infinity, which Python's reader takes by default.
    raise ValueError(f"{name} is no JSON number")
