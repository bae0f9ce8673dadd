"""What another setting would have chosen. Pure; nothing acts on it. A conversation counts as a first turn here."""

import enum
from dataclasses import dataclass

from dispatcher_service import routing
from dispatcher_service.catalogue import FixedAlpha, Shadow, StrongCallShare
from dispatcher_service.outcome import Prediction
from dispatcher_service.routing import Decision


class ShadowKind(enum.Enum):
    """What was tried. Closed: the values are metric labels."""

    DIAL = "dial"
    SCORER = "scorer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowChoice:
    """A decision that was not acted on, and the prediction that it was made from."""

    kind: ShadowKind
    decision: Decision
    prediction: Prediction


def by_dial(shadow: Shadow, prediction: Prediction) -> ShadowChoice | None:
    """The shadow's dial on the live prediction; `None` if it has no dial."""
    if shadow.dial is None:
        return None
    return ShadowChoice(kind=ShadowKind.DIAL, decision=_decide(shadow.dial, prediction), prediction=prediction)


def by_scorer(shadow: Shadow, live: FixedAlpha | StrongCallShare | None, prediction: Prediction) -> ShadowChoice | None:
    """The shadow's scorer at the shadow's dial, or at the tenant's live one; `None` where only limits are one."""
    dial = shadow.dial or live
    if dial is None:
        return None
    decision = _decide(dial, prediction)
    return ShadowChoice(kind=ShadowKind.SCORER, decision=decision, prediction=prediction)


def _decide(dial: FixedAlpha | StrongCallShare, prediction: Prediction) -> Decision:
    alpha = dial.alpha if isinstance(dial, FixedAlpha) else routing.alpha_for_share(prediction.quantiles, dial.share)
    return routing.decide(prediction.win_probability, alpha=alpha)
