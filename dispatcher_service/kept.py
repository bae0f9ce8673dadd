"""The result of a request as a document: what of it is kept, how it is written, and how a stream becomes one.

The body is JSON, by the names of our own dataclasses' fields. A field that a later version adds has a default, so that
versions N and N+1 read each other's results; a body that cannot be read counts as none.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pydantic

from dispatcher_service.answer import Choice as Answered
from dispatcher_service.answer import (
    Completion,
    Delta,
    Idempotency,
    Logprobs,
    ToolCallDelta,
    extra_of_choice,
    extra_of_pieces,
)
from dispatcher_service.answer import End as Ended
from dispatcher_service.chat import Request, ToolCall
from dispatcher_service.dispatch import Answer, Finished, Started, StreamEvent
from dispatcher_service.outcome import Bill, Choice

MAX_BYTES = 1_048_576
"""Of a result as a document: larger ones are not kept."""

_NOT_IN_HASH = ("tenant_id", "request_id", "caller_named", "timeout", "held")


@dataclass(frozen=True, slots=True)
class KeptError:
    """An error that cost something: what the caller was told."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a request ended: with an answer, or with an error that cost something."""

    choice: Choice | None = None
    completion: Completion | None = None
    bill: Bill | None = None
    error: KeptError | None = None

    @classmethod
    def of(cls, answer: Answer) -> "Result":
        """Of an answer. The scorer's quantiles, which nobody replays, are left out."""
        choice = answer.choice
        if choice.prediction is not None:
            choice = dataclasses.replace(choice, prediction=dataclasses.replace(choice.prediction, quantiles=()))
        return cls(choice=choice, completion=answer.completion, bill=answer.bill)

    def answer(self) -> Answer:
        """The answer again, marked as replayed."""
        assert self.choice is not None
        assert self.completion is not None
        assert self.bill is not None
        return Answer(choice=self.choice, completion=self.completion, bill=self.bill, idempotency=Idempotency.REPLAYED)

    def events(self) -> Iterator[StreamEvent]:
        """The answer as a stream: the decision, one delta per choice, the end."""
        answer = self.answer()
        yield Started(answer.choice, idempotency=Idempotency.REPLAYED)
        for choice in answer.completion.choices:
            calls = enumerate(choice.tool_calls)
            delta = Delta(
                index=choice.index,
                content=choice.content,
                refusal=choice.refusal,
                tool_calls=tuple(
                    ToolCallDelta(index, call.id, call.name, call.arguments, call.custom) for index, call in calls
                ),
                logprobs=choice.logprobs,
                extra_json=extra_of_choice(choice),
            )
            if delta != Delta(index=choice.index):
                yield delta
        words = tuple(choice.upstream_finish_reason for choice in answer.completion.choices)
        end = Ended(
            finish_reasons=tuple(choice.finish_reason for choice in answer.completion.choices),
            usage=answer.completion.usage,
            origin=answer.completion.origin,
            upstream_finish_reasons=words if any(words) else (),
        )
        yield Finished(choice=answer.choice, end=end, bill=answer.bill, idempotency=Idempotency.REPLAYED)


_ADAPTER = pydantic.TypeAdapter(Result)


def write(result: Result) -> Any:
    """A result as JSON types; `read` gives it back."""
    return json.loads(_json(_ADAPTER.dump_python(result)))


def read(raw: Any) -> Result:
    """A result from JSON types.

    Raises:
        ValueError: it is none, or a version's that this one cannot read.
    """
    return _ADAPTER.validate_python(_with_bytes(raw))


def body_hash(request: Request) -> str:
    """Equal for equal requests: of everything that is asked, however mappings were ordered; not of by whom or when."""
    value = dataclasses.asdict(request)
    for name in _NOT_IN_HASH:
        del value[name]
    return hashlib.sha256(_json(value).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, default=_jsonable, sort_keys=True, separators=(",", ":"))


def _jsonable(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    raise TypeError(f"not for a document: {type(value).__name__}")


def _with_bytes(value: Any) -> Any:
    """Undoes what `_jsonable` does to bytes, which JSON does not have."""
    if isinstance(value, list):
        return [_with_bytes(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    return {key: _with_bytes(each) for key, each in value.items()}


@dataclass(slots=True)
class Assembly:
    """Puts the events of a stream together to the answer that they are."""

    _pieces: dict[int, list[Delta]] = field(default_factory=dict)

    def add(self, delta: Delta) -> None:
        """Take another piece."""
        self._pieces.setdefault(delta.index, []).append(delta)

    def answer(self, finished: Finished) -> Answer:
        """The whole, once it has ended."""
        end = finished.end
        choices = []
        words = end.upstream_finish_reasons or ("",) * len(end.finish_reasons)
        for index, (reason, word) in enumerate(zip(end.finish_reasons, words, strict=True)):
            pieces = self._pieces.get(index, [])
            choices.append(
                Answered(
                    index=index,
                    content="".join(piece.content for piece in pieces),
                    refusal="".join(piece.refusal for piece in pieces),
                    tool_calls=_calls(pieces),
                    finish_reason=reason,
                    upstream_finish_reason=word,
                    logprobs=_logprobs(pieces),
                    extra_json=extra_of_pieces(pieces),
                )
            )
        completion = Completion(choices=tuple(choices), usage=end.usage, origin=end.origin)
        return Answer(choice=finished.choice, completion=completion, bill=finished.bill)


def _calls(pieces: list[Delta]) -> tuple[ToolCall, ...]:
    calls: dict[int, ToolCall] = {}
    for piece in (call for delta in pieces for call in delta.tool_calls):
        known = calls.get(piece.index, ToolCall("", "", ""))
        calls[piece.index] = ToolCall(
            known.id or piece.id,
            known.name or piece.name,
            known.arguments + piece.arguments,
            known.custom or piece.custom,
        )
    return tuple(calls[index] for index in sorted(calls))


def _logprobs(pieces: list[Delta]) -> Logprobs | None:
    found = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    if not found:
        return None
    return Logprobs(
        content=tuple(token for each in found for token in each.content),
        refusal=tuple(token for each in found for token in each.refusal),
    )
