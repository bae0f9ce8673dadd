"""A conversation and what is asked of it, as values: what the dispatcher works on once protos have stopped."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Role(enum.Enum):
    """Who wrote a message. The values are OpenAI's."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(enum.Enum):
    """Why a model stopped. The values are OpenAI's; `UNKNOWN` stands for one that this version does not know."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `texts` are its text parts in order; `name` is empty where none was given."""

    role: Role
    texts: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation with its sampling parameters; `None` and empty mean "the upstream's default"."""

    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def text_bytes(self) -> int:
        """UTF-8 bytes of all text."""
        return sum(len(text.encode()) for message in self.messages for text in message.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a tenant.

    `alpha` is the caller's override; `timeout` what is left of the caller's deadline in seconds, `None` without one.
    """

    tenant_id: str
    chat: Chat
    request_id: str
    alpha: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
