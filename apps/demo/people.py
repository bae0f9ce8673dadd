"""Who asks in `apps.demo.loop`, and what they think of the answers: imagined people, so that one sees what is learnt.

The same small model stands behind both tiers there, and its answers are alike; so opinions are made up. The strong
model satisfies nine times in ten. The weak one does so with small talk and facts, but seldom with sums and proofs.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pointsman.client import Preference, Tier

_TASKS = (
    ("Tell me something nice about {thing}.", False),
    ("Translate '{count} {thing} by the sea' into Spanish.", False),
    ("List {count} words that go well with {thing}.", False),
    ("{count} {thing} cost ${price} each, and every third one is free. What do they cost in all?", True),
    ("Prove that {count} {thing} cannot be shared evenly among {price} people who each want a different number.", True),
    ("Of {count} {thing}, a third are sold, then half of the rest plus {price} more. How many are left?", True),
)
"""What is asked, and whether it is hard for the weak model."""

_THINGS = ("loaves", "bridges", "violins", "glaciers", "owls", "lanterns", "maps", "kites", "barrels", "poems")

_SATISFIED = {(Tier.STRONG, True): 0.9, (Tier.STRONG, False): 0.9, (Tier.WEAK, False): 0.9, (Tier.WEAK, True): 0.2}


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, and how its two answers would please."""

    prompt: str
    good: dict[Tier, bool]

    def rating(self, tier: Tier) -> float:
        """A thumb, up or down."""
        return float(self.good[tier])

    def preference(self, tier: Tier) -> Preference:
        """After a look at both answers, this tier's being the one that was chosen."""
        own, other = self.good[tier], self.good[Tier.WEAK if tier is Tier.STRONG else Tier.STRONG]
        return Preference.TIE if own == other else Preference.CHOSEN if own else Preference.OTHER


def questions(count: int, *, seed: int = 0) -> Iterator[Question]:
    """So many questions; the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    for _ in range(count):
        text, hard = chance.choice(_TASKS)
        prompt = text.format(thing=chance.choice(_THINGS), count=chance.randint(4, 400), price=chance.randint(2, 30))
        yield Question(prompt, {tier: chance.random() < _SATISFIED[tier, hard] for tier in (Tier.STRONG, Tier.WEAK)})
