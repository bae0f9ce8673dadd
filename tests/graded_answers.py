"""Graded answers of our own: sums in words, answered by weak models that err and a strong one that seldom does."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

NAMES = ("Ada", "Ben", "Cleo", "Dov", "Eli", "Fay")
GOODS = ("pens", "rolls", "maps", "bricks", "stamps")


MODELS = ("small", "medium", "large")
"""Of the files that name their models, from the one that errs most."""

_ERRS = {"small": (0.1, 0.6), "medium": (0.1, 0.3), "large": (0.05, 0.05)}
"""How often on a plain prompt, and on one with an aside."""


def write(path: Path, *, prompts: int = 80, seed: int = 0) -> Path:
    """Write a `pair` file with both models' answers and return `path`."""
    generator = np.random.default_rng(seed)
    rows = []
    for first, second, prompt, hard in _sums(prompts, generator):
        # Asides are hard for the weak model, so that a prompt tells something too.
        weak_right = generator.random() > (0.6 if hard else 0.1)
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
    return _lines(path, rows)


def write_three(path: Path, *, wide: bool = False, prompts: int = 80, seed: int = 0) -> Path:
    """Write a file with the answers of `MODELS`, one row per answer or (`wide`) per prompt, and return `path`."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for first, second, prompt, hard in _sums(prompts, generator):
        answers: dict[str, tuple[str, int]] = {}
        for model in MODELS:
            right = bool(generator.random() > _ERRS[model][hard])
            style = int(model != MODELS[-1])
            answers[model] = _answer(first, second, right=right, generator=generator, style=style), int(right)
        if wide:
            columns = {f"response/{model}": answer for model, (answer, _) in answers.items()}
            grades = {f"correct/{model}": right for model, (_, right) in answers.items()}
            rows.append({"prompt": prompt, **columns, **grades})
        else:
            rows += [
                {"prompt": prompt, "model": model, "answer": answer, "correct": right}
                for model, (answer, right) in answers.items()
            ]
    return _lines(path, rows)


def _sums(prompts: int, generator: np.random.Generator) -> Iterator[tuple[int, int, str, bool]]:
    """Two numbers, the prompt that asks for their sum, and whether it has an aside."""
    for place in range(prompts):
        first, second = (int(number) for number in generator.integers(2, 90, size=2))
        name, good = NAMES[place % len(NAMES)], GOODS[place % len(GOODS)]
        hard = place % 2 == 1
        aside = (
            "Suppose that each weighs at least as much as the last, although nobody knows why or how. " if hard else ""
        )
        prompt = f"{aside}{name} has {first} {good} and gets {second} more. How many {good} are there now?"
        yield first, second, prompt, hard


def _lines(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
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
