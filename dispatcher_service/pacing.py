"""Holding a share of strong calls, or a rate of spending, by moving alpha: threshold integration in percentile space.

Let u = F(need), where `Candidates.need` is what ranks a request (of two models: the win probability), and F an estimate
of its distribution for the tenant. A call goes strong iff u >= a, and after each free decision a <- a + η(x - ρ), where
ρ is the target share and x is 1 for the strong end of the tenant's ladder, 0 for the cheap end, and for a model between
them (its cost - the cheapest)/(the dearest - the cheapest), as expected for this call; a starts at 1 - ρ. So with two
models ρ is the share of strong calls, and with more it is a share of cost: how far, on average, calls go from all
cheapest to all strongest. The decision itself is `routing.decide_among` at `alpha = inf{s : F(s) >= a}`: 0 where
a <= 0, and so the strong end; `NEVER_STRONG` where a > 1, and so the cheap end. So a lies in [-ηρ, 1 + η(1 - ρ)] by
itself, whatever F is and whatever lies between the ends, and telescoping gives, for any sequence of calls,

    |Σ(x - ρ)| <= (1 + η)/η    over any window of free calls.

With η = 5/W that is ±20 points of share in a window of W calls in the worst case; a few points are usual.

*Forced decisions* (a sticky conversation, an override, no scorer, no money) move a too, but never beyond that range:
otherwise a long run of them would be paid back by an equally long run of calls the other way. What is cut off is
counted in `Integrator.dropped_strong` and `dropped_weak`, and the bound above holds plus that. Where several targets
hold together, the highest alpha decides, and for a target that would have decided otherwise the decision
is forced. So is one among candidates that lack an end of the ladder, since some model did not fit the request.

*Money*: ρ becomes a rate. Per call x is its incremental cost, the chosen model's minus the cheapest's; between calls
the limit allows `limit · Δt / window`, optionally shaped by the hour of the day, and the cheapest's cost is taken off
that. All is measured in `unit`, the running mean of incremental costs of the strong end. An idle time is not saved up
(a does not fall below its range), and where even all weak is too much a stays above 1 and `infeasible` says so. This
paces; the ledger guarantees.

*Replicas*: each decides on a `Lease`, a copy of the shared `Pace`, for at most `lease_calls` decisions, and then adds
what it did with `merge`. Of R replicas each can be wrong by one lease L at each end of the range:
|Σ(x - ρ)| <= (1 + η)/η + R·L. A single process does the same with itself: L is then how often F is refreshed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dispatcher_service import routing
from dispatcher_service.distribution import Distribution
from dispatcher_service.pacing_state import Integrator, Lease, Pace, later_credit
from dispatcher_service.pacing_targets import Estimate, PacingPolicy, Reference, ShareTarget, SpendTarget, Target
from dispatcher_service.pricing import NanoUsd
from dispatcher_service.routing import NEVER_STRONG, Candidates, Decision

_UNIT_MEMORY = 200.0  # calls
_MERGE_MEMORY = 20.0  # merges
_SEED_SHARE = 0.25
_MAX_VERSIONS = 4
_MAX_STALE = 8


def effective_alpha(lease: Lease, policy: PacingPolicy, reference: Reference, *, now: float) -> float:
    """The alpha that the next free decision would be made with. Moves nothing.

    Args:
        reference: the scorer that makes the prediction.
        now: seconds since the epoch.
    """
    distribution = _distribution(lease.pace, policy, reference)
    return max(policy.alpha, *_alphas(_credited(lease.pace, policy, now), policy, distribution))


def decide(
    lease: Lease, policy: PacingPolicy, reference: Reference, candidates: Candidates, estimate: Estimate, *, now: float
) -> tuple[Decision, Lease]:
    """A free decision, and the lease after it.

    Args:
        candidates: the models that may answer; `Candidates.pair` for two.
        estimate: of all models of the ladder that the candidates' rungs are of.
        lease, policy, reference, now: as for `effective_alpha`.
    """
    pace = _with_version(lease.pace, policy, reference)
    distribution = pace.distributions[reference.version]
    credited = _credited(pace, policy, now)
    alphas = _alphas(credited, policy, distribution)
    alpha = max(policy.alpha, *alphas)
    decision = routing.decide_among(candidates, alpha=alpha)
    integrators = dict(pace.integrators)
    for target, own, before in zip(policy.targets, alphas, credited, strict=True):
        alike = own == alpha or candidates.rungs[routing.place_of(candidates, alpha=own)] == decision.rung
        free = alike and candidates.reach_both_ends
        integrators[target.key] = _called(before, target, policy.gain, decision.rung, estimate, free=free)
    scores = dict(lease.scores)
    scores[reference.version] = (*scores.get(reference.version, ()), candidates.need)
    return decision, Lease(_with(pace, integrators), scores, lease.calls + 1)


def forced(lease: Lease, policy: PacingPolicy, *, rung: int, estimate: Estimate, now: float) -> Lease:
    """The lease after a decision that something else made: for this rung of the ladder."""
    integrators = dict(lease.pace.integrators)
    for target, before in zip(policy.targets, _credited(lease.pace, policy, now), strict=True):
        integrators[target.key] = _called(before, target, policy.gain, rung, estimate, free=False)
    return Lease(_with(lease.pace, integrators), lease.scores, lease.calls + 1)


def settled(lease: Lease, policy: PacingPolicy, *, estimated: NanoUsd, actual: NanoUsd) -> Lease:
    """The lease after a call turned out to cost something else than was estimated when it was decided."""
    integrators = dict(lease.pace.integrators)
    for target in policy.targets:
        integrator = integrators.get(target.key)
        if isinstance(target, SpendTarget) and integrator is not None and integrator.unit > 0:
            low, high = _range(target, policy.gain)
            step = policy.gain * (actual - estimated) / integrator.unit
            integrators[target.key] = _moved(integrator, integrator.level, ((step, high),), policy.gain, low)
    return Lease(_with(lease.pace, integrators), lease.scores, lease.calls)


def rerouted(lease: Lease, policy: PacingPolicy, *, by: float) -> Lease:
    """The lease after a call went to another model than was decided, `by` so much of x: no money, or a fallback.

    Saturates like a forced decision. Of money `settled` tells.
    """
    integrators = dict(lease.pace.integrators)
    for target in policy.targets:
        integrator = integrators.get(target.key)
        if isinstance(target, ShareTarget) and integrator is not None:
            low, high = _range(target, policy.gain)
            integrators[target.key] = _moved(
                integrator, integrator.level, ((policy.gain * by, high),), policy.gain, low
            )
    return Lease(_with(lease.pace, integrators), lease.scores, lease.calls)


def refused(lease: Lease, policy: PacingPolicy, *, until: float) -> Lease:
    """The lease after a limit had no room. Until its window ends, time earns no credit: it cannot be spent.

    Otherwise the level would sink while nothing is granted, and the next window would begin with all strong.
    """
    integrators = dict(lease.pace.integrators)
    for target in policy.targets:
        integrator = integrators.get(target.key)
        if isinstance(target, SpendTarget) and integrator is not None:
            integrators[target.key] = replace(integrator, credited_until=max(until, integrator.credited_until or 0.0))
    return Lease(_with(lease.pace, integrators), lease.scores, lease.calls)


def merge(shared: Pace, lease: Lease, policy: PacingPolicy, *, now: float) -> Pace:
    """The shared pace with a lease's doings added. Several leases may be merged in any order."""
    integrators = dict(shared.integrators)
    for key, mine in lease.pace.integrators.items():
        theirs = integrators.get(key)
        if theirs is None:
            integrators[key] = mine
            continue
        integrators[key] = replace(
            theirs,
            level=theirs.level + mine.moved,
            unit=mine.unit,
            credited_until=later_credit(theirs.credited_until, mine.credited_until, now=now),
            weak=mine.weak,
            dropped_strong=theirs.dropped_strong + mine.dropped_strong,
            dropped_weak=theirs.dropped_weak + mine.dropped_weak,
        )
    distributions = dict(shared.distributions)
    for version, scores in lease.scores.items():
        known = distributions.pop(version, lease.pace.distributions[version])
        distributions[version] = known.observed(scores, memory=policy.memory)  # now the last: the latest in use
    kept = list(distributions)[-_MAX_VERSIONS:]
    references = {**shared.references, **lease.pace.references}
    held = {target.key for target in policy.targets}
    for stale in [key for key in integrators if key not in held][:-_MAX_STALE]:
        del integrators[stale]  # targets of earlier policies
    pace = Pace(
        integrators=integrators,
        distributions={version: distributions[version] for version in kept},
        references={version: references[version] for version in kept},
    )
    merged = {target.key: _measured(pace, target, now) for target in policy.targets if target.key in integrators}
    integrators |= merged
    credited = _credited(_with(pace, integrators), policy, now)
    for target, (integrator, level, until) in zip(policy.targets, credited, strict=True):
        integrators[target.key] = replace(integrator, level=level, credited_until=until)
    return _with(pace, integrators)


