"""What another setting would have chosen. Pure; nothing acts on it. A conversation counts as a first turn here."""

import enum
from dataclasses import dataclass

from dispatcher_service import comparing, routing
from dispatcher_service.catalogue import FixedAlpha, StrongCallShare, TenantPolicy
from dispatcher_service.outcome import Choice, Prediction
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
    model: str
    prediction: Prediction


def by_dial(policy: TenantPolicy, live: Choice) -> ShadowChoice | None:
    """The shadow's dial on the live prediction; `None` if it has no dial, or nothing can be compared."""
    assert policy.shadow is not None
    return _shadow(ShadowKind.DIAL, policy.shadow.dial, policy, live, live.prediction)


def by_scorer(policy: TenantPolicy, live: Choice, prediction: Prediction) -> ShadowChoice | None:
    """The shadow scorer's prediction at the shadow's dial, or at the tenant's live one.

    `None` where only limits are a dial, or nothing can be compared.
    """
    assert policy.shadow is not None
    return _shadow(ShadowKind.SCORER, policy.shadow.dial or policy.dial, policy, live, prediction)


def _shadow(
    kind: ShadowKind,
    dial: FixedAlpha | StrongCallShare | None,
    policy: TenantPolicy,
    live: Choice,
    prediction: Prediction | None,
) -> ShadowChoice | None:
    if dial is None or prediction is None or len(live.fitting) == 1:
        return None
    candidates, _ = comparing.compare(prediction, live.ladder, live.fitting, policy.objective, live.estimate)
    if candidates is None:
        return None
    alpha = dial.alpha if isinstance(dial, FixedAlpha) else routing.alpha_for_share(prediction.quantiles, dial.share)
    decision = routing.decide_among(candidates, alpha=alpha)
    return ShadowChoice(kind=kind, decision=decision, model=live.ladder.models[decision.rung], prediction=prediction)
