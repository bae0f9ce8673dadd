"""Prompts of our own for load: the same ones in every run, from a dozen words to a few hundred."""

import random
from collections.abc import Sequence

_STARTS = (
    "Explain how",
    "Write a short note on why",
    "Compare two ways in which",
    "Find the mistake in the claim that",
    "Give three examples where",
    "Prove or refute that",
)
_SUBJECTS = (
    "a hash table keeps its look-ups fast",
    "the tides follow the moon",
    "a signal box keeps two trains apart",
    "compound interest grows",
    "an index makes a query slower",
    "bread rises in a cold kitchen",
    "a queue fills when arrivals are bursty",
    "the sum of two odd numbers is even",
)
_DETAILS = (
    "State every assumption that you make.",
    "Use plain words, for a reader of twelve.",
    "Show the numbers: 48 sleepers, 17 points and 3 signals.",
    "Then say what changes if the load doubles overnight.",
    "Quote no source; reason from first principles instead.",
    "End with one sentence that could stand alone.",
)

TYPICAL = "Explain how a signal box keeps two trains apart. Use plain words, for a reader of twelve."
"""What single calls carry."""


def make(count: int, *, seed: int = 0) -> Sequence[str]:
    """`count` prompts; lengths are spread as callers' are, most short and some long."""
    draw = random.Random(seed)
    prompts = []
    for _ in range(count):
        details = draw.choices(_DETAILS, k=min(int(draw.paretovariate(1.2)), 40))
        prompts.append(f"{draw.choice(_STARTS)} {draw.choice(_SUBJECTS)}. {' '.join(details)}")
    return prompts
