"""Graded answers of our own: sums in words, answered by a weak model that errs and a strong one that seldom does."""

import json
from pathlib import Path

import numpy as np

NAMES = ("Ada", "Ben", "Cleo", "Dov", "Eli", "Fay")
GOODS = ("pens", "rolls", "maps", "bricks", "stamps")


def write(path: Path, *, prompts: int = 80, seed: int = 0) -> Path:
    """Write a `pair` file with both models' answers and return `path`."""
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(prompts):
        first, second = (int(number) for number in generator.integers(2, 90, size=2))
        name, good = NAMES[place % len(NAMES)], GOODS[place % len(GOODS)]
        prompt = f"{name} has {first} {good} and gets {second} more from a friend. How many {good} are there now?"
        # Larger sums are harder for the weak model, so that a prompt tells something too.
        weak_right = generator.random() > 0.15 + 0.5 * (first + second > 90)
        strong_right = generator.random() > 0.05
        rows.append(
            {
                "prompt": prompt,
                "strong_correct": int(strong_right),
                "weak_correct": int(weak_right),
                "strong_response": _answer(first, second, right=bool(strong_right), generator=generator, style=0),
                "weak_response": _answer(first, second, right=bool(weak_right), generator=generator, style=1),
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _answer(first: int, second: int, *, right: bool, generator: np.random.Generator, style: int) -> str:
    total = first + second
    if not right:
        total += int(generator.integers(1, 9))
        if generator.random() < 0.3:
            return f"There are {first} + {second} = <<{first}+"
    if style:
        return f"{first} + {second} = <<{first}+{second}={total}>>{total}.\n#### {total}"
    return f"We add both numbers: {first} + {second} = {total}. So there are {total} now."
