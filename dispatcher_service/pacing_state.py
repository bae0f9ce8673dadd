"""What pacing remembers, as values: what replicas share, one replica's lease of it, and how leases add up.

A replica decides on its lease alone. While a lease is being merged into the shared pace, it goes on with the next one:
`rebased` puts that one on the merged pace, or, where the merge failed, `joined` makes one of the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dispatcher_service.distribution import Distribution
from dispatcher_service.pacing_targets import PacingPolicy, Reference

_SEED_SHARE = 0.25
"""Of the memory: what a distribution weighs before a call has been seen."""
_MAX_SCORES = 1024
"""Per version, of a lease that cannot be merged: its distribution is then behind, and its integrators are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrator:
    """The state of one target.

    Attributes:
        level: a.
        moved: by how much calls moved it since the lease began (credit for time is not in it).
        unit: the mean incremental cost in nano-USD by which money is measured; 0 before the first call.
        credited_until: up to when time has been credited, in seconds since the epoch; `None` before the first call.
        weak: what the weak side of all calls cost since the lease began, in units.
        weak_excess: running mean of weak cost minus allowance per merge, in units.
        dropped_strong: calls' worth of strong excess that saturation cut off, so that it is not paid back.
        dropped_weak: the same for weak excess. Idle time is not counted: nobody was forced.
    """

    level: float
    moved: float = 0.0
    unit: float = 0.0
    credited_until: float | None = None
    weak: float = 0.0
    weak_excess: float = 0.0
    dropped_strong: float = 0.0
    dropped_weak: float = 0.0

    @property
    def infeasible(self) -> bool:
        """All calls go weak, and still spending is faster than the target."""
        return self.level > 1.0 and self.weak_excess > 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """What the replicas of a tenant share: an integrator per target, a distribution per scorer version."""

    integrators: Mapping[str, Integrator] = field(default_factory=dict)
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    references: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The quantiles each version published: what a later version's distribution is carried over from."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One replica's view of a `Pace`, and what it did since it took it: `scores` by version, in `calls` decisions."""

    pace: Pace
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    calls: int = 0

    def exhausted(self, policy: PacingPolicy) -> bool:
        """Whether it is time to merge."""
        return self.calls >= policy.lease_calls


def distribution_of(pace: Pace, policy: PacingPolicy, reference: Reference) -> Distribution:
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


def with_version(pace: Pace, policy: PacingPolicy, reference: Reference) -> Pace:
    """The pace with a distribution under a scorer version."""
    if reference.version in pace.distributions:
        return pace
    distributions = {**pace.distributions, reference.version: distribution_of(pace, policy, reference)}
    references = {**pace.references, reference.version: tuple(reference.quantiles)}
    return replace(pace, distributions=distributions, references=references)


def lease_of(pace: Pace) -> Lease:
    """A fresh lease: what it will have moved and dropped counts from zero."""
    fresh = {
        key: replace(integrator, moved=0.0, weak=0.0, dropped_strong=0.0, dropped_weak=0.0)
        for key, integrator in pace.integrators.items()
    }
    return Lease(pace=replace(pace, integrators=fresh))


def joined(earlier: Lease, later: Lease) -> Lease:
    """One lease in place of two, of which the later began where the earlier ended."""
    integrators = dict(later.pace.integrators)
    for key, first in earlier.pace.integrators.items():
        second = integrators.get(key)
        if second is None:
            integrators[key] = first
            continue
        integrators[key] = replace(
            second,
            moved=first.moved + second.moved,
            weak=first.weak + second.weak,
            dropped_strong=first.dropped_strong + second.dropped_strong,
            dropped_weak=first.dropped_weak + second.dropped_weak,
        )
    scores = dict(earlier.scores)
    for version, more in later.scores.items():
        scores[version] = (*scores.get(version, ()), *more)[-_MAX_SCORES:]
    pace = replace(later.pace, integrators=integrators)
    return Lease(pace=pace, scores=scores, calls=earlier.calls + later.calls)


def rebased(lease: Lease, pace: Pace, *, now: float) -> Lease:
    """The lease as if it had begun from another pace: that pace, and what the lease did on top."""
    integrators = dict(pace.integrators)
    for key, mine in lease.pace.integrators.items():
        theirs = integrators.get(key)
        if theirs is None:
            integrators[key] = mine
            continue
        integrators[key] = replace(
            mine,
            level=theirs.level + mine.moved,
            credited_until=later_credit(theirs.credited_until, mine.credited_until, now=now),
            weak_excess=theirs.weak_excess,
        )
    return replace(
        lease,
        pace=Pace(
            integrators=integrators,
            distributions={**lease.pace.distributions, **pace.distributions},
            references={**lease.pace.references, **pace.references},
        ),
    )


def later_credit(theirs: float | None, mine: float | None, *, now: float) -> float | None:
    """Up to when time counts as credited. Mine is told apart only where it lies ahead: no credit until then."""
    return mine if mine is not None and mine > max(now, theirs or 0.0) else theirs
