"""What a tenant wants paced, as values: targets, how tightly to hold them, and what a decision is made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher_service.budget import Period, window_at
from dispatcher_service.pricing import NanoUsd


@dataclass(frozen=True, slots=True)
class ShareTarget:
    """This share of the calls goes strong, in [0, 1]."""

    share: float

    @property
    def key(self) -> str:
        """Names the integrator that belongs to it."""
        return "share"


@dataclass(frozen=True, slots=True)
class SpendTarget:
    """Spending keeps to the rate that would use up a limit exactly.

    `profile` weighs the 24 hours of the UTC day, with mean 1; `None` means all alike.
    """

    limit: NanoUsd
    period: Period
    profile: tuple[float, ...] | None = None

    @property
    def key(self) -> str:
        """Names the integrator that belongs to it."""
        return f"spend_{self.period.value}"

    def allowed(self, since: float, until: float) -> float:
        """Nano-USD that the rate allows between two times in seconds since the epoch; at most one window's worth."""
        window = window_at(self.period, until)
        length = window.end - window.start
        since = max(since, until - length)
        return self.limit / length * max(self._weighted(until) - self._weighted(since), 0.0)

    def _weighted(self, at: float) -> float:
        if self.profile is None:
            return at
        days, rest = divmod(at, 86_400)
        hour, seconds = divmod(rest, 3600)
        return days * 86_400 + 3600 * sum(self.profile[: int(hour)]) + seconds * self.profile[int(hour)]


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
    gain: float = 0.005
    memory: float = 4000.0
    lease_calls: int = 32


@dataclass(frozen=True, slots=True)
class Reference:
    """A scorer version with the quantiles that it publishes (see `routing.alpha_for_share`)."""

    version: str
    quantiles: Sequence[float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call is expected to cost in each tier."""

    weak: NanoUsd
    strong: NanoUsd
