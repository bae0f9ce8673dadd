"""A judge's word and a model's answer are read as a person would read them."""

import pytest

from training.judge import AnswerKind, grading_messages, is_correct, read_grade


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("The answer is right but long.\nGrade: 4", 4),
        ("grade 2 would be harsh; I settle on\n**Grade: 3**", 3),
        ("5", 5),
        ("It is fine.\n[[2]]", 2),
        ("7 of 10", None),
        ("Grade: 6", None),
        ("", None),
    ],
)
def test_the_last_named_grade_counts_and_nothing_is_guessed(text: str, grade: int | None) -> None:
    assert read_grade(text) == grade


@pytest.mark.parametrize(
    ("answer", "known", "kind", "correct"),
    [
        ("The answer is (B).", "B", AnswerKind.CHOICE, True),
        ("A quick look suggests C, but no.\nAnswer: D", "D", AnswerKind.CHOICE, True),
        ("B. Because it floats", "B", AnswerKind.CHOICE, True),
        ("C", "B", AnswerKind.CHOICE, False),
        ("I cannot tell.", "B", AnswerKind.CHOICE, None),
        ("So she has $1,250.00 left", "1250", AnswerKind.NUMBER, True),
        ("7 boxes and 3 more make 10", "12", AnswerKind.NUMBER, False),
        ("none", "12", AnswerKind.NUMBER, None),
        (" Paris. ", "paris", AnswerKind.EXACT, True),
        ("London", "paris", AnswerKind.EXACT, False),
    ],
)
def test_answers_are_compared_in_their_kind(answer: str, known: str, kind: AnswerKind, correct: bool | None) -> None:
    assert is_correct(answer, known, kind) is correct


def test_the_judge_sees_question_reference_and_answer() -> None:
    _, user = grading_messages("q?", "the reference", "the answer")
    assert all(part in user["content"] for part in ("q?", "the reference", "the answer"))
