"""Sentences for operators about settings that are allowed but probably not meant. Each is logged once per cause."""

import logging

from dispatcher_service import comparing, routing
from dispatcher_service.outcome import Outcome, Prediction
from dispatcher_service.routing import AlphaSource
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

_USUAL_SHARES = (0.01, 0.99)


class Notices:
    """Looks at every outcome; says something at most once per tenant and scorer version."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def observe(self, outcome: Outcome) -> None:
        """See `outcome.Record`."""
        choice = outcome.choice
        if choice is None or choice.prediction is None:
            return
        prediction = choice.prediction
        key = (outcome.request.tenant_id, prediction.scorer_version)
        if key in self._seen:
            return
        self._seen.add(key)
        who = {"tenant": key[0], "scorer": prediction.scorer, "scorer_version": prediction.scorer_version}
        if prediction.pair_mismatch:
            logger.warning(
                "the scorer was fitted on another model pair: shares hold, but quality may be lower; train or adapt a "
                "scorer for this pair",
                extra=fields(**who, strong_model=choice.ladder.strong, weak_model=choice.ladder.weak),
            )
        if choice.candidates is not None and comparing.not_compared(prediction, choice.ladder):
            logger.warning(
                "the scorer does not compare all of the tenant's models: those that it does not know, or all between "
                "the cheapest and the dearest, are never chosen; train a scorer on battles of these models, and name "
                "them alike (scorer_name)",
                extra=fields(**who, models=choice.ladder.scorer_names, known=tuple(prediction.beaten)),
            )
        alpha = choice.decision.alpha
        if choice.alpha_source is AlphaSource.FIXED and alpha is not None and not _is_usual(alpha, prediction):
            logger.warning(
                "the fixed alpha sends nearly everything one way: it lies outside the scorer's 1 to 99 % quantiles; "
                "set strong_call_share instead",
                extra=fields(**who, alpha=alpha),
            )


def _is_usual(alpha: float, prediction: Prediction) -> bool:
    highest, lowest = (routing.alpha_for_share(prediction.quantiles, share) for share in _USUAL_SHARES)
    return lowest <= alpha <= highest
