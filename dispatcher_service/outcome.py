"""What became of one request, as values: its choice, its bill, and the outcome that metrics and logs are made of."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dispatcher_service.answer import FinishReason
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Request
from dispatcher_service.closed_set import ClosedSet
from dispatcher_service.errors import PointsmanError
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.pricing import NanoUsd, Price, Usage, UsageSource
from dispatcher_service.routing import AlphaSource, Candidates, Decision, Ladder, LeftOut, Reason
from dispatcher_service.strategy_policies import StrategyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a scorer says of a conversation.

    `quantiles` are those of the scorer's reference prompts (see `routing.alpha_for_share`); `pair_mismatch` is true
    if the scorer was fitted on another pair than the one asked about. `beaten` is P(the strong model's answer is better
    than this one's) of every model that the scorer knows, by the names that it knows them by; empty where that was not
    asked for or the scorer cannot tell.
    """

    win_probability: float
    scorer: str
    scorer_version: str
    pair_mismatch: bool
    quantiles: Sequence[float]
    beaten: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a scorer says of an answer: P(it is acceptable), and who says so."""

    acceptance: float
    scorer: str
    scorer_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a scorer says of several answers: of each the mean of P(it is better than another of them), in [0, 1]."""

    win_rates: tuple[float, ...]
    scorer: str
    scorer_version: str


