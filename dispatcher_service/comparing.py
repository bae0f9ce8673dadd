"""From what a scorer says to the candidates of a decision: which models it compares, and which it cannot. Pure.

Of two models the scorer's win probability is all there is to know. Of more, it tells how often its own strongest model
beats each model that it knows. Where that strongest one is on the tenant's ladder, the models that the scorer knows are
compared, and those dearer than the strongest are left out: they would cost more and promise less. Where it is not, or
the scorer knows one pair only, nothing is known of the models between the ends, and the two ends are compared.
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
    """How many models of a ladder a scorer cannot compare with the others; of a pair none."""
    if ladder.top == 1:
        return 0
    names = ladder.scorer_names
    if next(iter(prediction.beaten), None) not in names:
        return len(names) - 2
    return sum(name not in prediction.beaten for name in names)


def _known(prediction: Prediction, ladder: Ladder, rungs: Sequence[int]) -> tuple[dict[int, float], dict[int, LeftOut]]:
    """P(the strongest is better) by rung, and why some rungs have none."""
    names, known = ladder.scorer_names, prediction.beaten
    strongest = next(iter(known), None)
    if strongest not in names:
        ends = {0: prediction.win_probability, ladder.top: EVEN}
        return ends, dict.fromkeys((rung for rung in rungs if rung not in ends), LeftOut.NOT_SCORED)
    place = names.index(strongest)
    last = place if place in rungs else ladder.top
    beaten: dict[int, float] = {}
    left_out: dict[int, LeftOut] = {}
    for rung in rungs:
        if rung > last:
            left_out[rung] = LeftOut.DEARER_THAN_STRONGEST
        elif names[rung] in known:
            beaten[rung] = known[names[rung]]
        else:
            left_out[rung] = LeftOut.NOT_SCORED
    return beaten, left_out
