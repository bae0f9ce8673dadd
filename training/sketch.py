"""A small mark of which prompts a router has seen, without the prompts: enough to find it judged by its own lessons.

A bottom-k sketch: of the prompts' hashes, the `SIZE` smallest. A prompt whose hash lies below the largest of them is in
the sketch if and only if it was seen, so that any other set of prompts shows what share of it was.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.decontaminate import normalised

SIZE = 512
"""Hashes of one sketch: 4 KB as text. Of a benchmark as large as the training file, some 512 prompts are compared."""

_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of the prompts that a sketch can tell about were seen."""

    seen: int
    comparable: int

    @property
    def share(self) -> float:
        """Of the prompts that were seen, 0 where nothing can be compared."""
        return self.seen / self.comparable if self.comparable else 0.0


def make(prompts: Iterable[str]) -> str:
    """The sketch of a set of prompts, as text: hashes of `_DIGITS` hexadecimal digits, ascending, in one string."""
    return "".join(sorted(_hashes(prompts))[:SIZE])


def overlap(sketch: str, prompts: Sequence[str]) -> Overlap:
    """Compare prompts with a sketch; equal ones count once."""
    marks = [sketch[start : start + _DIGITS] for start in range(0, len(sketch), _DIGITS)]
    if not marks:
        return Overlap(0, 0)
    # A sketch that is not full holds every prompt there was.
    comparable = {mark for mark in _hashes(prompts) if len(marks) < SIZE or mark <= marks[-1]}
    return Overlap(len(comparable.intersection(marks)), len(comparable))


def _hashes(prompts: Iterable[str]) -> set[str]:
    """Of the letters and digits alone, so that layout makes no other prompt."""
    return {hashlib.sha256(normalised(prompt).encode()).hexdigest()[:_DIGITS] for prompt in prompts}
