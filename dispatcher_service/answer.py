"""What a model answers, whole or in pieces, as values."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dispatcher_service.chat import ToolCall
from dispatcher_service.closed_set import ClosedSet
from dispatcher_service.pricing import Usage


class FinishReason(ClosedSet):
    """Why a model stopped. The values are OpenAI's; `UNKNOWN` stands for one that this version does not know."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"


class Idempotency(ClosedSet):
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
    """What the upstream says of its own answer; empty where it says nothing.

    `extra_json`, here and below, is a JSON object of the members that have no field of ours, or empty.
    """

    completion_id: str = ""
    model: str = ""
    system_fingerprint: str = ""
    created: int = 0
    extra_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer."""

    index: int
    content: str
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    upstream_finish_reason: str = ""
    """The upstream's own word where `finish_reason` is `UNKNOWN`."""
    logprobs: Logprobs | None = None
    extra_json: str = ""

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of what was generated."""
        calls = sum(len(call.name) + len(call.arguments.encode()) for call in self.tool_calls)
        return len(self.content.encode()) + len(self.refusal.encode()) + len(self.extra_json.encode()) + calls


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
    custom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of one choice; never empty."""

    index: int = 0
    content: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: Logprobs | None = None
    extra_json: str = ""

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of what was generated."""
        content = len(self.content.encode())
        if not (self.refusal or self.extra_json or self.tool_calls):
            return content  # Nearly every piece.
        calls = sum(len(call.name) + len(call.arguments.encode()) for call in self.tool_calls)
        return content + len(self.refusal.encode()) + len(self.extra_json.encode()) + calls


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an upstream's stream; one finish reason per choice. `usage` is `None` if none was reported."""

    finish_reasons: tuple[FinishReason, ...]
    usage: Usage | None
    origin: Origin = Origin()
    upstream_finish_reasons: tuple[str, ...] = ()
    """The upstream's own words where a finish reason is `UNKNOWN`, by choice; empty if all are known."""


def extra_of_pieces(pieces: Iterable[Delta]) -> str:
    """The `extra_json` of the choice that these pieces make: texts and lists are joined, other members replaced."""
    whole: dict[str, Any] = {}
    for piece in pieces:
        if piece.extra_json:
            _merge(whole, json.loads(piece.extra_json))
    return _renamed(whole, "delta", "message")


def extra_of_choice(choice: Choice) -> str:
    """The `extra_json` of a piece that is a whole choice."""
    return _renamed(json.loads(choice.extra_json), "message", "delta") if choice.extra_json else ""


def _merge(whole: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        match whole.get(key), value:
            case dict() as known, dict():
                _merge(known, value)
            case (str(), str()) | (list(), list()):
                whole[key] += value
            case _:
                whole[key] = value


def _renamed(members: dict[str, Any], old: str, new: str) -> str:
    renamed = {new if key == old else key: value for key, value in members.items()}
    return json.dumps(renamed, ensure_ascii=False, separators=(",", ":")) if renamed else ""