def _with(pace: Pace, integrators: Mapping[str, Integrator]) -> Pace:
    return Pace(integrators, pace.distributions, pace.references)


def _range(target: Target, gain: float) -> tuple[float, float]:
    """Where a may lie. Money has no fixed ρ: both ends stand one typical call beyond [0, 1]."""
    if isinstance(target, ShareTarget):
        return -gain * target.share, 1 + gain * (1 - target.share)
    return -gain, 1 + gain


def _initial(target: Target) -> Integrator:
    # What share a rate of money will buy is not known yet: begin in the middle, it is found within 1/η calls.
    return Integrator(level=1 - target.share if isinstance(target, ShareTarget) else 0.5)


_Credited = tuple[Integrator, float, float | None]
"""An integrator, with the level and the `credited_until` that it has once time is credited."""


def _credited(pace: Pace, policy: PacingPolicy, now: float) -> list[_Credited]:
    """Of each of the policy's targets, with time credited up to `now`."""
    return [
        _credit(pace.integrators.get(target.key) or _initial(target), target, policy.gain, now)
        for target in policy.targets
    ]


def _credit(integrator: Integrator, target: Target, gain: float, now: float) -> _Credited:
    level, since = integrator.level, integrator.credited_until
    if isinstance(target, ShareTarget):
        return integrator, level, since
    if since is None:
        return integrator, level, now
    if now <= since or integrator.unit <= 0:
        return integrator, level, since  # clocks of replicas differ a little: what was credited is not taken back
    allowance = target.allowed(since, now) / integrator.unit
    return integrator, _held(level, -gain * allowance, *_range(target, gain)), now


