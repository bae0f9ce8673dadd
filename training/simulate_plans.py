"""The values of a simulation: what a tenant could set, what became of each call, and what was spent."""

from dataclasses import dataclass, field

from dispatcher_service.budget import BudgetWindow, Limit, OnExhausted, degrades, windows_at
from dispatcher_service.pacing_targets import PacingPolicy, ShareTarget, SpendTarget
from dispatcher_service.routing import Tier
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy
from training.streams import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a tenant could set.

    Attributes:
        name: for tables and plots.
        pacing: the targets to hold; `None` compares with `alpha` alone.
        alpha: the fixed threshold of a plan without pacing.
        limits: the hard limits, at most one per period.
        on_exhausted: what happens when a call does not fit them.
        reading: a strategy that reads answers, in place of `alpha`. It holds no target: `pacing` is then `None`.
    """

    name: str
    pacing: PacingPolicy | None = None
    alpha: float = 0.0
    limits: tuple[Limit, ...] = ()
    on_exhausted: OnExhausted = OnExhausted.DEGRADE
    reading: CascadePolicy | EnsemblePolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one call.

    Attributes:
        call: see there.
        rung: of the model whose answer was given; `None` if the call was refused.
        asked: rungs of all models that were asked, each of which is paid.
        alpha: in force.
        free: a threshold on the win probability decided.
        degraded: it did not fit a limit as wanted.
    """

    call: Call
    rung: int | None
    asked: tuple[int, ...]
    alpha: float | None = None
    free: bool = False
    degraded: bool = False

    @property
    def strong(self) -> bool:
        """Whether the strongest model's answer was given."""
        return self.rung == self.call.top

    @property
    def tier(self) -> Tier | None:
        """Of the answer given; `None` if the call was refused."""
        if self.rung is None:
            return None
        return Tier.STRONG if self.strong else Tier.MIDDLE if self.rung else Tier.WEAK

    @property
    def x(self) -> float:
        """How far up the models the answer came from, see `Call.x`; 0 if the call was refused."""
        return 0.0 if self.rung is None else self.call.x(self.rung)

    @property
    def quality(self) -> float | None:
        """Of the answer given; `None` if the call was refused or nothing is known of it."""
        return self.call.qualities[self.rung] if self.rung is not None and self.call.qualities else None

    @property
    def cost(self) -> int:
        """Of all models that were asked, in nano-USD."""
        return sum(self.call.costs[rung] for rung in self.asked)


@dataclass(frozen=True, slots=True)
class Replay:
    """A plan and what it did with each call of a stream."""

    plan: Plan
    results: tuple[Result, ...]


@dataclass(slots=True)
class Book:
    """What was spent in the windows of the limits."""

    limits: tuple[Limit, ...]
    _spent: dict[BudgetWindow, int] = field(default_factory=dict)

    def fits(self, cost: int, at: float) -> bool:
        """Whether every limit has room for so much more."""
        windows = {window.period: window for window in windows_at(at)}
        return all(self._spent.get(windows[limit.period], 0) + cost <= limit.amount for limit in self.limits)

    def ends(self, cost: int, at: float) -> float:
        """When the window ends whose limit has no room for so much more, and the least left."""
        windows = {window.period: window for window in windows_at(at)}
        left = {limit.period: limit.amount - self._spent.get(windows[limit.period], 0) for limit in self.limits}
        tightest = min((period for period in left if left[period] < cost), key=lambda period: left[period])
        return windows[tightest].end

    def charge(self, cost: int, at: float) -> None:
        """Add to what was spent."""
        for window in windows_at(at):
            self._spent[window] = self._spent.get(window, 0) + cost


def that_fits(call: Call, rung: int, plan: Plan, book: Book) -> int | None:
    """The model that is asked alone: the wanted one, or if the limits leave it no room the cheapest one or none."""
    if book.fits(call.costs[rung], call.at):
        return rung
    degraded = degrades(plan.on_exhausted, cheapest=rung == 0, in_tool_loop=False)
    return 0 if degraded and book.fits(call.costs[0], call.at) else None


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
