"""The rule of an ensemble. There is one definition: serving, evaluation and simulation all call it."""

from collections.abc import Sequence


def order(win_rates: Sequence[float]) -> list[int]:
    """The answers by their win rates, the best first; of equal ones the cheaper model's.

    Args:
        win_rates: of each answer, the cheapest model's first (see `RankAnswers`).
    """
    return sorted(range(len(win_rates)), key=lambda place: -win_rates[place])
