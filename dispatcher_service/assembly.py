"""From the pieces of an answer to the whole, and back."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dispatcher_service.answer import (
    Choice,
    Completion,
    Delta,
    End,
    Logprobs,
    ToolCallDelta,
    extra_of_choice,
    extra_of_pieces,
)
from dispatcher_service.chat import ToolCall


def pieces(completion: Completion) -> Iterator[Delta | End]:
    """A whole answer as a stream: one delta per choice, unless that is empty, and the end."""
    for choice in completion.choices:
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
    words = tuple(choice.upstream_finish_reason for choice in completion.choices)
    yield End(
        finish_reasons=tuple(choice.finish_reason for choice in completion.choices),
        usage=completion.usage,
        origin=completion.origin,
        upstream_finish_reasons=words if any(words) else (),
    )


@dataclass(slots=True)
class Assembly:
    """Puts the pieces of a stream together to the answer that they are."""

    deltas: list[Delta] = field(default_factory=list)
    """As they came."""

    def add(self, delta: Delta) -> None:
        """Take another piece."""
        self.deltas.append(delta)

    def clear(self) -> None:
        """Another answer begins."""
        self.deltas.clear()

    def completion(self, end: End) -> Completion:
        """The whole, once it has ended."""
        by_choice: dict[int, list[Delta]] = {}
        for delta in self.deltas:
            by_choice.setdefault(delta.index, []).append(delta)
        words = end.upstream_finish_reasons or ("",) * len(end.finish_reasons)
        choices = []
        for index, (reason, word) in enumerate(zip(end.finish_reasons, words, strict=True)):
            found = by_choice.get(index, [])
            choices.append(
                Choice(
                    index=index,
                    content="".join(piece.content for piece in found),
                    refusal="".join(piece.refusal for piece in found),
                    tool_calls=_calls(found),
                    finish_reason=reason,
                    upstream_finish_reason=word,
                    logprobs=_logprobs(found),
                    extra_json=extra_of_pieces(found),
                )
            )
        return Completion(choices=tuple(choices), usage=end.usage, origin=end.origin)


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
    known = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    if not known:
        return None
    return Logprobs(
        content=tuple(token for each in known for token in each.content),
        refusal=tuple(token for each in known for token in each.refusal),
    )
