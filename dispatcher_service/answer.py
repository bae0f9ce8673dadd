"""What a model answers, whole or in pieces, as values."""

import enum
from dataclasses import dataclass

from dispatcher_service.chat import ToolCall
from dispatcher_service.pricing import Usage


class FinishReason(enum.Enum):
    """Why a model stopped. The values are OpenAI's; `UNKNOWN` stands for one that this version does not know."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"


class Idempotency(enum.Enum):
    """What became of a result under the caller's request id (see idempotency.py)."""

    OFF = "off"
    """The caller named no request, or the tenant keeps no results."""
    KEPT = "kept"
    """A retry gets this result again."""
    REPLAYED = "replayed"
    """This is the first result again: nothing was called."""
    TOO_LARGE = "too_large"
    """Too large to keep: a retry runs anew."""
    NOT_KEPT = "not_kept"
    """It could not be written: a retry runs anew."""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have been generated; `token_bytes` is `None` where the upstream gives none."""

    token: str
    logprob: float
    token_bytes: bytes | None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token with its alternatives."""

    token: str
    logprob: float
    token_bytes: bytes | None
    top: tuple[TopLogprob, ...]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities of the tokens of a content and of a refusal."""

    content: tuple[TokenLogprob, ...] = ()
    refusal: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What the upstream says of its own answer; empty where it says nothing."""

    completion_id: str = ""
    model: str = ""
    system_fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer."""

    index: int
    content: str
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    logprobs: Logprobs | None = None

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of what was generated."""
        calls = sum(len(call.name) + len(call.arguments.encode()) for call in self.tool_calls)
        return len(self.content.encode()) + len(self.refusal.encode()) + calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A model's whole answer. `usage` is `None` if the upstream reported none."""

    choices: tuple[Choice, ...]
    usage: Usage | None
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; `id` and `name` are empty after the first."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of one choice; never empty."""

    index: int = 0
    content: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: Logprobs | None = None

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of what was generated."""
        calls = sum(len(call.name) + len(call.arguments.encode()) for call in self.tool_calls)
        return len(self.content.encode()) + len(self.refusal.encode()) + calls


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an upstream's stream; one finish reason per choice. `usage` is `None` if none was reported."""

    finish_reasons: tuple[FinishReason, ...]
    usage: Usage | None
    origin: Origin = Origin()
