"""The decision rule. There is one: `decide`. Serving, evaluation and simulation all call it."""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

NEVER_STRONG = math.nextafter(1.0, 2.0)
"""An alpha that no win probability reaches."""


class Tier(enum.Enum):
    """The two sides of a decision."""

    WEAK = "weak"
    STRONG = "strong"

    @property
    def other(self) -> "Tier":
        """The side that was not chosen."""
        return Tier.WEAK if self is Tier.STRONG else Tier.STRONG


class Reason(enum.Enum):
    """Why a tier was chosen. Closed: the values are metric labels."""

    AT_OR_ABOVE_ALPHA = "at_or_above_alpha"
    BELOW_ALPHA = "below_alpha"
    SCORER_UNAVAILABLE = "scorer_unavailable"
    BUDGET_DEGRADED = "budget_degraded"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    FALLBACK = "fallback"
    STICKY_CONVERSATION = "sticky_conversation"
    TOOL_LOOP = "tool_loop"
    OVERRIDE_WEAK = "override_weak"
    OVERRIDE_STRONG = "override_strong"
    CASCADE = "cascade"
    """A cascade begins: nothing has answered yet."""
    ACCEPTED = "accepted"
    LAST_STAGE = "last_stage"
    ANSWER_AT_HAND = "answer_at_hand"
    ENSEMBLE = "ensemble"
    """Several models are asked: no answer is chosen yet."""
    BEST_RANKED = "best_ranked"
    UNRANKED = "unranked"
    FUSED = "fused"


class AlphaSource(enum.Enum):
    """Where an alpha comes from."""

    FIXED = "fixed"
    SHARE = "share"
    OVERRIDE = "override"
    PACED = "paced"


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The models of the two tiers, by their names in the catalogue."""

    strong: str
    weak: str

    def of(self, tier: Tier) -> str:
        """The model of a tier."""
        return self.strong if tier is Tier.STRONG else self.weak


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which tier, and why.

    `alpha` and `win_probability` are `None` when they took no part. Where something else then had the last word (no
    money, say), they are still what was compared.
    """

    tier: Tier
    reason: Reason
    alpha: float | None
    win_probability: float | None


def decide(win_probability: float, *, alpha: float) -> Decision:
    """Strong iff `win_probability >= alpha` (RouteLLM, section 3.1); a tie goes strong.

    Args:
        win_probability: P(strong beats weak), in [0, 1].
        alpha: cost threshold, in [0, 1], or `NEVER_STRONG`. Higher is cheaper.
    """
    strong = win_probability >= alpha
    return Decision(
        tier=Tier.STRONG if strong else Tier.WEAK,
        reason=Reason.AT_OR_ABOVE_ALPHA if strong else Reason.BELOW_ALPHA,
        alpha=alpha,
        win_probability=win_probability,
    )


def forced(tier: Tier, reason: Reason) -> Decision:
    """A decision that no threshold took part in."""
    return Decision(tier=tier, reason=reason, alpha=None, win_probability=None)


def alpha_for_share(quantiles: Sequence[float], strong_call_share: float) -> float:
    """The alpha at which a share of the traffic goes strong, if its scores are distributed as the quantiles say.

    Args:
        quantiles: quantiles of `win_probability` at n >= 2 evenly spaced levels 0, 1/(n-1), …, 1, ascending.
        strong_call_share: in [0, 1].

    Returns:
        The quantile at level `1 - strong_call_share`, linear between the given ones. Exactly 0 for a share of 1
        (everything strong) and `NEVER_STRONG` for a share of 0, whatever the quantiles are.
    """
    if strong_call_share <= 0:
        return NEVER_STRONG
    if strong_call_share >= 1:
        return 0.0
    position = (1.0 - strong_call_share) * (len(quantiles) - 1)
    below = math.floor(position)
    above = min(below + 1, len(quantiles) - 1)
    return quantiles[below] + (position - below) * (quantiles[above] - quantiles[below])
