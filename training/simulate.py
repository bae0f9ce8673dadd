"""What a target would have done to a stream of calls: the served code for pacing and deciding, run over it.

A *plan* is what a tenant could set: a share, limits, a fixed alpha. Each decision is `pacing.decide` or
`routing.decide` as the dispatcher calls them, with a lease that is merged as often as there. What the dispatcher does
not know at decision time the simulation does not use either: a call's cost is expected to be the running mean of its
tier's, and the difference is settled after it.

Two things are simpler than in service: calls come one after the other, and a call fits a limit if its real cost does,
where the ledger wants room for its worst case.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from dispatcher_service import cascading, pacing, pacing_state, routing
from dispatcher_service.budget import BudgetWindow, Limit, OnExhausted, Period, degrades, window_at, windows_at
from dispatcher_service.cascading import Zone
from dispatcher_service.pacing_targets import Estimate, PacingPolicy, Reference, ShareTarget, SpendTarget
from dispatcher_service.routing import Candidates, Tier
from training.streams import Call

_COST_MEMORY = 200.0  # calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """The thresholds of a cascade of two models, and of the hybrid its two α's; see `dispatcher_service.cascading`."""

    threshold: float
    easy_alpha: float = 0.0
    hard_alpha: float = routing.NEVER_STRONG


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a tenant could set.

    Attributes:
        name: for tables and plots.
        pacing: the targets to hold; `None` compares with `alpha` alone.
        alpha: the fixed threshold of a plan without pacing.
        limits: the hard limits, at most one per period.
        on_exhausted: what happens when a call does not fit them.
        cascade: asks the weak model first and reads its answer, in place of `alpha`. It holds no target: `pacing` is
            then `None`.
    """

    name: str
    pacing: PacingPolicy | None = None
    alpha: float = 0.0
    limits: tuple[Limit, ...] = ()
    on_exhausted: OnExhausted = OnExhausted.DEGRADE
    cascade: Cascade | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one call.

    Attributes:
        call: see there.
        tier: of the answer given; `None` if it was refused.
        alpha: in force.
        free: a threshold on the win probability decided.
        degraded: it did not fit a limit as wanted.
        weak_first: of a cascade, the weak model was paid before the strong one.
    """

    call: Call
    tier: Tier | None
    alpha: float | None
    free: bool
    degraded: bool
    weak_first: bool = False

    @property
    def cost(self) -> int:
        """Of all its calls, in nano-USD; 0 if it was refused."""
        if self.tier is None:
            return 0
        if self.tier is Tier.WEAK:
            return self.call.weak_cost
        return self.call.strong_cost + (self.call.weak_cost if self.weak_first else 0)


@dataclass(frozen=True, slots=True)
class Replay:
    """A plan and what it did with each call of a stream."""

    plan: Plan
    results: tuple[Result, ...]


@dataclass(slots=True)
class _Costs:
    """Running means of what calls cost in each tier."""

    weak: float = 0.0
    strong: float = 0.0
    _seen: bool = False

    def expected(self, call: Call) -> Estimate:
        """The very first call has no past: its own costs stand in."""
        if not self._seen:
            return Estimate((call.weak_cost, call.strong_cost))
        return Estimate((round(self.weak), round(self.strong)))

    def saw(self, call: Call) -> None:
        if not self._seen:
            self.weak, self.strong, self._seen = call.weak_cost, call.strong_cost, True
        self.weak += (call.weak_cost - self.weak) / _COST_MEMORY
        self.strong += (call.strong_cost - self.strong) / _COST_MEMORY


@dataclass(slots=True)
class _Book:
    """What was spent in the windows of the limits."""

    limits: tuple[Limit, ...]
    _spent: dict[BudgetWindow, int] = field(default_factory=dict)

    def fits(self, cost: int, at: float) -> bool:
        windows = {window.period: window for window in windows_at(at)}
        return all(self._spent.get(windows[limit.period], 0) + cost <= limit.amount for limit in self.limits)

    def ends(self, call: Call, tier: Tier) -> float:
        """When the window ends whose limit has no room for a call, and the least left."""
        cost = call.strong_cost if tier is Tier.STRONG else call.weak_cost
        windows = {window.period: window for window in windows_at(call.at)}
        left = {limit.period: limit.amount - self._spent.get(windows[limit.period], 0) for limit in self.limits}
        tightest = min((period for period in left if left[period] < cost), key=lambda period: left[period])
        return windows[tightest].end

    def charge(self, cost: int, at: float) -> None:
        for window in windows_at(at):
            self._spent[window] = self._spent.get(window, 0) + cost


