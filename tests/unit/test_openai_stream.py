"""An answer's bytes as they are streamed: cut anywhere, with any line break, they are read alike."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.answer import Delta, FinishReason
from dispatcher_service.errors import UpstreamUnavailable
from dispatcher_service.openai_stream import Events, Reading

STREAM = (
    b": a comment\r\n\r\n"
    b"event: message\ndata: one\n\n"
    b"data:two\r\rid: 7\rdata:  three\r\r"
    b"data: four\r\ndata\r\ndata: five\r\n\r\n"
    b"\n\ndata:\n\ndata: \xc3\xa9\n\n"
    b"data: never ended\n"
)
DATA = [b"one", b"two", b" three", b"four\nfive", b"", "é".encode()]


@given(st.sets(st.integers(0, len(STREAM))))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts: set[int]) -> None:
    events = Events()
    borders = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(borders)]
    assert [data for piece in pieces for data in events.feed(piece)] == DATA


def test_a_long_line_in_many_pieces_is_copied_once() -> None:
    events = Events()
    assert events.feed(b"data: ") == []
    piece = b"x" * 1024
    for _ in range(32 * 1024):
        assert events.feed(piece) == []
    [data] = events.feed(b"\n\n")
    assert len(data) == 32 * 1024 * 1024


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": choices, **more}).encode() + b"\n\n"


def choice(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def read(reading: Reading, piece: bytes) -> list[Delta]:
    return list(reading.read(piece))


def test_what_comes_before_a_broken_event_of_the_same_read_is_read() -> None:
    deltas = Reading("d", choices=1).read(event([choice({"content": "a"})]) + b"data: {torn\n\n")
    assert next(deltas) == Delta(content="a")
    with pytest.raises(ValueError, match="property name"):
        next(deltas)


def test_chunks_of_one_read_are_deltas_of_their_own_and_what_follows_the_end_is_not_read() -> None:
    reading = Reading("d", choices=1)
    piece = event([choice({"content": "a"})]) + event([choice({"content": "b"})]) + event([choice({}, "stop")])
    assert read(reading, piece + b"data: [DONE]\n\ndata: {rubbish\n\n") == [Delta(content="a"), Delta(content="b")]
    assert reading.done
    assert reading.end().finish_reasons == (FinishReason.STOP,)


def test_members_of_any_chunk_that_have_no_field_are_kept() -> None:
    reading = Reading("d", choices=1)
    read(reading, event([], service_tier="priority", obfuscation="xx", usage=None))
    read(reading, event([choice({}, "eos")], citations=["u"]))
    end = reading.end()
    assert json.loads(end.origin.extra_json) == {"service_tier": "priority", "citations": ["u"]}
    assert end.upstream_finish_reasons == ("eos",)


def test_an_answer_of_which_a_choice_never_finished_is_not_whole() -> None:
    reading = Reading("d", choices=2)
    read(reading, event([choice({"content": "a"}, "stop")]) + b"data: [DONE]\n\n")
    with pytest.raises(UpstreamUnavailable, match="ended early"):
        reading.end()


def test_an_error_in_place_of_a_chunk_may_be_billed() -> None:
    with pytest.raises(UpstreamUnavailable, match="broke off with an error") as caught:
        read(Reading("d", choices=1), b'data: {"error": {"message": "out of memory"}}\n\n')
    assert caught.value.may_be_billed


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'"text"',
        b"{",
        b"\xff",
        b'{"choices": [1]}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": [{"index": 0, "delta": {"content": 7}}]}',
        b'{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": 7}]}',
        b'{"choices": [{"index": "0", "delta": {"content": "a"}}]}',
        b'{"choices": [], "usage": {"prompt_tokens": "20", "completion_tokens": 1}}',
        b'{"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}',
    ],
)
def test_what_has_another_shape_fails_where_it_is_read(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError, KeyError, IndexError)):
        read(Reading("d", choices=1), b"data: " + data + b"\n\n")
