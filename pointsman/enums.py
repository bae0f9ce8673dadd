"""The closed sets of `pointsman.client`: who wrote, why a model was chosen, where a number comes from.

Meanings are those of the proto enums of the same name. `UNKNOWN` is a value that this version of the client does not
know.
"""

import enum


class Role(enum.StrEnum):
    """Who wrote a message. The values are OpenAI's."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Tier(enum.StrEnum):
    """Where the chosen model stands among its tenant's models: the cheapest, the strongest, or between."""

    UNKNOWN = "unknown"
    WEAK = "weak"
    MIDDLE = "middle"
    STRONG = "strong"


class Reason(enum.StrEnum):
    """Why a model was chosen."""

    UNKNOWN = "unknown"
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
    ONLY_FIT = "only_fit"
    BEST_UTILITY = "best_utility"
    CASCADE = "cascade"
    ACCEPTED = "accepted"
    LAST_STAGE = "last_stage"
    ANSWER_AT_HAND = "answer_at_hand"
    ENSEMBLE = "ensemble"
    BEST_RANKED = "best_ranked"
    UNRANKED = "unranked"
    FUSED = "fused"


class Strategy(enum.StrEnum):
    """How a request comes to its answer."""

    UNKNOWN = "unknown"
    ROUTE = "route"
    CASCADE = "cascade"
    ENSEMBLE = "ensemble"


class StageResult(enum.StrEnum):
    """What became of a model that a cascade or an ensemble asked, or would have."""

    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNCHECKED = "unchecked"
    NO_SCORE = "no_score"
    FAILED = "failed"
    NO_MONEY = "no_money"
    NO_TIME = "no_time"
    RANKED = "ranked"
    CANCELLED = "cancelled"
    FUSED = "fused"


class LeftOut(enum.StrEnum):
    """Why a model took no part in a decision."""

    UNKNOWN = "unknown"
    MODALITY = "modality"
    CONTEXT_WINDOW = "context_window"
    TOOLS = "tools"
    TURNED_OFF = "turned_off"
    STICKY_CONVERSATION = "sticky_conversation"
    NOT_SCORED = "not_scored"


class ScorerTask(enum.StrEnum):
    """What a scorer does: predict which model should answer, score an answer, or rank answers."""

    UNKNOWN = "unknown"
    PREDICT = "predict"
    SCORE_ANSWER = "score_answer"
    RANK_ANSWERS = "rank_answers"


class Preference(enum.StrEnum):
    """Which answer someone liked better: the one that was given, one of the other tier's model, or both alike."""

    CHOSEN = "chosen"
    OTHER = "other"
    TIE = "tie"


class AlphaSource(enum.StrEnum):
    """Where the alpha of a decision comes from. `UNKNOWN` also where no alpha took part."""

    UNKNOWN = "unknown"
    FIXED = "fixed"
    SHARE = "share"
    OVERRIDE = "override"
    PACED = "paced"


class CostSource(enum.StrEnum):
    """How far to trust a cost."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    REPORTED = "reported"
    ESTIMATED = "estimated"


class UsageSource(enum.StrEnum):
    """Where token counts come from."""

    UNKNOWN = "unknown"
    REPORTED = "reported"
    ESTIMATED = "estimated"


class FinishReason(enum.StrEnum):
    """Why the model stopped. The values are OpenAI's."""

    UNKNOWN = "unknown"
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
