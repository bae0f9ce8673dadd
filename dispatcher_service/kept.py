"""The result of a request as a document: what of it is kept, and how it is written.

The body is JSON, by the names of our own dataclasses' fields. A field that a later version adds has a default, so that
versions N and N+1 read each other's results; a body that cannot be read counts as none.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydantic

from dispatcher_service import assembly
from dispatcher_service.answer import Completion, End, Idempotency
from dispatcher_service.chat import Request
from dispatcher_service.dispatch import Answer, Finished, Started, StreamEvent
from dispatcher_service.outcome import Bill, Choice

MAX_BYTES = 1_048_576
"""Of a result as a document: larger ones are not kept."""

_NOT_IN_HASH = ("tenant_id", "request_id", "caller_named", "timeout", "held", "accept_replacement")


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
        for piece in assembly.pieces(answer.completion):
            if isinstance(piece, End):
                yield Finished(choice=answer.choice, end=piece, bill=answer.bill, idempotency=Idempotency.REPLAYED)
            else:
                yield piece


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
