"""What `pointsman.client` takes and returns: plain frozen values, so that a caller meets no generated code.

Meanings, units and ranges are those of the proto fields of the same name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2
from pointsman.enums import (
    AlphaSource,
    CostSource,
    FinishReason,
    LeftOut,
    Reason,
    Role,
    ScorerTask,
    StageResult,
    Strategy,
    Tier,
    UsageSource,
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `name` is the participant's, where there is one."""

    role: Role
    text: str
    name: str = ""


Messages = str | Sequence[Message]
"""Oldest first; a plain string is one user message."""

Conversation = Messages | chat_pb2.Chat
"""Messages, or a `Chat`, which is sent as it is: with tools, images and all."""


class Sampling(TypedDict, total=False):
    """How to write the answer. What is left out is the upstream's choice."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: Sequence[str]
    seed: int
    presence_penalty: float
    frequency_penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of the tenant's models in a decision.

    `beaten_by_strongest` is P(the strongest model's answer is better), `None` for one that was not compared; `left_out`
    says why it was left out, `None` if it was not.
    """

    model: str
    beaten_by_strongest: float | None
    left_out: LeftOut | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One model of a cascade or an ensemble. What was not scored or ranked is `None`."""

    model: str
    result: StageResult
    given: bool
    acceptance_probability: float | None
    threshold: float | None
    win_rate: float | None
    cost_nano_usd: int
    cost_source: CostSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which model answers, why, and what it costs.

    `alpha` and `win_probability` are `None` where none took part. Costs are nano-USD, and 0 while `cost_source` is
    `PENDING`.
    """

    tier: Tier
    model: str
    reason: Reason
    alpha: float | None
    alpha_source: AlphaSource
    win_probability: float | None
    scorer: str
    scorer_version: str
    pair_mismatch: bool
    cost_nano_usd: int
    other_tier_cost_nano_usd: int
    cost_source: CostSource
    price_version: str = ""
    attempts: int = 0
    """Upstream calls that were made; 0 while nothing is known of the cost."""
    instead_of: str = ""
    """The model that was chosen and did not answer, where `reason` is `FALLBACK`."""
    candidates: tuple[Candidate, ...] = ()
    """Every model of the tenant, cheapest first, where it has more than two or one was left out."""
    strategy: Strategy = Strategy.UNKNOWN
    stages: tuple[Stage, ...] = ()
    """The models of a cascade or an ensemble, in the order in which they were to be asked."""
    answer_scorer: str = ""
    """The scorer that judged the answers; empty if none did."""
    answer_scorer_version: str = ""

    @property
    def all_strong_cost_nano_usd(self) -> int:
        """What the call would have cost if every call went strong; an estimate where this one did not."""
        if self.tier is not Tier.STRONG:
            return self.other_tier_cost_nano_usd
        # Of several models only the strong one's calls would have been made.
        return next((stage.cost_nano_usd for stage in self.stages if stage.given), self.cost_nano_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in disjoint classes: their sum is what was processed."""

    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    source: UsageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer: the text and the end of its first choice. `response` holds everything else that came."""

    request_id: str
    decision: Decision
    content: str
    finish_reason: FinishReason
    usage: Usage
    response: dispatcher_pb2.CompleteResponse

    @property
    def replayed(self) -> bool:
        """True if this is the first result of its request id again: it cost nothing more."""
        return self.response.idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a request was routed as it was: in sentences, as its decision, and in `record` everything that is kept."""

    text: str
    decision: Decision
    record: decision_pb2.DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One prediction: P(the strong model's answer is better than the weak model's), a tie counting one half."""

    win_probability: float
    calibrated: bool
    scorer: str
    scorer_version: str
    truncated: bool
    pair_mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScore:
    """P(the answer is acceptable), and whether all of conversation and answer was read."""

    acceptance_probability: float
    scorer: str
    scorer_version: str
    conversation_truncated: bool
    answer_truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRanking:
    """Of each answer, in the order asked, the mean P(it is better than another); `best_index` has the highest."""

    mean_win_probabilities: tuple[float, ...]
    best_index: int
    truncated: tuple[bool, ...]
    conversation_truncated: bool
    scorer: str
    scorer_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerInfo:
    """One scorer that the service serves.

    `score_quantiles` are at n evenly spaced levels from 0 to 1, ascending: alpha for a share is quantile(1 - share).
    """

    name: str
    version: str
    router_kind: str
    strong_model: str
    weak_model: str
    models: tuple[str, ...]
    max_tokens: int
    max_conversation_bytes: int
    max_batch_size: int
    score_quantiles: tuple[float, ...]
    is_default: bool
    task: ScorerTask
    max_answer_bytes: int
    max_answers: int
