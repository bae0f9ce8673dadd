"""The decision rule. There is one, `decide_among`, which serving, evaluation and simulation call; a pair is two models.

A tenant's models stand on a *ladder*, cheapest first, and the last is its strongest. Of each candidate the rule knows
P(the strongest model's answer is better), ties counting one half, and x, the part of the way from the cheapest cost to
the dearest. Two objectives:

- *threshold* (RouteLLM, section 3.1, for any number of models): the cheapest model that the strongest beats with a
  probability below alpha; where there is none, the last.
- *utility*: the best of quality - λ·x. Quality is P(the model's answer is better than the strongest one's), which is
  1 - P(the strongest's is better), and λ follows from alpha (see `exchange.rate`).

Under a threshold a higher alpha never takes a higher rung, under utility never a greater x; alpha 0 takes the last
candidate and `NEVER_STRONG` the first. A tie goes to the dearer model. With two models both are
`win_probability >= alpha` (utility for an alpha within [¼, ¾]).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatcher_service import exchange
from dispatcher_service.closed_set import ClosedSet

NEVER_STRONG = math.nextafter(1.0, 2.0)
"""An alpha that no win probability reaches."""

EVEN = 0.5
"""P(a model beats itself), a tie counting one half."""


class Tier(ClosedSet):
    """Where a model stands on its tenant's ladder: at the cheap end, at the strong end, or between."""

    WEAK = "weak"
    MIDDLE = "middle"
    STRONG = "strong"


class Reason(ClosedSet):
    """Why a model was chosen. Closed: the values are metric labels."""

    AT_OR_ABOVE_ALPHA = "at_or_above_alpha"
    BELOW_ALPHA = "below_alpha"
    BEST_UTILITY = "best_utility"
    ONLY_FIT = "only_fit"
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


class AlphaSource(ClosedSet):
    """Where an alpha comes from."""

    FIXED = "fixed"
    SHARE = "share"
    OVERRIDE = "override"
    PACED = "paced"


class Objective(ClosedSet):
    """What a decision makes best. See the top of the file."""

    THRESHOLD = "threshold"
    UTILITY = "utility"


class LeftOut(ClosedSet):
    """Why a model of the ladder took no part in a decision. Closed."""

    MODALITY = "modality"
    """It has no bound for a kind of part that the request holds."""
    CONTEXT_WINDOW = "context_window"
    """The request and its answer are estimated longer than the model reads."""
    TOOLS = "tools"
    """The request has tools, and the model calls none."""
    TURNED_OFF = "turned_off"
    """Operators have turned it off."""
    STICKY_CONVERSATION = "sticky_conversation"
    """It is weaker than what the conversation has had, by the tenant's `sticky`."""
    NOT_SCORED = "not_scored"
    """The scorer does not compare it with the others."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two models that a scorer compares, by the names that it knows them by."""

    strong: str
    weak: str

    @property
    def both(self) -> tuple[str, str]:
        """The names."""
        return self.strong, self.weak


