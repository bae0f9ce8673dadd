"""From the bytes of OpenAI's chunks to our values: an answer as it is streamed.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from dispatcher_service import openai_wire
from dispatcher_service.answer import Delta, End, FinishReason
from dispatcher_service.errors import UpstreamUnavailable
from dispatcher_service.pricing import Usage

_LAST: Final = b"[DONE]"
_DECODER: Final = json.JSONDecoder()


class Events:
    """Cuts bytes into the data of events. Names, ids and comments, which chat completions do not use, are left out."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        """The line that has not ended yet, as it came: joined once, so that a long one costs no more than its bytes."""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that end in this piece, which may begin and end anywhere."""
        if self._begun:
            if b"\n" not in piece and b"\r" not in piece:
                self._begun.append(piece)
                return []
            piece = b"".join((*self._begun, piece))
        if b"\r" in piece:
            # One at the very end may be half of a line break.
            piece, half = (piece[:-1], b"\r") if piece.endswith(b"\r") else (piece, b"")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + half
        lines = piece.split(b"\n")
        rest = lines.pop()
        self._begun = [rest] if rest else []
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return events


class Reading:
    """What a stream has brought so far."""

    def __init__(self, deployment: str, choices: int) -> None:
        """`choices` is how many were asked for."""
        self.begun = False
        """Whether the answer itself has begun, and not only the stream."""
        self.done = False
        """Whether the upstream has said that nothing more comes."""
        self._deployment = deployment
        self._choices = choices
        self._events = Events()
        self._finish_reasons: dict[int, FinishReason] = {}
        self._usage: Usage | None = None
        self._words: dict[int, str] = {}
        self._first: openai_wire.Json | None = None
        self._beside: dict[str, Any] = {}

    def read(self, piece: bytes) -> Iterator[Delta]:
        """The deltas that a piece completes, each before what follows it is looked at: that may be no chunk.

        Raises:
            UpstreamUnavailable: the upstream says that it failed.
            ValueError, TypeError, AttributeError, KeyError, IndexError: see `openai_wire`.
        """
        for data in self._events.feed(piece):
            if data.startswith(_LAST):
                self.done = True
                return
            chunk = _parsed(data)
            self._note(chunk)
            # The last chunk, which carries the usage, has no choices.
            for choice in chunk.get("choices") or ():
                reason = choice.get("finish_reason")
                if reason:
                    self.begun = True
                    index = openai_wire.read_index(choice)
                    self._finish_reasons[index] = openai_wire.read_finish_reason(reason)
                    self._words[index] = openai_wire.unknown_word(reason)
                delta = openai_wire.read_delta(choice)
                if delta is not None:
                    self.begun = True
                    yield delta

    def end(self) -> End:
        """The end of a whole stream.

        Raises:
            UpstreamUnavailable: it stopped before that.
        """
        indices = range(self._choices)
        if self._first is None or sorted(self._finish_reasons) != list(indices):
            raise UpstreamUnavailable(self._deployment, "the stream ended early", may_be_billed=True)
        words = tuple(self._words[index] for index in indices)
        return End(
            finish_reasons=tuple(self._finish_reasons[index] for index in indices),
            usage=self._usage,
            origin=openai_wire.read_origin(self._first, self._beside),
            upstream_finish_reasons=words if any(words) else (),
        )

    def _note(self, chunk: openai_wire.Json) -> None:
        """What a chunk says beside its choices."""
        if chunk.get("error"):
            raise UpstreamUnavailable(self._deployment, "broke off with an error", may_be_billed=True)
        self._first = self._first or chunk
        beside = openai_wire.extra_of_answer(chunk)
        if beside:
            self._beside |= beside
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = openai_wire.read_usage(usage)


def _parsed(data: bytes) -> openai_wire.Json:
    # Half the time of `json.loads`, which guesses the encoding first and looks for white space with expressions.
    text = data.decode().strip()
    chunk: openai_wire.Json
    chunk, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("something follows a chunk's JSON")
    return chunk