def replay(calls: Sequence[Call], plan: Plan, reference: Reference) -> Replay:
    """Run a plan over calls in the order of their times.

    Args:
        calls: in ascending order of `at`.
        plan: what decides.
        reference: the scorer whose quantiles the tenant's distribution starts from.
    """
    if plan.cascade is not None:
        return Replay(plan, tuple(_cascaded(calls, plan, plan.cascade)))
    shared = pacing_state.Pace()
    lease = pacing_state.lease_of(shared)
    costs, book = _Costs(), _Book(plan.limits)
    results = []
    for call in calls:
        estimate = costs.expected(call)
        decision = None
        if call.win_probability is not None and plan.pacing is not None:
            pair = Candidates.pair(call.win_probability)
            decision, lease = pacing.decide(lease, plan.pacing, reference, pair, estimate, now=call.at)
        elif call.win_probability is not None:
            decision = routing.decide(call.win_probability, alpha=plan.alpha)
        elif plan.pacing is not None:
            lease = pacing.forced(lease, plan.pacing, rung=int(call.forced_strong), estimate=estimate, now=call.at)
        wanted = decision.tier if decision is not None else Tier.STRONG if call.forced_strong else Tier.WEAK
        tier = _that_fits(call, wanted, plan, book)
        if plan.pacing is not None and tier is not wanted:
            lease = pacing.refused(lease, plan.pacing, until=book.ends(call, wanted))
            if tier is not None:
                lease = pacing.rerouted(lease, plan.pacing, by=1.0 if tier is Tier.STRONG else -1.0)
        result = Result(
            call=call,
            tier=tier,
            alpha=None if decision is None else decision.alpha,
            free=decision is not None,
            degraded=tier is not wanted and tier is not None,
        )
        results.append(result)
        book.charge(result.cost, call.at)
        costs.saw(call)
        if plan.pacing is not None:
            estimated = estimate.strong if wanted is Tier.STRONG else estimate.weak
            lease = pacing.settled(lease, plan.pacing, estimated=estimated, actual=result.cost)
            if lease.exhausted(plan.pacing):
                shared = pacing.merge(shared, lease, plan.pacing, now=call.at)
                lease = pacing_state.lease_of(shared)
    return Replay(plan, tuple(results))


def _cascaded(calls: Sequence[Call], plan: Plan, cascade: Cascade) -> Iterator[Result]:
    """What a cascade does with each call. A strong call for which no money is left leaves the weak answer standing."""
    book = _Book(plan.limits)
    for call in calls:
        zone, wanted = Zone.MIDDLE, Tier.STRONG if call.forced_strong else Tier.WEAK
        if call.win_probability is not None and call.acceptance is not None:
            zone = cascading.zone(call.win_probability, easy_alpha=cascade.easy_alpha, hard_alpha=cascade.hard_alpha)
            escalates = not cascading.accepts(call.acceptance, threshold=cascade.threshold)
            wanted = Tier.STRONG if zone is Zone.HARD or (zone is Zone.MIDDLE and escalates) else Tier.WEAK
        weak_first = wanted is Tier.STRONG and zone is Zone.MIDDLE and call.acceptance is not None
        tier: Tier | None = wanted
        if not book.fits(Result(call, wanted, None, free=False, degraded=False, weak_first=weak_first).cost, call.at):
            # The weak answer was had before the strong one was missed; where there is none, the policy decides.
            stands = book.fits(call.weak_cost, call.at)
            tier = Tier.WEAK if weak_first and stands else _that_fits(call, wanted, plan, book)
        result = Result(
            call, tier, None, free=False, degraded=tier is not None and tier is not wanted, weak_first=weak_first
        )
        book.charge(result.cost, call.at)
        yield result