@dataclass(frozen=True, slots=True)
class Ladder:
    """A tenant's models by their names in the catalogue, cheapest first, at least two; the last is the strongest.

    A *rung* is a model's index in it.

    Attributes:
        models: see above.
        known_as: the names by which scorers know them; empty where those are the same.
    """

    models: tuple[str, ...]
    known_as: tuple[str, ...] = ()
    top: int = field(init=False, repr=False, compare=False)
    """The last rung."""
    rungs: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """All of them, ascending."""
    scorer_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The names by which scorers know its models."""
    ends: ModelPair = field(init=False, repr=False, compare=False)
    """The two ends, as scorers know them."""

    def __post_init__(self) -> None:
        names = self.known_as or self.models
        object.__setattr__(self, "top", len(self.models) - 1)
        object.__setattr__(self, "rungs", tuple(range(len(self.models))))
        object.__setattr__(self, "scorer_names", names)
        object.__setattr__(self, "ends", ModelPair(strong=names[-1], weak=names[0]))

    @property
    def weak(self) -> str:
        """The model at the cheap end."""
        return self.models[0]

    @property
    def strong(self) -> str:
        """The model at the strong end."""
        return self.models[-1]

    def rung(self, model: str) -> int | None:
        """Where a model stands; `None` if it is none of them."""
        return self.models.index(model) if model in self.models else None

    def tier(self, rung: int) -> Tier:
        """The tier of a rung."""
        return _tier(rung, self.top)

    def other(self, rung: int) -> int:
        """The rung that a cost is compared with: the strong end, or the cheap one for the strong end itself."""
        return 0 if rung == self.top else self.top


@dataclass(frozen=True, slots=True)
class Candidates:
    """The models that a decision is made among, and by what rule.

    Attributes:
        rungs: where they stand on the ladder, ascending, at least one.
        beaten: for each, P(the strongest model's answer is better), in [0, 1]; `EVEN` for the strongest itself.
        fractions: for each, x in [0, 1]. Only for `Objective.UTILITY`; empty else.
        top: the ladder's last rung, whether or not it is among them.
        objective: see there.
    """

    rungs: tuple[int, ...]
    beaten: tuple[float, ...]
    fractions: tuple[float, ...] = ()
    top: int = 1
    objective: Objective = Objective.THRESHOLD

    @classmethod
    def pair(cls, win_probability: float, objective: Objective = Objective.THRESHOLD) -> "Candidates":
        """Two models, of which the strong one beats the weak one with this probability."""
        return cls(rungs=(0, 1), beaten=(win_probability, EVEN), fractions=(0.0, 1.0), objective=objective)

    @property
    def reach_both_ends(self) -> bool:
        """Whether the ladder's cheap end and its strong end are among them."""
        return self.rungs[0] == 0 and self.rungs[-1] == self.top

    @property
    def need(self) -> float:
        """The highest alpha at which the first candidate is not taken, in [0, 1]: what pacing ranks requests by.

        With two models under a threshold, it is the win probability.
        """
        if self.objective is Objective.THRESHOLD or len(self.rungs) == 1:
            return self.beaten[0]
        rate = max(
            (
                (self.beaten[0] - beaten) / (fraction - self.fractions[0])
                if fraction > self.fractions[0]
                else math.copysign(exchange.LARGEST, self.beaten[0] - beaten)
            )
            for beaten, fraction in zip(self.beaten[1:], self.fractions[1:], strict=True)
        )
        return exchange.alpha_of(rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which model, by its rung on the tenant's ladder, and why.

    `alpha` and `win_probability` are `None` when they took no part. Where something else then had the last word (no
    money, say), they are still what was compared. `win_probability` is P(the strongest model's answer is better than
    the cheapest candidate's).
    """

    rung: int
    tier: Tier
    reason: Reason
    alpha: float | None
    win_probability: float | None


def decide(win_probability: float, *, alpha: float) -> Decision:
    """`decide_among` two models: strong iff `win_probability >= alpha`; a tie goes strong.

    Args:
        win_probability: P(strong beats weak), in [0, 1].
        alpha: cost threshold, in [0, 1], or `NEVER_STRONG`. Higher is cheaper.
    """
    return decide_among(Candidates((0, 1), (win_probability, EVEN)), alpha=alpha)


def decide_among(candidates: Candidates, *, alpha: float) -> Decision:
    """The decision among any number of models. See the top of the file.

    Args:
        candidates: at least one.
        alpha: cost threshold, in [0, 1], or `NEVER_STRONG`. Higher is cheaper.
    """
    place = place_of(candidates, alpha=alpha)
    if candidates.objective is Objective.UTILITY:
        reason = Reason.BEST_UTILITY
    elif place < len(candidates.rungs) - 1:
        reason = Reason.BELOW_ALPHA
    else:
        reason = Reason.AT_OR_ABOVE_ALPHA  # All cheaper ones are.
    rung = candidates.rungs[place]
    return Decision(
        rung=rung,
        tier=_tier(rung, candidates.top),
        reason=reason,
        alpha=alpha,
        win_probability=candidates.beaten[0],
    )


def place_of(candidates: Candidates, *, alpha: float) -> int:
    """The index in `candidates` of the one that `decide_among` takes."""
    beaten = candidates.beaten
    last = len(beaten) - 1
    if candidates.objective is Objective.THRESHOLD:
        for place in range(last):
            if beaten[place] < alpha:
                return place
        return last
    if alpha <= 0.0:
        return last
    if alpha > 1.0:
        return 0
    rate = exchange.rate(alpha)
    best, least = 0, math.inf
    for place, fraction in enumerate(candidates.fractions):
        loss = beaten[place] + rate * fraction
        if loss <= least:
            best, least = place, loss
    return best


def forced(ladder: Ladder, rung: int, reason: Reason) -> Decision:
    """A decision that no threshold took part in."""
    return Decision(rung=rung, tier=ladder.tier(rung), reason=reason, alpha=None, win_probability=None)


def _tier(rung: int, top: int) -> Tier:
    if rung == top:
        return Tier.STRONG
    return Tier.WEAK if rung == 0 else Tier.MIDDLE


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
