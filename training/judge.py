"""What a judge is asked and how its word is read; how an answer is compared with a known one. No network here."""

import enum
import re

GRADES = (1, 2, 3, 4, 5)

_GRADING = """\
You grade the answer of an assistant. You are shown a question, a reference answer that counts as excellent, and the \
answer to grade. Judge whether the answer would serve the asker: correctness first, then completeness and clarity. \
Length is no merit, and a different style is no fault.

5: as good as the reference or better
4: good; small flaws that do not matter
3: usable; clearly worse than the reference
2: poor; mostly wrong or unhelpful
1: useless or wrong

End with the grade alone on the last line, as Grade: N"""

_GRADE = re.compile(r"grade\W{0,4}([1-5])\b", re.IGNORECASE)
_BARE_GRADE = re.compile(r"\W*([1-5])\W*")


class AnswerKind(enum.Enum):
    """How an answer is compared with the known one; the values are those of `--answers`."""

    CHOICE = "choice"
    """A letter: the last one that the text commits to."""
    NUMBER = "number"
    """A number: the last one in the text."""
    EXACT = "exact"
    """The whole text, without regard to case, spaces and punctuation around it."""


def grading_messages(prompt: str, reference: str, answer: str) -> list[dict[str, str]]:
    """The conversation in which a judge grades `answer`."""
    shown = f"[Question]\n{prompt}\n\n[Reference answer]\n{reference}\n\n[Answer to grade]\n{answer}"
    return [{"role": "system", "content": _GRADING}, {"role": "user", "content": shown}]


def read_grade(text: str) -> int | None:
    """The grade that a judge's reply ends with; `None` if it gives none."""
    named = _GRADE.findall(text)
    if named:
        return int(named[-1])
    bare = _BARE_GRADE.fullmatch(text.strip().rpartition("\n")[2])
    return int(bare[1]) if bare else None


_CHOSEN = re.compile(r"(?i:answer|choice|option)\W{0,3}(?i:is|:)?\W{0,4}([A-J])\b")
_LETTER = re.compile(r"\W*([A-J])(?:[).:]|\W*$)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def is_correct(answer: str, known: str, kind: AnswerKind) -> bool | None:
    """Whether an answer agrees with the known one; `None` if it holds none, which is not the same as wrong."""
    match kind:
        case AnswerKind.CHOICE:
            chosen = _chosen(answer)
            return None if chosen is None else chosen == _chosen(known)
        case AnswerKind.NUMBER:
            found, expected = _last_number(answer), _last_number(known)
            return None if found is None else found == expected
        case AnswerKind.EXACT:
            return _plain(answer) == _plain(known)


def _chosen(text: str) -> str | None:
    committed = _CHOSEN.findall(text)
    if committed:
        return str(committed[-1])
    # "A" is a word too: a lone letter counts where it is all there is on the first or last line.
    for line in (text.strip().partition("\n")[0], text.strip().rpartition("\n")[2]):
        if found := _LETTER.match(line.strip()):
            return str(found[1])
    return None


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*$")
