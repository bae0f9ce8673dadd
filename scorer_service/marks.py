"""What an answer gives away about itself: sums that do not come out, an end that is cut off, a doubt that it states.

Part of preprocess version 3, for training and serving alike. Everything here is counted from the text in one pass, in
time linear in its length, whatever the text is; nothing is looked up and no model is asked. A number's meaning is its
name in `NAMES`; counts are log(1 + n), the rest are shares or 0/1.
"""

import math
import re
import zlib
from dataclasses import dataclass
from typing import Final

from scorer_service.arithmetic import Numbers

NAMES: Final = (
    "equations",  # sums with a result, such as 3 * 4 = 12
    "equations_hold",
    "equations_fail",
    "any_fails",
    "any_rounded",  # a result that is right after rounding only
    "no_equation",
    "no_number",
    "final_has_fraction",  # the final number is the last one in the text
    "final_is_result",  # of the last equation
    "final_in_prompt",
    "final_is_negative",
    "final_size",
    "states_final",  # says that something is the answer
    "ends_in_final",  # and ends with it
    "ends_in_sentence",
    "ends_in_number",
    "left_open",  # a bracket, a code fence or << that is never closed
    "prompt_numbers_used",  # share of the prompt's different numbers
    "numbers_unexplained",  # neither in the prompt nor a result
    "numbers",
    "prompt_numbers",
    "characters",
    "lines",
    "prompt_characters",
    "repeated_lines",  # share
    "hedges",  # words of doubt or refusal
)
"""The columns of `Marks.values`."""

_STATES_FINAL: Final = re.compile(r"####|\\boxed|\banswer\s*(?:is\b|:)|\bthe answer\b", re.IGNORECASE)
_ENDS_IN_FINAL: Final = re.compile(r"####\s*\S{1,40}\Z")
_HEDGES: Final = re.compile(
    r"\b(?:sorry|cannot|can't|unable|unclear|unsure|not sure|not certain|impossible|assum\w{1,8}|perhaps|maybe|"
    r"not enough information|as an ai|ambiguous|does not make sense|doesn't make sense|mistake|however|wait)\b",
    re.IGNORECASE,
)
_BRACKETS: Final = (("(", ")"), ("[", "]"), ("{", "}"), ("<<", ">>"))


@dataclass(frozen=True, slots=True)
class Marks:
    """What one answer gives away.

    Attributes:
        values: one number per name in `NAMES`, finite.
        conclusion: a 24-bit hash of what it comes to, its final number or last line: equal for answers that agree.
    """

    values: tuple[float, ...]
    conclusion: int


def marks(prompt: str, answer: str) -> Marks:
    """Read an answer beside its prompt."""
    answer = answer.strip()
    asked, sums = Numbers(prompt), Numbers(answer)
    equations = sums.equations
    holding = sum(equation.holds for equation in equations)
    rounded = sum(equation.rounded for equation in equations)
    failing = len(equations) - holding - rounded
    numbers = sums.numbers
    final = sums.final
    given, results = set(asked.numbers), {equation.result for equation in equations}
    distinct = set(numbers)
    lines = [line for line in map(str.strip, answer.splitlines()) if line]
    values = (
        math.log1p(len(equations)),
        math.log1p(holding),
        math.log1p(failing),
        float(failing > 0),
        float(rounded > 0),
        float(not equations),
        float(not numbers),
        float(final != math.trunc(final)),
        float(bool(equations) and final == equations[-1].result),
        float(bool(numbers) and abs(final) in given),
        float(final < 0.0),
        math.log1p(abs(final)),
        float(_STATES_FINAL.search(answer) is not None),
        float(_ENDS_IN_FINAL.search(answer[-60:]) is not None),
        float(answer.endswith((".", "!", "?", "`", ")", "]", "}", '"', "*", "。"))),
        float(answer[-1:].isdigit()),
        float(_left_open(answer)),
        len(given & distinct) / max(1, len(given)),
        math.log1p(len(distinct - given - results)),
        math.log1p(len(numbers)),
        math.log1p(len(asked.numbers)),
        math.log1p(len(answer)),
        math.log1p(len(lines)),
        math.log1p(len(prompt)),
        1.0 - len(set(lines)) / max(1, len(lines)),
        math.log1p(len(_HEDGES.findall(answer))),
    )
    comes_to = repr(final) if numbers else " ".join(lines[-1].casefold().split()) if lines else ""
    return Marks(values, zlib.crc32(comes_to.encode("utf-8", "surrogatepass")) & 0xFFFFFF)


def _left_open(text: str) -> bool:
    return text.count("```") % 2 == 1 or any(text.count(first) > text.count(last) for first, last in _BRACKETS)
