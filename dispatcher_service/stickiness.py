"""Which model a conversation keeps. Pure: what is remembered comes in as a value.

Rules in the order in which they win: in a tool loop the model that made the calls goes on; a sticky conversation keeps
its model, or goes no weaker; otherwise every turn is decided anew. Hard limits stand above all of these and are not
known here.
"""

import enum
from collections.abc import Container
from dataclasses import dataclass, replace

from dispatcher_service.routing import Ladder, Tier


class Sticky(enum.Enum):
    """What a tenant wants a conversation to keep from one turn to the next. Tool loops keep their model in any case."""

    OFF = "off"
    """Nothing: every turn is decided anew, so that a conversation may go back to weak."""
    STRONG = "strong"
    """How strong it has been: of two models strong once it was strong, of more none below the strongest so far."""
    BOTH = "both"
    """The model that answered last, and so that of its first turn, unless a limit or a failure changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is remembered of a conversation.

    Attributes:
        tier: of who answered last.
        model: who answered last; it may be a fallback, which is on no ladder.
        was_strong: whether the strong end of the ladder ever answered.
        highest: the model of the highest rung that ever did; empty in what older versions remembered.
    """

    tier: Tier
    model: str
    was_strong: bool
    highest: str = ""

    def then(self, ladder: Ladder, rung: int, model: str) -> "Held":
        """After another turn, which this rung answered, or a fallback in its place."""
        now = first(ladder, rung, model)
        return replace(
            now,
            was_strong=self.was_strong or now.was_strong,
            highest=ladder.models[max(rung, ladder.rung(self.highest) or 0)],
        )


def first(ladder: Ladder, rung: int, model: str) -> Held:
    """After the first turn."""
    tier = ladder.tier(rung)
    return Held(tier=tier, model=model, was_strong=tier is Tier.STRONG, highest=ladder.models[rung])


def kept(held: Held | None, ladder: Ladder, models: Container[str]) -> tuple[Ladder, int] | None:
    """The rung that goes on in a tool loop, with the ladder that it is of; `None` leaves the turn free.

    On that ladder the rung's model is the one that made the calls, were it a fallback or of an earlier configuration.
    If it is not among `models` any more, or nothing is remembered, the turn is free: the scorer sees the same last
    user turn as when the loop began, so that only an alpha that has moved since can choose another model.
    """
    if held is None or held.model not in models:
        return None
    rung = rung_of(held, ladder)
    if ladder.models[rung] == held.model:
        return ladder, rung
    names = (*ladder.models[:rung], held.model, *ladder.models[rung + 1 :])
    return replace(ladder, models=names), rung


def lowest(held: Held | None, sticky: Sticky, ladder: Ladder) -> int:
    """The rung below which a sticky conversation does not go; 0 leaves the turn free."""
    if held is None or sticky is not Sticky.STRONG:
        return 0
    return ladder.top if held.was_strong else ladder.rung(held.highest) or 0


def rung_of(held: Held, ladder: Ladder) -> int:
    """The rung that answered last: of a model between the ends by its name, and the next best where that is gone."""
    if held.tier is Tier.MIDDLE:
        rung = ladder.rung(held.model) or ladder.rung(held.highest)
        return min(1, ladder.top) if rung is None else rung
    return ladder.top if held.tier is Tier.STRONG else 0
