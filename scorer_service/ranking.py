"""From comparisons of every two answers to how each does against the others. Serving and evaluation both call it."""

import itertools
from collections.abc import Sequence


def win_rates(answers: int, preferred: Sequence[float]) -> list[float]:
    """The mean probability that an answer is better than one of the others, of each.

    Args:
        answers: how many, at least two.
        preferred: P(the first is better) of every two, in the order of `itertools.combinations`; of these numbers both
            orders of the two are averaged already (see `judge`).
    """
    won = [0.0] * answers
    for (one, other), probability in zip(itertools.combinations(range(answers), 2), preferred, strict=True):
        won[one] += probability
        won[other] += 1.0 - probability
    return [wins / (answers - 1) for wins in won]
