"""What a tenant's policy says of its strategy, as frozen values."""

import enum
from dataclasses import dataclass

from dispatcher_service.closed_set import ClosedSet
from dispatcher_service.routing import NEVER_STRONG


class StrategyName(ClosedSet):
    """How a tenant's requests come to an answer. Closed: a metric label."""

    ROUTE = "route"
    """One model is chosen before any is called."""
    CASCADE = "cascade"
    """Models are asked from the cheapest to the dearest until an answer is accepted."""
    ENSEMBLE = "ensemble"
    """Several models are asked at once, and the best of their answers is given."""


class OnNoScore(enum.Enum):
    """What a cascade makes of an answer for which no score came in time."""

    ACCEPT = "accept"
    GO_ON = "go_on"


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadePolicy:
    """How a cascade goes up the tenant's models.

    Attributes:
        thresholds: of every model but the last, in the order of their price: from this acceptance probability on its
            answer is given.
        easy_alpha: prompts with a lower win probability go to the cheapest model without a check; 0 for none.
        hard_alpha: prompts with this win probability or a higher one go to the strongest model at once; `NEVER_STRONG`
            for none.
        on_no_score: what becomes of an answer for which no score came.
        min_seconds: with less than this left of the caller's deadline no further stage is begun.
        scorer: which of the scorer's artefacts judges answers; empty for its default.
    """

    thresholds: tuple[float, ...]
    easy_alpha: float = 0.0
    hard_alpha: float = NEVER_STRONG
    on_no_score: OnNoScore = OnNoScore.GO_ON
    min_seconds: float = 1.0
    scorer: str = ""

    @property
    def looks_ahead(self) -> bool:
        """Whether the prompt's win probability says anything: the hybrid with routing."""
        return self.easy_alpha > 0.0 or self.hard_alpha < NEVER_STRONG


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePolicy:
    """How an ensemble asks the tenant's models.

    Attributes:
        deadline: seconds after which models that have not answered are waited for no longer, once one has.
        fuse_with: the model that makes one answer of the best three; empty for none.
        scorer: which of the scorer's artefacts ranks answers; empty for its default.
    """

    deadline: float = 30.0
    fuse_with: str = ""
    scorer: str = ""