class StageResult(ClosedSet):
    """What became of a model that a strategy asked, or would have. Closed: a metric label."""

    ACCEPTED = "accepted"
    """Its answer's acceptance probability reached the threshold."""
    REJECTED = "rejected"
    UNCHECKED = "unchecked"
    """Its answer was not looked at: no further stage could follow, or it calls tools."""
    NO_SCORE = "no_score"
    FAILED = "failed"
    """It did not answer, nor did a model that stands in for it."""
    NO_MONEY = "no_money"
    """It was not asked, for want of money or of a ledger."""
    NO_TIME = "no_time"
    """It was not asked: too little was left of the caller's deadline."""
    RANKED = "ranked"
    CANCELLED = "cancelled"
    """It had not ended when the answers were compared, or when the caller went away."""
    FUSED = "fused"
    """It made one answer of the best ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One model of a cascade or an ensemble.

    Attributes:
        model: that answered, or was to.
        result: what became of it.
        given: whether its answer is the caller's.
        acceptance: P(its answer is acceptable), of several choices the lowest; `None` where nothing was scored.
        threshold: what that was compared with; `None` for stages without one.
        win_rate: mean of P(its answer is better than another's); `None` where nothing was ranked.
        cost: of its calls together.
        cost_source: `None` if certainly nothing was used.
    """

    model: str
    result: StageResult
    given: bool = False
    acceptance: float | None = None
    threshold: float | None = None
    win_rate: float | None = None
    cost: NanoUsd = 0
    cost_source: UsageSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A decision with what it was made from. `alpha_source` and `prediction` are `None` if no threshold took part.

    Attributes:
        decision: what was decided, or what then had the last word.
        ladder: the tenant's models; in a tool loop the model that goes on stands on the rung of its tier.
        fitting: the rungs whose models can take the request, ascending.
        estimate: what it was expected to cost at each rung.
        candidates: what was compared; `None` where nothing was.
        left_out: why the other models of the ladder were not.
        fallback: the model that answers in place of the rung's own; empty if that one does.
        instead_of: the model that was chosen and did not answer; empty if it did.
        price_version: of the price by which the model is billed.
    """

    decision: Decision
    ladder: Ladder
    fitting: tuple[int, ...]
    estimate: Estimate
    alpha_source: AlphaSource | None
    prediction: Prediction | None
    candidates: Candidates | None = None
    left_out: Mapping[int, LeftOut] = field(default_factory=dict)
    fallback: str = ""
    instead_of: str = ""
    price_version: str = ""
    strategy: StrategyName = StrategyName.ROUTE
    """How the answer comes about."""
    stages: tuple[Stage, ...] = ()
    """The models of a cascade or an ensemble, in the order in which they were to be asked."""
    judged_by: tuple[str, str] | None = None
    """Name and version of the scorer that judged the answers; `None` if none did."""

    @property
    def model(self) -> str:
        """The chosen model's name in the catalogue."""
        return self.fallback or self.ladder.models[self.decision.rung]

    @property
    def lists_candidates(self) -> bool:
        """Whether there is more to tell of the tenant's models than which one was chosen."""
        return bool(self.left_out) or (self.ladder.top > 1 and self.decision.reason is not Reason.TOOL_LOOP)

    def on_rung(self, rung: int, reason: Reason) -> "Choice":
        """The same with another rung, for this reason; what was compared stays."""
        return replace(self, decision=replace(self.decision, rung=rung, tier=self.ladder.tier(rung), reason=reason))

    def answered_by(self, rung: int, model: str) -> "Choice":
        """This choice if it is the model's own, else the same with the model that stands in for it."""
        if model == self.model:
            return self
        fallback = "" if model == self.ladder.models[rung] else model
        return replace(self.on_rung(rung, Reason.FALLBACK), fallback=fallback, instead_of=self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a request cost, and what the same token counts would have cost elsewhere.

    `cost` and `tokens` are those of all its attempts; `usage` is that of the answer, and so are the other costs, or,
    where there is no answer, that of the last attempt which used anything: `other_tier_cost` at the strong end of the
    ladder, or where that was chosen at the cheap one.
    """

    usage: Usage
    cost: NanoUsd
    other_tier_cost: NanoUsd
    all_strong_cost: NanoUsd
    attempts: int = 1
    """Upstream calls that were made."""
    tokens: int = 0
    """Processed by all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One call of an upstream.

    Attributes:
        model: what was called; it may be another model than the one that answered in the end.
        deployment: where.
        price_version: by which it is billed.
        usage: `None` if certainly nothing was used.
        cost: 0 if certainly nothing was used.
        error: what ended it early; `None` if it answered.
        seconds: waiting for the upstream.
    """

    model: str
    deployment: Deployment
    price_version: str
    usage: Usage | None
    cost: NanoUsd
    error: BaseException | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended.

    Attributes:
        request: what was asked.
        method: the gRPC method's name.
        received_at: seconds since the epoch.
        choice: `None` if the request ended before one was made.
        prices: of the models of the choice's ladder, by rung; empty without a choice.
        attempts: every upstream that was called, in order.
        bill: of all attempts; `None` if certainly nothing was used.
        finish_reasons: one per choice; empty if the answer did not end.
        error: what ended the request early; `None` on success.
        total_seconds: arrival to end.
        scorer_seconds: waiting for the scorer.
        upstream_seconds: waiting for the upstream, without the time in which the caller took its answer.
        first_token_seconds: upstream call to first content; `None` if none came.
    """

    request: Request
    method: str
    received_at: float
    choice: Choice | None
    prices: tuple[Price, ...] = ()
    attempts: tuple[Attempted, ...]
    bill: Bill | None
    finish_reasons: tuple[FinishReason, ...]
    error: BaseException | None
    total_seconds: float
    scorer_seconds: float
    upstream_seconds: float
    first_token_seconds: float | None

    @property
    def deployment(self) -> Deployment | None:
        """What was called last; `None` if nothing was."""
        return self.attempts[-1].deployment if self.attempts else None

    @property
    def status(self) -> str:
        """The gRPC status name."""
        return status_of(self.error)

    @property
    def error_reason(self) -> str:
        """The ErrorInfo reason; empty on success."""
        return self.error.reason if isinstance(self.error, PointsmanError) else self.status if self.error else ""


def status_of(error: BaseException | None) -> str:
    """The gRPC status name of an end."""
    if error is None:
        return "OK"
    if isinstance(error, PointsmanError):
        return error.status
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"


Record = Callable[[Outcome], None]
"""Called exactly once for each request that was begun. Must not raise or block."""
