"""Deciding and pacing between two models as they were before any number of them could be decided among.

What the general rule is compared with: with two models it must do the same to the last bit. Kept as it was; only names
that it takes from elsewhere come from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dispatcher_service.distribution import Distribution
from dispatcher_service.pacing_state import Integrator, Lease, Pace
from dispatcher_service.pacing_targets import PacingPolicy, Reference, ShareTarget, SpendTarget, Target
from dispatcher_service.pricing import NanoUsd
from dispatcher_service.routing import NEVER_STRONG

_UNIT_MEMORY = 200.0  # calls
_SEED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call is expected to cost in each tier."""

    weak: NanoUsd
    strong: NanoUsd


@dataclass(frozen=True, slots=True)
class Decided:
    """Which tier, and the numbers compared."""

    strong: bool
    alpha: float
    win_probability: float


def choose(win_probability: float, *, alpha: float) -> Decided:
    """Strong iff `win_probability >= alpha`."""
    return Decided(win_probability >= alpha, alpha, win_probability)


def effective_alpha(lease: Lease, policy: PacingPolicy, reference: Reference, *, now: float) -> float:
    """The alpha that the next free decision would be made with. Moves nothing.

    Args:
        reference: the scorer that makes the prediction.
        now: seconds since the epoch.
    """
    distribution = _distribution(lease.pace, policy, reference)
    return _alpha(_credited(lease.pace, policy, now), policy, distribution)


def decide(
    lease: Lease, policy: PacingPolicy, reference: Reference, win_probability: float, estimate: Estimate, *, now: float
) -> tuple[Decided, Lease]:
    """A free decision, and the lease after it. Arguments as for `effective_alpha`."""
    pace = _with_version(lease.pace, policy, reference)
    distribution = pace.distributions[reference.version]
    credited = _credited(pace, policy, now)
    decision = choose(win_probability, alpha=_alpha(credited, policy, distribution))
    strong = decision.strong
    moved = {}
    for target in policy.targets:
        integrator = credited[target.key]
        own = win_probability >= _target_alpha(integrator, target, distribution)
        moved[target.key] = _called(integrator, target, policy.gain, strong, estimate, free=own == strong)
    scores = dict(lease.scores)
    scores[reference.version] = (*scores.get(reference.version, ()), win_probability)
    pace = replace(pace, integrators={**pace.integrators, **moved})
    return decision, Lease(pace=pace, scores=scores, calls=lease.calls + 1)


def forced(lease: Lease, policy: PacingPolicy, *, strong: bool, estimate: Estimate, now: float) -> Lease:
    """The lease after a decision that something else made."""
    credited = _credited(lease.pace, policy, now)
    moved = {
        target.key: _called(credited[target.key], target, policy.gain, strong, estimate, free=False)
        for target in policy.targets
    }
    pace = replace(lease.pace, integrators={**lease.pace.integrators, **moved})
    return replace(lease, pace=pace, calls=lease.calls + 1)


def settled(lease: Lease, policy: PacingPolicy, *, estimated: NanoUsd, actual: NanoUsd) -> Lease:
    """The lease after a call turned out to cost something else than was estimated when it was decided."""
    moved = {}
    for target in policy.targets:
        integrator = lease.pace.integrators.get(target.key)
        if isinstance(target, SpendTarget) and integrator is not None and integrator.unit > 0:
            step = policy.gain * (actual - estimated) / integrator.unit
            moved[target.key] = _step(integrator, step, policy.gain, *_range(target, policy.gain))
    return replace(lease, pace=replace(lease.pace, integrators={**lease.pace.integrators, **moved}))


def rerouted(lease: Lease, policy: PacingPolicy, *, strong: bool) -> Lease:
    """The lease after a call went to the other tier than was decided, `strong` or not: no money, or a fallback.

    Saturates like a forced decision. Of money `settled` tells.
    """
    step = policy.gain if strong else -policy.gain
    moved = {
        target.key: _step(lease.pace.integrators[target.key], step, policy.gain, *_range(target, policy.gain))
        for target in policy.targets
        if isinstance(target, ShareTarget) and target.key in lease.pace.integrators
    }
    return replace(lease, pace=replace(lease.pace, integrators={**lease.pace.integrators, **moved}))


