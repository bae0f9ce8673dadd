"""What a target would have done to a stream of calls: the served code for pacing and deciding, run over it.

A *plan* is what a tenant could set: a share, limits, a fixed alpha, or a strategy that reads answers. Each decision is
`pacing.decide` or `routing.decide_among` as the dispatcher calls them, with a lease that is merged as often as there.
What the dispatcher does not know at decision time the simulation does not use either: a call's cost is expected to be
the running mean of its model's, and the difference is settled after it.

Two things are simpler than in service: calls come one after the other, and a call fits a limit if its real cost does,
where the ledger wants room for its worst case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher_service import pacing, pacing_state, routing
from dispatcher_service.pacing_targets import Estimate, Reference
from dispatcher_service.strategy_policies import CascadePolicy
from training import simulate_answers
from training.simulate_plans import Book, Plan, Replay, Result, that_fits
from training.streams import Call

_COST_MEMORY = 200.0  # calls


@dataclass(slots=True)
class _Costs:
    """Running means of what calls cost at each model."""

    means: tuple[float, ...] = ()

    def expected(self, call: Call) -> Estimate:
        """The very first call has no past: its own costs stand in."""
        return Estimate(tuple(round(mean) for mean in self.means) or call.costs)

    def saw(self, call: Call) -> None:
        means = self.means or call.costs
        self.means = tuple(mean + (cost - mean) / _COST_MEMORY for mean, cost in zip(means, call.costs, strict=True))


def replay(calls: Sequence[Call], plan: Plan, reference: Reference) -> Replay:
    """Run a plan over calls in the order of their times.

    Args:
        calls: in ascending order of `at`, with as many models each.
        plan: what decides. One that reads answers needs calls with what it reads.
        reference: the scorer whose quantiles the tenant's distribution starts from.
    """
    book = Book(plan.limits)
    if plan.reading is None:
        return Replay(plan, tuple(_routed(calls, plan, reference, book)))
    run = simulate_answers.cascaded if isinstance(plan.reading, CascadePolicy) else simulate_answers.ensembled
    return Replay(plan, tuple(run(call, plan, book) for call in calls))


def _routed(calls: Sequence[Call], plan: Plan, reference: Reference, book: Book) -> Iterator[Result]:
    """What plain routing does with each call."""
    shared = pacing_state.Pace()
    lease = pacing_state.lease_of(shared)
    costs = _Costs()
    for call in calls:
        estimate = costs.expected(call)
        decision = None
        if call.candidates is not None and plan.pacing is not None:
            decision, lease = pacing.decide(lease, plan.pacing, reference, call.candidates, estimate, now=call.at)
        elif call.candidates is not None:
            decision = routing.decide_among(call.candidates, alpha=plan.alpha)
        elif plan.pacing is not None:
            lease = pacing.forced(lease, plan.pacing, rung=call.forced, estimate=estimate, now=call.at)
        wanted = decision.rung if decision is not None else call.forced
        rung = that_fits(call, wanted, plan, book)
        if plan.pacing is not None and rung != wanted:
            lease = pacing.refused(lease, plan.pacing, until=book.ends(call.costs[wanted], call.at))
            if rung is not None:
                by = estimate.fraction(rung) - estimate.fraction(wanted)
                lease = pacing.rerouted(lease, plan.pacing, by=by)
        result = Result(
            call=call,
            rung=rung,
            asked=() if rung is None else (rung,),
            alpha=None if decision is None else decision.alpha,
            free=decision is not None,
            degraded=rung not in {wanted, None},
        )
        yield result
        book.charge(result.cost, call.at)
        costs.saw(call)
        if plan.pacing is not None:
            lease = pacing.settled(lease, plan.pacing, estimated=estimate.costs[wanted], actual=result.cost)
            if lease.exhausted(plan.pacing):
                shared = pacing.merge(shared, lease, plan.pacing, now=call.at)
                lease = pacing_state.lease_of(shared)
