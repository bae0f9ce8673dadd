"""From what a scorer says to the candidates of a decision: which models it compares, and which it cannot. Pure.

Of two models the scorer's win probability is all there is to know. Of more, it tells how often the strong end of the
tenant's ladder beats each model that it knows, and those are compared. A scorer that knows one pair only tells nothing
of the models between the ends: then the two ends are compared.
"""

from dispatcher_service.outcome import Prediction
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.routing import EVEN, Candidates, Ladder, LeftOut, Objective


def compare(
    prediction: Prediction, ladder: Ladder, rungs: tuple[int, ...], objective: Objective, estimate: Estimate
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
    if prediction.beaten and ladder.top > 1:
        names, known = ladder.scorer_names, prediction.beaten
        beaten = [known.get(names[rung]) for rung in rungs]
    else:
        ends = {0: prediction.win_probability, ladder.top: EVEN}
        beaten = [ends.get(rung) for rung in rungs]
    left_out: dict[int, LeftOut] = {}
    if None in beaten:
        left_out = {rung: LeftOut.NOT_SCORED for rung, each in zip(rungs, beaten, strict=True) if each is None}
        rungs = tuple([rung for rung in rungs if rung not in left_out])
    if len(rungs) < 2:
        return None, left_out
    candidates = Candidates(
        rungs=rungs,
        beaten=tuple([each for each in beaten if each is not None]),
        fractions=tuple([estimate.fraction(rung) for rung in rungs]) if objective is Objective.UTILITY else (),
        top=ladder.top,
        objective=objective,
    )
    return candidates, left_out


def not_compared(prediction: Prediction, ladder: Ladder) -> int:
    """How many models of a ladder a scorer cannot compare with the others."""
    known = prediction.beaten or ladder.ends.both
    return len([name for name in ladder.scorer_names if name not in known])
