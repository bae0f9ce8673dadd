"""What strategies that read answers do with a call: by the dispatcher's rules, on what scorers say of the answers.

As there, something else than the prompt may say who answers; one model is then asked, and no answer is read.
"""

import itertools
from collections.abc import Sequence

from dispatcher_service import cascading, ensembling
from dispatcher_service.budget import OnExhausted
from dispatcher_service.cascading import Zone
from dispatcher_service.strategy_policies import CascadePolicy
from scorer_service import ranking
from training.simulate_plans import Book, Plan, Result, that_fits
from training.streams import Call


def cascaded(call: Call, plan: Plan, book: Book) -> Result:
    """What a cascade does, and charges.

    A stage for which no money is left leaves the answer standing that is most likely acceptable of those at hand.
    """
    policy = plan.reading
    assert isinstance(policy, CascadePolicy)
    if call.candidates is None:
        return _alone(call, call.forced, plan, book)
    zone = cascading.zone(call.candidates.beaten[0], easy_alpha=policy.easy_alpha, hard_alpha=policy.hard_alpha)
    if zone is not Zone.MIDDLE:
        return _alone(call, call.top if zone is Zone.HARD else 0, plan, book)
    asked: list[int] = []
    for rung, cost in enumerate(call.costs):
        if not book.fits(cost, call.at):
            at_hand = cascading.best(call.acceptances[:rung]) if asked else None
            return Result(call=call, rung=at_hand, asked=tuple(asked), degraded=bool(asked))
        book.charge(cost, call.at)
        asked.append(rung)
        if rung == call.top or cascading.accepts(call.acceptances[rung], threshold=policy.thresholds[rung]):
            break
    return Result(call=call, rung=asked[-1], asked=tuple(asked))


def ensembled(call: Call, plan: Plan, book: Book) -> Result:
    """What an ensemble does that fuses nothing, and charges.

    Money is put aside for every model before one is called, the cheapest first. A model for which there is none is left
    out, or the call is refused, as the plan says.
    """
    if call.candidates is None:
        return _alone(call, call.forced, plan, book)
    asked: list[int] = []
    cost = 0
    for rung, own in enumerate(call.costs):
        if book.fits(cost + own, call.at):
            asked.append(rung)
            cost += own
        elif plan.on_exhausted is OnExhausted.REJECT:
            return Result(call=call, rung=None, asked=())
    book.charge(cost, call.at)
    best = _best(call, asked) if asked else None
    return Result(call=call, rung=best, asked=tuple(asked), degraded=0 < len(asked) < len(call.costs))


def _best(call: Call, asked: Sequence[int]) -> int:
    """Whose answer is given of these: one alone is not ranked."""
    if len(asked) == 1:
        return asked[0]
    pairs = itertools.combinations(range(len(call.costs)), 2)
    kept = [p for pair, p in zip(pairs, call.preferences, strict=True) if set(pair) <= set(asked)]
    return asked[ensembling.order(ranking.win_rates(len(asked), kept))[0]]


def _alone(call: Call, wanted: int, plan: Plan, book: Book) -> Result:
    """One model, whose answer nobody reads."""
    rung = that_fits(call, wanted, plan, book)
    result = Result(call=call, rung=rung, asked=() if rung is None else (rung,), degraded=rung not in {wanted, None})
    book.charge(result.cost, call.at)
    return result
