"""What operators turn a tenant to for a while: all weak, all strong, or a model off. Pure.

An override stands above the dial, the scorer and a sticky conversation; a tool loop keeps its model under it, and is
refused where that model is off; limits hold as ever. It ends by itself.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher_service import routing
from dispatcher_service.errors import ModelsOff
from dispatcher_service.routing import Decision, ModelPair, Reason, Tier


class OverrideKind(enum.Enum):
    """What is overridden."""

    ALL_WEAK = "all_weak"
    ALL_STRONG = "all_strong"
    MODEL_OFF = "model_off"


@dataclass(frozen=True, slots=True)
class Override:
    """One override. `model` is for `MODEL_OFF` alone; `expires_at` is in seconds since the epoch."""

    kind: OverrideKind
    model: str
    expires_at: float


_TIERS = {OverrideKind.ALL_WEAK: Tier.WEAK, OverrideKind.ALL_STRONG: Tier.STRONG}
_REASONS = {Tier.WEAK: Reason.OVERRIDE_WEAK, Tier.STRONG: Reason.OVERRIDE_STRONG}


def models_off(overrides: Iterable[Override], *, now: float) -> frozenset[str]:
    """The models that must not be called."""
    return frozenset(each.model for each in overrides if each.kind is OverrideKind.MODEL_OFF and now < each.expires_at)


def forced(overrides: Iterable[Override], pair: ModelPair, *, now: float) -> Decision | None:
    """The decision that is made for all calls; `None` leaves them free. A model that is off outweighs the rest.

    Of several tiers that are called for, the first one counts: a tenant's own stand before those of everyone.

    Raises:
        ModelsOff: both models of the pair are off.
    """
    overrides = tuple(overrides)
    off = models_off(overrides, now=now)
    left = [tier for tier in Tier if pair.of(tier) not in off]
    if not left:
        raise ModelsOff(pair.strong, pair.weak)
    if len(left) == 1:
        tier = left[0]
    else:
        wanted = [_TIERS[each.kind] for each in overrides if each.kind in _TIERS and now < each.expires_at]
        if not wanted:
            return None
        tier = wanted[0]
    return routing.forced(tier, _REASONS[tier])
