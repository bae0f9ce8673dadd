"""What operators turn a tenant to for a while: all weak, all strong, or a model off. Pure.

An override stands above the dial, the scorer and a sticky conversation; a tool loop keeps its model under it, and is
refused where that model is off; limits hold as ever. It ends by itself.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher_service import routing
from dispatcher_service.routing import Decision, Ladder, Reason


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


def models_off(overrides: Iterable[Override], *, now: float) -> frozenset[str]:
    """The models that must not be called."""
    return frozenset(each.model for each in overrides if each.kind is OverrideKind.MODEL_OFF and now < each.expires_at)


def forced(
    overrides: Iterable[Override], ladder: Ladder, *, fitting: Sequence[int], on: Sequence[int], now: float
) -> Decision | None:
    """The decision that is made for all calls; `None` leaves them free. A model that is off outweighs the rest.

    Of several ends that are called for, the first one counts: a tenant's own stand before those of everyone.

    Args:
        overrides: some may have expired.
        ladder: the tenant's.
        fitting: the rungs that can take the request, ascending.
        on: those of them that are not off, at least one.
        now: seconds since the epoch.
    """
    if len(on) == 1 and len(fitting) > 1:
        # What is left when the others are off: of a pair, the other end.
        reason = {0: Reason.OVERRIDE_WEAK, ladder.top: Reason.OVERRIDE_STRONG}.get(on[0], Reason.ONLY_FIT)
        return routing.forced(ladder, on[0], reason)
    for each in overrides:
        if now < each.expires_at and each.kind is OverrideKind.ALL_WEAK:
            return routing.forced(ladder, on[0], Reason.OVERRIDE_WEAK)
        if now < each.expires_at and each.kind is OverrideKind.ALL_STRONG:
            return routing.forced(ladder, on[-1], Reason.OVERRIDE_STRONG)
    return None
