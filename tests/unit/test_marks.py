"""What an answer gives away about itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer_service.arithmetic import Equation, Numbers
from scorer_service.marks import NAMES, Marks, marks


def _equations(text: str) -> list[tuple[float, str]]:
    """The result of each equation, and whether it holds."""

    def verdict(equation: Equation) -> str:
        return "holds" if equation.holds else "rounded" if equation.rounded else "fails"

    return [(equation.result, verdict(equation)) for equation in Numbers(text).equations]


@pytest.mark.parametrize(
    ("text", "equations"),
    [
        ("3 + 4 = 7", [(7, "holds")]),
        ("3 + 4 = 8.", [(8, "fails")]),
        ("2 + 3 * 4 = 14", [(14, "holds")]),
        ("(2 + 3) * 4 = 20", [(20, "holds")]),
        ("10 - 4 - 3 = 3", [(3, "holds")]),
        ("12 * -3 = -36", [(-36, "holds")]),
        ("12 * -3 = 36", [(36, "fails")]),
        ("5 boxes x 8 pens/box = 40 pens", [(40, "holds")]),
        ("$1,500 × 2 = $3,000.00, then", [(3000, "holds")]),
        ("15 ÷ 2 = 7.5", [(7.5, "holds")]),
        (r"4 \times 6 = 24", [(24, "holds")]),
        ("20% of it: 20% * 50 = 10", [(10, "holds")]),
        ("3 / 5 = 60%", [(60, "holds")]),
        ("3 / 5 * 100 = 60%", [(60, "holds")]),
        ("10 / 3 = 3.33", [(3.33, "rounded")]),
        ("10 / 3 = 3.4", [(3.4, "fails")]),
        ("5 + 40/2 = 5 + 20 = 25", [(25, "holds"), (25, "holds")]),
        ("2 * 6 = 12 * 3 = 36", [(36, "fails"), (36, "holds")]),
        ("<<3*60=180>>180 and 7 = 7", [(180, "holds")]),
        ("x = 3", []),
        ("1 / 0 = 5", []),
        ("3 ( + 4 = 7", []),
        ("from 3 to 4, so 7", []),
        ("", []),
    ],
)
def test_a_written_sum_holds_is_rounded_or_fails(text: str, equations: list[tuple[float, str]]) -> None:
    assert _equations(text) == equations


def _value(name: str, answer: str, prompt: str = "Ann has 3 pens and buys 4.") -> float:
    return marks(prompt, answer).values[NAMES.index(name)]


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("any_fails", "3 + 4 = 8", 1.0),
        ("any_fails", "3 + 4 = 7", 0.0),
        ("no_equation", "It is 7.", 1.0),
        ("no_number", "Seven.", 1.0),
        ("final_has_fraction", "So 27.5", 1.0),
        ("final_is_result", "3 + 4 = 7. #### 7", 1.0),
        ("final_is_result", "3 + 4 = 7. #### 9", 0.0),
        ("final_in_prompt", "It is 4", 1.0),
        ("final_is_negative", "It is -4", 1.0),
        ("states_final", "The answer is 7", 1.0),
        ("ends_in_final", "3 + 4 = 7\n#### 7\n", 1.0),
        ("ends_in_final", "#### 7 and so on, at length, as it were", 0.0),
        ("ends_in_sentence", "Seven.", 1.0),
        ("ends_in_number", "It is 7", 1.0),
        ("left_open", "3 + 4 = <<3+4", 1.0),
        ("left_open", "3 + 4 = <<3+4=7>>7 (seven)", 0.0),
        ("prompt_numbers_used", "With 4 of them", 0.5),
        ("repeated_lines", "a\na\na\nb", 0.5),
    ],
)
def test_marks_say_what_their_names_say(name: str, answer: str, expected: float) -> None:
    assert _value(name, answer) == expected


def test_answers_that_come_to_the_same_have_one_conclusion() -> None:
    same = ("3 + 4 = 7", "So she has 7 pens.", "#### 7")
    assert len({marks("?", answer).conclusion for answer in same}) == 1
    assert marks("?", "It is -7").conclusion != marks("?", "It is 7").conclusion
    assert marks("?", "Well.\n  PARIS ").conclusion == marks("?", "paris").conclusion


@given(prompt=st.text(), answer=st.text())
def test_any_text_has_finite_marks(prompt: str, answer: str) -> None:
    found = marks(prompt, answer)
    assert len(found.values) == len(NAMES)
    assert all(abs(value) < 50 for value in found.values)
    assert 0 <= found.conclusion < 2**24
    assert found == Marks(found.values, found.conclusion)


@given(st.text(alphabet="0123456789.,%+-*/x()= ", max_size=200))
def test_any_arithmetic_is_read_without_an_error(text: str) -> None:
    marks(text, text)


@pytest.mark.parametrize("piece", ["(", "-", "1 + ", "1 ", "1=", "9", "1/0=", "<<", "%", "(1)=", "٣", "#### "])
def test_a_long_text_of_one_piece_is_read_to_its_end(piece: str) -> None:
    # Quadratic work, or recursion as deep as the text, would not come back within the test's deadline.
    found = marks("1 2 3", piece * 200_000)
    assert found.values[NAMES.index("characters")] > 12