def refused(lease: Lease, policy: PacingPolicy, *, until: float) -> Lease:
    """The lease after a limit had no room. Until its window ends, time earns no credit: it cannot be spent.

    Otherwise the level would sink while nothing is granted, and the next window would begin with all strong.
    """
    moved = {}
    for target in policy.targets:
        integrator = lease.pace.integrators.get(target.key)
        if isinstance(target, SpendTarget) and integrator is not None:
            moved[target.key] = replace(integrator, credited_until=max(until, integrator.credited_until or 0.0))
    return replace(lease, pace=replace(lease.pace, integrators={**lease.pace.integrators, **moved}))


def _range(target: Target, gain: float) -> tuple[float, float]:
    """Where a may lie. Money has no fixed ρ: both ends stand one typical call beyond [0, 1]."""
    if isinstance(target, ShareTarget):
        return -gain * target.share, 1 + gain * (1 - target.share)
    return -gain, 1 + gain


def _initial(target: Target) -> Integrator:
    # What share a rate of money will buy is not known yet: begin in the middle, it is found within 1/η calls.
    return Integrator(level=1 - target.share if isinstance(target, ShareTarget) else 0.5)


def _credited(pace: Pace, policy: PacingPolicy, now: float) -> dict[str, Integrator]:
    """The integrators of the policy's targets, with time credited up to `now`."""
    credited = {}
    for target in policy.targets:
        integrator = pace.integrators.get(target.key) or _initial(target)
        if isinstance(target, SpendTarget):
            integrator = _credit(integrator, target, policy.gain, now)
        credited[target.key] = integrator
    return credited


def _credit(integrator: Integrator, target: SpendTarget, gain: float, now: float) -> Integrator:
    since = integrator.credited_until
    if since is None:
        return replace(integrator, credited_until=now)
    if now <= since or integrator.unit <= 0:
        return integrator  # clocks of replicas differ a little: time that was credited is not taken back
    allowance = target.allowed(since, now) / integrator.unit
    stepped = _step(integrator, -gain * allowance, gain, *_range(target, gain))
    return replace(integrator, level=stepped.level, credited_until=now)


def _called(
    integrator: Integrator, target: Target, gain: float, strong: bool, estimate: Estimate, *, free: bool
) -> Integrator:
    """The integrator after one call."""
    low, high = _range(target, gain)
    if isinstance(target, ShareTarget):
        step = gain * (strong - target.share)
        if free:
            return replace(integrator, level=integrator.level + step, moved=integrator.moved + step)
        return _step(integrator, step, gain, low, high)
    incremental = max(estimate.strong - estimate.weak, 1)
    unit = integrator.unit + (incremental - integrator.unit) / _UNIT_MEMORY if integrator.unit > 0 else incremental
    weak = estimate.weak / unit
    stepped = _step(replace(integrator, unit=unit, weak=integrator.weak + weak), gain * weak, gain, low, high)
    if not strong:
        return stepped
    # A free strong call may be far dearer than `unit` and overshoot the range: it alone can, since all weak follows.
    return _step(stepped, gain * incremental / unit, gain, low, float("inf") if free else high)


def _step(integrator: Integrator, step: float, gain: float, low: float, high: float) -> Integrator:
    """Move the level, but not out of [low, high]; where it is outside already it is not pulled back."""
    wanted = integrator.level + step
    level = max(integrator.level, min(wanted, high)) if step > 0 else min(integrator.level, max(wanted, low))
    cut = (wanted - level) / gain
    return replace(
        integrator,
        level=level,
        moved=integrator.moved + level - integrator.level,
        dropped_strong=integrator.dropped_strong + max(cut, 0.0),
        dropped_weak=integrator.dropped_weak + max(-cut, 0.0),
    )


def _alpha(integrators: Mapping[str, Integrator], policy: PacingPolicy, distribution: Distribution) -> float:
    alphas = (_target_alpha(integrators[target.key], target, distribution) for target in policy.targets)
    return max(policy.alpha, *alphas)


def _target_alpha(integrator: Integrator, target: Target, distribution: Distribution) -> float:
    if isinstance(target, ShareTarget) and target.share in (0.0, 1.0):
        return NEVER_STRONG if target.share == 0.0 else 0.0  # exact, whatever F is
    return NEVER_STRONG if integrator.level > 1.0 else distribution.quantile(integrator.level)


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
