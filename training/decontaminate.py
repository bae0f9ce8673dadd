"""Training rows that evaluation must not see again: the same prompt, or one that means the same.

Exact is after taking case, spaces and punctuation away; near is a cosine of two sentence embeddings, as in RouteLLM's
appendix B, which drops the evaluation prompt where this drops the training row.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 0.95
"""The paper's cosine at and above which two prompts count as one."""

_BLOCK = 4096

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> embeddings of any length, [texts, width]."""

_NOT_A_LETTER = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Match:
    """A training row that an evaluation prompt stands behind.

    Attributes:
        row: index of the training prompt.
        evaluation: index of the evaluation prompt that is nearest.
        cosine: of both, or `None` for an exact match.
    """

    row: int
    evaluation: int
    cosine: float | None


def normalised(prompt: str) -> str:
    """Letters and digits alone, in one case. Empty where there is none: such prompts match nothing."""
    return _NOT_A_LETTER.sub("", prompt.casefold())


def find(
    training: Sequence[str], evaluation: Sequence[str], encode: Encode | None, *, near: float = NEAR
) -> list[Match]:
    """Find the contaminated training rows, in order.

    Args:
        training: prompts to be trained on.
        evaluation: prompts to be evaluated on.
        encode: gives the embeddings; `None` finds exact matches only.
        near: the least cosine that counts.
    """
    places = {key: place for place, prompt in reversed(list(enumerate(evaluation))) if (key := normalised(prompt))}
    found = {
        row: Match(row, place, None)
        for row, prompt in enumerate(training)
        if (place := places.get(normalised(prompt))) is not None
    }
    rest = [row for row in range(len(training)) if row not in found]
    if encode is not None and rest and evaluation:
        against = _unit(encode(evaluation))
        embeddings = _unit(encode([training[row] for row in rest]))
        for start in range(0, len(rest), _BLOCK):
            cosines = embeddings[start : start + _BLOCK] @ against.T
            nearest = cosines.argmax(axis=1)
            best = cosines[np.arange(len(nearest)), nearest]
            for offset in np.flatnonzero(best >= near):
                row = rest[start + offset]
                found[row] = Match(row, int(nearest[offset]), float(best[offset]))
    return [found[row] for row in sorted(found)]


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: NDArray[np.float32] = embeddings / np.maximum(length, np.float32(1e-12))
    return unit