def _that_fits(call: Call, tier: Tier, plan: Plan, book: _Book) -> Tier | None:
    if book.fits(call.strong_cost if tier is Tier.STRONG else call.weak_cost, call.at):
        return tier
    degraded = degrades(plan.on_exhausted, cheapest=tier is Tier.WEAK, in_tool_loop=False)
    return Tier.WEAK if degraded and book.fits(call.weak_cost, call.at) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSummary:
    """One window of a replay.

    Attributes:
        start: of its first call, in seconds since the epoch; for a budget window its own start.
        calls: in it, refused ones included.
        strong: how many went strong.
        cost: nano-USD.
        degraded, refused: calls that did not fit the limits.
        alpha: the lowest and the highest in force; `None` without free calls.
        gain: sum over strong calls of 2·win_probability - 1: how many more answers are better than worse, beside all
            weak. Over calls that a threshold decided.
        best_gain: the same for the threshold that is best in hindsight and sends as many of them strong.
    """

    start: float
    calls: int
    strong: int
    cost: int
    degraded: int
    refused: int
    alpha: tuple[float, float] | None
    gain: float
    best_gain: float

    @property
    def share(self) -> float:
        """Of all calls that were answered."""
        return self.strong / max(self.calls - self.refused, 1)


def by_calls(replay: Replay, length: int) -> list[WindowSummary]:
    """Windows of `length` calls each; a shorter rest at the end is left out, unless it is all there is."""
    results = replay.results
    ends = range(length, len(results) + 1, length) or range(len(results), len(results) + 1)
    return [_summary(results[max(end - length, 0) : end]) for end in ends]


def by_period(replay: Replay, period: Period) -> list[WindowSummary]:
    """The budget windows of a period that hold calls."""
    found = groupby(replay.results, key=lambda result: window_at(period, result.call.at))
    return [_summary(tuple(results), start=window.start) for window, results in found]


def total(windows: Iterable[WindowSummary]) -> WindowSummary:
    """Several windows as one."""
    all_ = list(windows)
    ranges = [window.alpha for window in all_ if window.alpha is not None]
    return WindowSummary(
        start=all_[0].start,
        calls=sum(window.calls for window in all_),
        strong=sum(window.strong for window in all_),
        cost=sum(window.cost for window in all_),
        degraded=sum(window.degraded for window in all_),
        refused=sum(window.refused for window in all_),
        alpha=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
        gain=sum(window.gain for window in all_),
        best_gain=sum(window.best_gain for window in all_),
    )


def _summary(results: Sequence[Result], start: float | None = None) -> WindowSummary:
    free = [result for result in results if result.free]
    gains = [2 * result.call.win_probability - 1 for result in free if result.call.win_probability is not None]
    took = [result.tier is Tier.STRONG for result in free]
    alphas = [result.alpha for result in free if result.alpha is not None]
    return WindowSummary(
        start=results[0].call.at if start is None else start,
        calls=len(results),
        strong=sum(result.tier is Tier.STRONG for result in results),
        cost=sum(result.cost for result in results),
        degraded=sum(result.degraded for result in results),
        refused=sum(result.tier is None for result in results),
        alpha=(min(alphas), max(alphas)) if alphas else None,
        gain=sum(gain for gain, strong in zip(gains, took, strict=True) if strong),
        best_gain=sum(sorted(gains, reverse=True)[: sum(took)]),
    )


def guarantee(policy: PacingPolicy) -> float:
    """By how many strong calls any window of free calls may miss a share, whatever the calls are (see pacing.py)."""
    return (1 + policy.gain) / policy.gain + policy.lease_calls


def share_of(plan: Plan) -> float | None:
    """The share that a plan holds; `None` if it holds none."""
    targets = plan.pacing.targets if plan.pacing is not None else ()
    return next((target.share for target in targets if isinstance(target, ShareTarget)), None)


def spend_of(plan: Plan) -> Limit | None:
    """The first limit that a plan paces; `None` if it paces none."""
    targets = plan.pacing.targets if plan.pacing is not None else ()
    paced = {target.period for target in targets if isinstance(target, SpendTarget)}
    return next((limit for limit in plan.limits if limit.period in paced), None)
