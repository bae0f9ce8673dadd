"""From what a scorer says to the candidates of a decision: which models it compares, and which it cannot. Pure.

Of two models the scorer's win probability is all there is to know. Of more, it tells how often the strong end of the
tenant's ladder beats each model that it knows, and those are compared. A scorer that knows one pair only tells nothing
of the models between the ends: then the two ends are compared.
"""

from collections.abc import Sequence

from dispatcher_service.outcome import Prediction
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.routing import EVEN, Candidates, Ladder, LeftOut, Objective


def compare(
    prediction: Prediction, ladder: Ladder, rungs: Sequence[int], objective: Objective, estimate: Estimate
) -> tuple[Candidates | None, dict[int, LeftOut]]:
    """The candidates among some rungs of a ladder, and why the others of these are none.

    Args:
        prediction: for `ladder.ends`; with `beaten` where the ladder has more than two models.
        ladder: the tenant's.
        rungs: ascending, at least two.
        objective: the tenant's.
        estimate: what the request is expected to cost at each rung.

    Returns:
        No candidates where fewer than two can be told apart.
    """
    left_out: dict[int, LeftOut] = {}
    if ladder.top == 1:
        beaten = {0: prediction.win_probability, 1: EVEN}
    else:
        beaten, left_out = _known(prediction, ladder, rungs)
    compared = tuple(rung for rung in rungs if rung in beaten)
    if len(compared) < 2:
        return None, left_out
    candidates = Candidates(
        rungs=compared,
        beaten=tuple(beaten[rung] for rung in compared),
        fractions=tuple(map(estimate.fraction, compared)) if objective is Objective.UTILITY else (),
        top=ladder.top,
        objective=objective,
    )
    return candidates, left_out


def not_compared(prediction: Prediction, ladder: Ladder) -> int:
    """How many models of a ladder a scorer cannot compare with the others."""
    known = prediction.beaten or ladder.ends.both
    return sum(name not in known for name in ladder.scorer_names)


def _known(prediction: Prediction, ladder: Ladder, rungs: Sequence[int]) -> tuple[dict[int, float], dict[int, LeftOut]]:
    """P(the strong end is better) by rung, and why some rungs have none."""
    if prediction.beaten:
        names = ladder.scorer_names
        beaten = {rung: prediction.beaten[names[rung]] for rung in rungs if names[rung] in prediction.beaten}
    else:
        beaten = {0: prediction.win_probability, ladder.top: EVEN}
    return beaten, {rung: LeftOut.NOT_SCORED for rung in rungs if rung not in beaten}
