"""A conversation and what is asked of it, as values: what the dispatcher works on once protos have stopped.

Every field that OpenAI chat completions know is here under OpenAI's name; JSON schemas and extra members are kept as
parsed JSON, so that 1 stays 1 and 1.0 stays 1.0.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher_service.closed_set import ClosedSet
from dispatcher_service.stickiness import Held

JsonObject = Mapping[str, Any]


OWNED_KEYS = frozenset(
    {
        "model", "messages", "n", "max_tokens", "max_completion_tokens", "stream", "stream_options", "service_tier",
        "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs",
        "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "user",
        "metadata", "functions", "function_call", "modalities", "audio", "store",
    }
)  # fmt: skip
"""Keys of a request that have a field of their own, change what is billed, or make an answer we could not pass on."""


class Role(ClosedSet):
    """Who wrote a message. The values are OpenAI's."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class PartKind(ClosedSet):
    """What a part of a message is. The values are keys of a model's `part_tokens`, apart from those that are text."""

    TEXT = "text"
    REFUSAL = "refusal"
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"


TEXTUAL = frozenset({PartKind.TEXT, PartKind.REFUSAL})


@dataclass(frozen=True, slots=True)
class Text:
    """Text that someone wrote, or a model's earlier refusal."""

    text: str
    kind: PartKind = PartKind.TEXT


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its URL, which may be a data URL. `detail` is empty where none was given."""

    url: str
    detail: str = ""
    kind = PartKind.IMAGE


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound: base64 and its format, `wav` or `mp3`."""

    data: str
    format: str
    kind = PartKind.AUDIO


@dataclass(frozen=True, slots=True)
class File:
    """A document: by its id at the upstream, or by its name and a data URL. Fields that do not apply are empty."""

    file_id: str = ""
    filename: str = ""
    file_data: str = ""
    kind = PartKind.FILE


Part = Text | Image | Audio | File


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made; `arguments` is JSON text as it wrote it, or the input of a `custom` tool: any text."""

    id: str
    name: str
    arguments: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `name` and `tool_call_id` are empty where there is none."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    @property
    def text(self) -> str:
        """Its text parts, one per line."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text) and part.kind is PartKind.TEXT)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar for the input of a custom tool; `syntax` is `lark` or `regex`."""

    syntax: str
    definition: str


class AnyText(enum.Enum):
    """The form of a custom tool's input without a grammar."""

    STATED = "text"
    UNSTATED = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema, `None` for none.

    A custom tool has a form of its input as `custom` instead, and neither `parameters` nor `strict`.
    """

    name: str
    description: str = ""
    parameters: JsonObject | None = None
    strict: bool | None = None
    custom: Grammar | AnyText | None = None


class ToolChoiceMode(enum.Enum):
    """A general rule for calling tools. The values are OpenAI's."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one function or custom tool to call."""

    name: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class AllowedTools:
    """Some of the tools."""

    mode: ToolChoiceMode
    tools: tuple[NamedTool, ...]


class PlainFormat(enum.Enum):
    """A form of the answer that needs no schema. The values are OpenAI's."""

    TEXT = "text"
    JSON_OBJECT = "json_object"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchemaFormat:
    """JSON by a schema."""

    name: str
    schema: JsonObject
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation with its parameters; `None` and empty mean "not sent: the upstream's default"."""

    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    logit_bias: Mapping[int, int] = field(default_factory=dict)
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: PlainFormat | JsonSchemaFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoiceMode | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str = ""
    user: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    extra_body: JsonObject = field(default_factory=dict)
    text_bytes: int
    """UTF-8 bytes of everything that becomes prompt text: messages, calls, tools, schema."""

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return 1 if self.n is None else self.n

    @property
    def calling(self) -> int | None:
        """Index of the last assistant message, if it called tools, has a result, and was not gone on from since."""
        last = len(self.messages) - 1
        for index in range(last, -1, -1):
            if self.messages[index].role is Role.ASSISTANT:
                results = any(message.role is Role.TOOL for message in self.messages[index + 1 :])
                return index if self.messages[index].tool_calls and results else None
        return None

    @property
    def in_tool_loop(self) -> bool:
        """True while a model waits for the results of its own tool calls: another model must not take over.

        What a user says between the results and the model's next words does not end the loop.
        """
        return self.calling is not None

    def other_parts(self) -> Iterator[tuple[str, PartKind]]:
        """The path and kind of every part that is not text."""
        for index, message in enumerate(self.messages):
            for part_index, part in enumerate(message.parts):
                if part.kind not in TEXTUAL:
                    yield f"chat.messages[{index}].content[{part_index}]", part.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a tenant.

    `caller_named` is true if the request id is the caller's own; `alpha` is the caller's override; `timeout` what is
    left of the caller's deadline in seconds, `None` without one; `conversation_id` the caller's name for what this is a
    turn of, empty without one; `held` what is remembered of it. `accept_replacement` is true of a stream that may show
    an answer which another one then replaces.
    """

    tenant_id: str
    chat: Chat
    request_id: str
    caller_named: bool = False
    alpha: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    conversation_id: str = ""
    held: Held | None = None
    accept_replacement: bool = False
