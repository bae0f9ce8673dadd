"""What a tenant wants paced, as values: targets, how tightly to hold them, and what a decision is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dispatcher_service.budget import Limit, Period, window_at
from dispatcher_service.pricing import NanoUsd

DEFAULT_WINDOW_CALLS = 1000
DEFAULT_MEMORY_CALLS = 4000
DEFAULT_LEASE_CALLS = 32

HEADROOM_PERCENT = 3
"""What pacing leaves of a limit. At the limit itself the hard cap would bite before every window's end, since a
reservation needs room for its worst case."""


@dataclass(frozen=True, slots=True)
class ShareTarget:
    """This share of the calls goes strong, in [0, 1]; of more than two models, this is the mean of x."""

    kind: ClassVar[str] = "share"
    """One of a closed set: a metric label."""

    share: float
    key: str = field(init=False, repr=False, compare=False)
    """Names the integrator that belongs to it. Another share begins anew: turning the dial takes effect at once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"share:{self.share!r}")


@dataclass(frozen=True, slots=True)
class SpendTarget:
    """Spending keeps to the rate that would use up a limit exactly.

    `profile` weighs the 24 hours of the UTC day, with mean 1; `None` means all alike.
    """

    limit: NanoUsd
    period: Period
    profile: tuple[float, ...] | None = None
    kind: str = field(init=False, repr=False, compare=False)
    """One of a closed set: a metric label."""
    key: str = field(init=False, repr=False, compare=False)
    """Names the integrator that belongs to it. It outlives a changed limit: the level that holds it is near."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", f"spend_{self.period.value}")
        object.__setattr__(self, "key", self.kind)

    def allowed(self, since: float, until: float) -> float:
        """Nano-USD that the rate allows between two times in seconds since the epoch; at most one window's worth."""
        window = window_at(self.period, until)
        length = window.end - window.start
        since = max(since, until - length)
        passed = until - since
        if self.profile is not None:
            passed = _weighed(self.profile, until) - _weighed(self.profile, since)
        return self.limit / length * max(passed, 0.0)


def _weighed(profile: tuple[float, ...], at: float) -> float:
    """The time since the epoch, each hour of it weighed by its profile."""
    days, rest = divmod(at, 86_400)
    hour, seconds = divmod(rest, 3600)
    return days * 86_400 + 3600 * sum(profile[: int(hour)]) + seconds * profile[int(hour)]


Target = ShareTarget | SpendTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingPolicy:
    """What a tenant wants held, and how tightly.

    Attributes:
        targets: all hold together; keys are distinct.
        alpha: no call goes strong below it, whatever the targets would allow.
        gain: η. 5/W corrects within a window of about W calls; higher follows drift faster and keeps less quality.
        memory: calls after which the score distribution has forgotten.
        lease_calls: decisions between two merges.
    """

    targets: tuple[Target, ...]
    alpha: float = 0.0
    gain: float = 5 / DEFAULT_WINDOW_CALLS
    memory: float = float(DEFAULT_MEMORY_CALLS)
    lease_calls: int = DEFAULT_LEASE_CALLS


@dataclass(frozen=True, slots=True)
class Reference:
    """A scorer version with the quantiles that it publishes (see `routing.alpha_for_share`)."""

    version: str
    quantiles: Sequence[float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call is expected to cost at each model of its tenant's ladder, cheapest rung first; at least two."""

    costs: tuple[NanoUsd, ...]
    incremental: NanoUsd = field(init=False, repr=False, compare=False)
    """What the strong end costs more than the cheap one; at least 1, also where answers make it cheaper."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "incremental", max(self.costs[-1] - self.costs[0], 1))

    @property
    def weak(self) -> NanoUsd:
        """At the cheap end."""
        return self.costs[0]

    @property
    def strong(self) -> NanoUsd:
        """At the strong end."""
        return self.costs[-1]

    def above(self, rung: int) -> NanoUsd:
        """What a rung costs more than the cheap end: 0 there, `incremental` at the strong end, else within these."""
        if rung == len(self.costs) - 1:
            return self.incremental
        return min(max(self.costs[rung] - self.costs[0], 0), self.incremental)

    def fraction(self, rung: int) -> float:
        """x: `above` in parts of the whole way. 0 at the cheap end, 1 at the strong one."""
        return self.above(rung) / self.incremental


def pacing_policy(
    *,
    share: float | None,
    alpha: float | None,
    limits: Sequence[Limit],
    window_calls: int = DEFAULT_WINDOW_CALLS,
    memory_calls: int = DEFAULT_MEMORY_CALLS,
    lease_calls: int = DEFAULT_LEASE_CALLS,
) -> PacingPolicy | None:
    """What is to be paced for a tenant; `None` where nothing is: a fixed alpha without limits.

    A share becomes a target, and so does every limit, with `HEADROOM_PERCENT` off; a fixed alpha is the floor.
    """
    targets: list[Target] = [] if share is None else [ShareTarget(share)]
    targets += [SpendTarget(limit.amount * (100 - HEADROOM_PERCENT) // 100, limit.period) for limit in limits]
    if not targets:
        return None
    return PacingPolicy(
        targets=tuple(targets),
        alpha=alpha or 0.0,
        gain=5 / window_calls,
        memory=float(memory_calls),
        lease_calls=lease_calls,
    )
