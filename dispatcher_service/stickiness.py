"""Which model a conversation keeps. Pure: what is remembered comes in as a value.

Rules in the order in which they win: in a tool loop the model that made the calls goes on; a sticky conversation keeps
its tier; otherwise every turn is decided anew. Hard limits stand above all of these and are not known here.
"""

import enum
from collections.abc import Container
from dataclasses import dataclass, replace

from dispatcher_service import routing
from dispatcher_service.routing import Decision, ModelPair, Reason, Tier


class Sticky(enum.Enum):
    """What a tenant wants a conversation to keep from one turn to the next. Tool loops keep their model in any case."""

    OFF = "off"
    """Nothing: every turn is decided anew, so that a conversation may go back to weak."""
    STRONG = "strong"
    """Strong, once it was strong; until then each turn is decided anew."""
    BOTH = "both"
    """The tier that answered last, and so that of its first turn, unless a limit or a failure changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is remembered of a conversation: who answered last, and whether the strong tier ever did."""

    tier: Tier
    model: str
    was_strong: bool

    def then(self, tier: Tier, model: str) -> "Held":
        """After another turn."""
        return Held(tier=tier, model=model, was_strong=self.was_strong or tier is Tier.STRONG)


def first(tier: Tier, model: str) -> Held:
    """After the first turn."""
    return Held(tier=tier, model=model, was_strong=tier is Tier.STRONG)


def forced(
    held: Held | None, *, in_tool_loop: bool, sticky: Sticky, pair: ModelPair, models: Container[str]
) -> tuple[Decision, ModelPair] | None:
    """The decision that a conversation's past makes, and the pair to make it from; `None` leaves the turn free.

    In a tool loop the pair's model is the one that made the calls, were it a fallback or of an earlier configuration.
    If it is not among `models` any more, or nothing is remembered, the turn is free: the scorer sees the same last
    user turn as when the loop began, so that only an alpha that has moved since can choose another model.
    """
    if held is None:
        return None
    if in_tool_loop:
        if held.model not in models:
            return None
        kept = replace(pair, strong=held.model) if held.tier is Tier.STRONG else replace(pair, weak=held.model)
        return routing.forced(held.tier, Reason.TOOL_LOOP), kept
    if sticky is Sticky.STRONG and held.was_strong:
        return routing.forced(Tier.STRONG, Reason.STICKY_CONVERSATION), pair
    if sticky is Sticky.BOTH:
        return routing.forced(held.tier, Reason.STICKY_CONVERSATION), pair
    return None
