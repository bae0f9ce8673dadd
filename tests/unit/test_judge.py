"""Artefacts that judge answers: what is refused at load, and that a batch changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, Task, parse_manifest
from scorer_service.judge import open_judge
from scorer_service.preprocess import AnswerPreprocessor, Passage, PreprocessSpec
from scorer_service.scorer import open_scorer
from tests.answer_artifacts import BIAS, SPEC, write_answer, write_ranker
from tests.artifacts import VOCABULARY, WORDS, edit_file, edit_manifest, tokenizer, user, write

CLS, SEP = VOCABULARY["[CLS]"], VOCABULARY["[SEP]"]


def _ids(*words: str) -> tuple[int, ...]:
    return tuple(VOCABULARY[word] for word in words)


def test_prompt_and_answers_are_framed_apart_each_within_its_window() -> None:
    spec = PreprocessSpec(
        max_tokens=4, truncation_side="right", pad_id=0, add_special_tokens=True, version=3, answer_tokens=5
    )
    preprocessor = AnswerPreprocessor(tokenizer(), spec)
    [row] = preprocessor.encode([preprocessor.passages(user("what is the code"), ["hello", "two odd numbers even"])])
    assert row.prompt.input_ids == (CLS, *_ids("what", "is"), SEP)
    assert row.prompt.truncated
    first, second = row.answers
    assert (first.encoded.input_ids, first.encoded.truncated) == ((CLS, *_ids("hello"), SEP), False)
    # The end of an answer says what it comes to.
    assert second.encoded.input_ids == (CLS, *_ids("odd", "numbers", "even"), SEP)
    assert second.encoded.truncated


def test_an_answer_beyond_the_character_bound_is_read_from_its_end() -> None:
    preprocessor = AnswerPreprocessor(tokenizer(), SPEC)
    [answer] = preprocessor.passages(user("hello"), ["a" * 5_000 + "z"]).answers
    assert answer == Passage("a" * (SPEC.answer_tokens * 32 - 1) + "z", cut=True)


@pytest.mark.parametrize("kind", [write_answer, write_ranker])
def test_a_judges_numbers_do_not_depend_on_the_batch(tmp_path: Path, kind: Callable[[Path], Path]) -> None:
    judge = open_judge(kind(tmp_path / "made"), threads=1)
    generator = np.random.default_rng(0)

    def text() -> str:
        return " ".join(generator.choice(WORDS, size=generator.integers(1, 30)))

    batch = judge.preprocessor.encode(
        [judge.preprocessor.passages(user(text()), [text() for _ in judge.onnx.sides]) for _ in range(40)]
    )
    alone = np.concatenate([judge.onnx.together([row]) for row in batch])
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(judge.onnx.probabilities(batch), alone, atol=1e-6, rtol=0)
    np.testing.assert_allclose(judge.onnx.together(batch), alone, atol=1e-6, rtol=0)


def test_both_orders_are_averaged(tmp_path: Path) -> None:
    judge = open_judge(write_ranker(tmp_path / "made"), threads=1)
    passages = [judge.preprocessor.passages(user("hello"), pair) for pair in (("odd", "even"), ("even", "odd"))]
    one, other = judge.judge(passages).probabilities
    assert one + other == pytest.approx(1.0)
    straight, turned = judge.onnx.probabilities(judge.preprocessor.encode(passages))
    assert BIAS > 0, "the graph itself prefers the first"
    assert straight + turned > 1.01


def _opened(directory: Path) -> str:
    with pytest.raises(ArtifactError) as refusal:
        open_judge(directory)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["preprocess"].update(version=1), "with answer_tokens 24: it goes with version 3"),
        (lambda d: d["preprocess"].pop("answer_tokens"), "version 3 with answer_tokens 0"),
        (lambda d: d.update(router_kind="static"), "does not go with preprocess version 3"),
        (lambda d: d.update(strong_model="one", weak_model="other"), "must name no models"),
        (lambda d: d.update(router_kind="ranker"), "which is not what kind 'ranker' takes"),
    ],
)
def test_a_manifest_that_does_not_go_with_its_task_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    edit_manifest(write_answer(tmp_path / "made"), change)
    assert problem in _opened(tmp_path / "made")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace('"conclusion": ', '"conclusion": 1'), "line 1: the text becomes other token ids"),
        (lambda text: text.replace('"marks": [0.0', '"marks": [0.5'), "line 1: the text becomes other token ids"),
        (lambda text: text.replace('"win_probability": 0.', '"win_probability": 0.9'), "where 0.9"),
        (lambda text: text.replace('"answers"', '"others"'), "line 1 has 0 answers, and kind 'answer' judges 1"),
    ],
)
def test_golden_answers_that_come_out_otherwise_are_refused(
    tmp_path: Path, change: Callable[[str], str], problem: str
) -> None:
    edit_file(write_answer(tmp_path / "made"), artifacts.GOLDEN, change)
    assert problem in _opened(tmp_path / "made")


def test_a_judge_is_no_predictor_and_a_predictor_no_judge(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="kind 'answer' is to say whether an answer is acceptable"):
        open_scorer(write_answer(tmp_path / "judge"))
    assert "judges no answers" in _opened(write(tmp_path / "predictor"))


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    for kind, task in ((write_answer, Task.SCORE_ANSWER), (write_ranker, Task.RANK_ANSWERS)):
        manifest = artifacts.load(kind(tmp_path / task.name)).manifest
        assert manifest.task is task
        assert parse_manifest(manifest.to_json().encode()) == manifest