def _measured(pace: Pace, target: Target, now: float) -> Integrator:
    """The integrator with `weak_excess` brought up to `now`, before time is credited up to then."""
    integrator = pace.integrators[target.key]
    if isinstance(target, ShareTarget) or integrator.credited_until is None or integrator.unit <= 0:
        return integrator
    excess = integrator.weak - target.allowed(integrator.credited_until, now) / integrator.unit
    return replace(integrator, weak_excess=integrator.weak_excess + (excess - integrator.weak_excess) / _MERGE_MEMORY)


def _called(before: _Credited, target: Target, gain: float, rung: int, estimate: Estimate, *, free: bool) -> Integrator:
    """The integrator after one call."""
    integrator, level, until = before
    low, high = _range(target, gain)
    if isinstance(target, ShareTarget):
        step = gain * (estimate.fraction(rung) - target.share)
        if free:
            return Integrator(  # what is not named here is of money
                level=level + step,
                moved=integrator.moved + step,
                dropped_strong=integrator.dropped_strong,
                dropped_weak=integrator.dropped_weak,
            )
        return _moved(integrator, level, ((step, high),), gain, low)
    incremental = estimate.incremental
    unit = integrator.unit + (incremental - integrator.unit) / _UNIT_MEMORY if integrator.unit > 0 else incremental
    weak = estimate.weak / unit
    steps = [(gain * weak, high)]
    above = estimate.above(rung)
    if above:
        # A free strong call may be far dearer than `unit` and overshoot: it alone can, since all weak follows.
        steps.append((gain * above / unit, float("inf") if free else high))
    return _moved(integrator, level, steps, gain, low, unit=unit, weak=integrator.weak + weak, until=until)


def _moved(
    integrator: Integrator,
    level: float,
    steps: Iterable[tuple[float, float]],
    gain: float,
    low: float,
    *,
    unit: float | None = None,
    weak: float | None = None,
    until: float | None = None,
) -> Integrator:
    """The integrator after steps from a level, each with the highest level that it may lead to; `low` is the lowest.

    What saturation cuts off is counted. `unit`, `weak` and `until` stay as they are where they are not given.
    """
    moved, strong_cut, weak_cut = integrator.moved, integrator.dropped_strong, integrator.dropped_weak
    for step, high in steps:
        held = _held(level, step, low, high)
        cut = (level + step - held) / gain
        moved = moved + held - level
        strong_cut += max(cut, 0.0)
        weak_cut += max(-cut, 0.0)
        level = held
    # Not `replace`, which takes three times as long: most of what pacing costs a call is this.
    return Integrator(
        level=level,
        moved=moved,
        unit=integrator.unit if unit is None else unit,
        credited_until=integrator.credited_until if until is None else until,
        weak=integrator.weak if weak is None else weak,
        weak_excess=integrator.weak_excess,
        dropped_strong=strong_cut,
        dropped_weak=weak_cut,
    )


def _held(level: float, step: float, low: float, high: float) -> float:
    """Where a step takes a level: not out of [low, high]; where it is outside already it is not pulled back."""
    wanted = level + step
    return max(level, min(wanted, high)) if step > 0 else min(level, max(wanted, low))


def _alphas(credited: Iterable[_Credited], policy: PacingPolicy, distribution: Distribution) -> list[float]:
    """What each target asks for; the highest decides."""
    return [
        _target_alpha(level, target, distribution)
        for target, (_, level, _) in zip(policy.targets, credited, strict=True)
    ]


def _target_alpha(level: float, target: Target, distribution: Distribution) -> float:
    if isinstance(target, ShareTarget) and target.share in (0.0, 1.0):
        return NEVER_STRONG if target.share == 0.0 else 0.0  # exact, whatever F is
    return NEVER_STRONG if level > 1.0 else distribution.quantile(level)


def _distribution(pace: Pace, policy: PacingPolicy, reference: Reference) -> Distribution:
    """The tenant's distribution under a scorer version; a new version starts a new one."""
    known = pace.distributions.get(reference.version)
    if known is not None:
        return known
    weight = policy.memory * _SEED_SHARE
    if not pace.distributions:
        return Distribution.seeded(reference.quantiles, weight=weight)
    latest = list(pace.distributions)[-1]
    old = pace.distributions[latest]
    return old.carried_over(pace.references[latest], reference.quantiles, weight=weight)


def _with_version(pace: Pace, policy: PacingPolicy, reference: Reference) -> Pace:
    if reference.version in pace.distributions:
        return pace
    distributions = {**pace.distributions, reference.version: _distribution(pace, policy, reference)}
    references = {**pace.references, reference.version: tuple(reference.quantiles)}
    return replace(pace, distributions=distributions, references=references)
