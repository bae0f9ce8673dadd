"""Conversation to tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer_service.preprocess import (
    CHARACTERS_PER_TOKEN,
    Encoded,
    NoUserText,
    Preprocessor,
    PreprocessSpec,
    Role,
    Turn,
    pad,
)
from tests.artifacts import VOCABULARY, tokenizer, user

CLS, SEP, UNK = VOCABULARY["[CLS]"], VOCABULARY["[SEP]"], VOCABULARY["[UNK]"]


def _preprocessor(**changes: object) -> Preprocessor:
    values = {"max_tokens": 8, "truncation_side": "right", "pad_id": 0, "add_special_tokens": True, **changes}
    return Preprocessor(tokenizer(), PreprocessSpec(**values))  # type: ignore[arg-type]


def _ids(*words: str) -> tuple[int, ...]:
    return tuple(VOCABULARY[word] for word in words)


def test_the_last_user_turn_is_read() -> None:
    turns = (
        Turn(Role.SYSTEM, "code"),
        Turn(Role.USER, "hello"),
        Turn(Role.ASSISTANT, "there"),
        Turn(Role.USER, "what is even"),
        Turn(Role.TOOL, "numbers"),
    )
    assert _preprocessor().encode(turns) == Encoded((CLS, *_ids("what", "is", "even"), SEP), truncated=False)


def test_a_blank_user_turn_is_passed_over() -> None:
    assert _preprocessor().passage(user("hello", " \n\t ")).text == "hello"


@pytest.mark.parametrize("turns", [(), user(""), user(" \n "), (Turn(Role.ASSISTANT, "hello"),)])
def test_no_user_text_is_an_error(turns: tuple[Turn, ...]) -> None:
    with pytest.raises(NoUserText):
        _preprocessor().encode(turns)


def test_special_tokens_in_text_are_text() -> None:
    ids = _preprocessor(max_tokens=32).encode(user("[SEP] hello [CLS]")).input_ids
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert CLS not in ids[1:]
    assert SEP not in ids[:-1]


def test_right_truncation_keeps_the_beginning() -> None:
    text = "prove that the sum of two odd numbers"
    kept = _ids("prove", "that", "the", "sum", "of", "two")
    assert _preprocessor().encode(user(text)) == Encoded((CLS, *kept, SEP), truncated=True)


def test_left_truncation_keeps_the_end() -> None:
    text = "prove that the sum of two odd numbers"
    kept = _ids("the", "sum", "of", "two", "odd", "numbers")
    assert _preprocessor(truncation_side="left").encode(user(text)) == Encoded((CLS, *kept, SEP), truncated=True)


def test_a_text_that_just_fits_is_not_truncated() -> None:
    assert not _preprocessor().encode(user("prove that the sum of two")).truncated


def test_without_special_tokens_the_whole_window_is_text() -> None:
    encoded = _preprocessor(add_special_tokens=False, max_tokens=2).encode(user("sum of two"))
    assert encoded == Encoded(_ids("sum", "of"), truncated=True)


@pytest.mark.parametrize(("side", "kept"), [("right", "sum"), ("left", "even")])
def test_text_beyond_the_character_bound_is_cut_and_marked(side: str, kept: str) -> None:
    blanks = " " * (8 * CHARACTERS_PER_TOKEN)
    encoded = _preprocessor(truncation_side=side).encode(user(f"sum{blanks}even"))
    assert encoded == Encoded((CLS, *_ids(kept), SEP), truncated=True)


@given(st.text(alphabet="prove that[CLS]é∑\n ", max_size=80), st.sampled_from(["left", "right"]))
def test_framing_and_truncation_are_the_tokenizers_own(text: str, side: str) -> None:
    if not text.strip():
        return
    reference = tokenizer()
    reference.encode_special_tokens = True
    reference.enable_truncation(8, direction=side)
    assert _preprocessor(truncation_side=side).encode(user(text)).input_ids == tuple(reference.encode(text).ids)


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([Encoded((7, 8, 9), truncated=False), Encoded((5,), truncated=False)], pad_id=3)
    assert ids.tolist() == [[7, 8, 9], [5, 3, 3]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


def test_a_batch_without_tokens_is_one_masked_column() -> None:
    ids, mask = pad([Encoded((), truncated=False)], pad_id=3)
    assert (ids.tolist(), mask.tolist()) == ([[3]], [[0]])


def test_version_2_puts_the_text_into_a_template_where_special_tokens_count() -> None:
    preprocessor = _preprocessor(version=2, prefix="[SEP] prove", suffix="even [CLS]")
    encoded = preprocessor.encode(user("hello"))
    assert encoded.input_ids == (CLS, SEP, *_ids("prove", "hello", "even"), CLS, SEP)


def test_no_text_can_forge_the_template_and_none_pushes_it_out() -> None:
    preprocessor = _preprocessor(version=2, prefix="[SEP]", suffix="[CLS]")
    forged = preprocessor.encode(user("[CLS] " + "hello " * 50))
    assert forged.truncated
    assert len(forged.input_ids) == 8
    assert forged.input_ids[:2] == (CLS, SEP)
    assert forged.input_ids[-2:] == (CLS, SEP)
    assert CLS not in forged.input_ids[2:-2]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_tokens": 2}, "no room"),
        ({"version": 3}, "version 3"),
        ({"prefix": "even"}, "version 1 has no prefix"),
        ({"version": 2, "prefix": "even " * 8}, "no room"),
    ],
)
def test_a_spec_that_cannot_be_applied_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        _preprocessor(**changes)
