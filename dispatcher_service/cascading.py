"""The rules of a cascade. There is one definition: serving, evaluation and simulation all call it.

A cascade (FrugalGPT) asks models from the cheapest to the dearest until an answer is accepted. The hybrid of cascade
and routing looks at the prompt first: what is clearly easy goes to the weakest model and what is clearly hard to the
strongest, each without a check; what lies between cascades.
"""

import enum
from collections.abc import Sequence


class Zone(enum.Enum):
    """How hard a prompt looks before any model has answered it."""

    EASY = "easy"
    MIDDLE = "middle"
    HARD = "hard"


def zone(win_probability: float, *, easy_alpha: float, hard_alpha: float) -> Zone:
    """Where a prompt goes in the hybrid of routing and cascade.

    Args:
        win_probability: P(strong beats weak), in [0, 1].
        easy_alpha: below it a prompt is easy; 0 for none.
        hard_alpha: from it on a prompt is hard, as `routing.decide` would send it strong; `NEVER_STRONG` for none. No
            less than `easy_alpha`; where they are equal nothing cascades, and this is plain routing.
    """
    if win_probability >= hard_alpha:
        return Zone.HARD
    return Zone.EASY if win_probability < easy_alpha else Zone.MIDDLE


def accepts(acceptance: float, *, threshold: float) -> bool:
    """Whether a stage's answer is given.

    Args:
        acceptance: P(the answer is acceptable), in [0, 1].
        threshold: the stage's, in [0, 1]; 0 accepts every answer. A tie accepts.
    """
    return acceptance >= threshold


def best(acceptances: Sequence[float | None]) -> int:
    """Which of the answers at hand is given where no stage accepted its own and no further one can be had.

    Args:
        acceptances: of each answer in the order of its stage, the cheapest first; `None` where nothing is known of it.

    Returns:
        The index of the answer that is most likely acceptable, of equal ones that of the dearest model. Where nothing
        is known of any of them, the dearest model's.
    """
    return max(range(len(acceptances)), key=lambda index: (-1.0 if (a := acceptances[index]) is None else a, index))
