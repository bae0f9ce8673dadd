"""Trains the `ranker` kind: which of two answers is better, from (prompt, answer, quality) rows.

Strength is fitted to each answer's quality, not to differences within pairs: every answer teaches, also that of a
prompt whose answers are equally good. A fit to the differences ranked fewer pairs right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from scorer_service.preprocess import EncodedAnswers
from training import export_judge, judge_report, judging
from training.judging import Material
from training.routers.ranker import RankerRouter, agreeing, slope_of
from training.tables import DataError
from training.train import Progress, no_progress

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

STEPS = "fitting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the ranker is trained; goes into the manifest."""

    seed: int = 0
    rows: Path | None = None
    """File of graded answers, see `answer_rows`; none stands for the data folder's."""
    landmarks: int = 1024
    """Answers that an answer is compared with, at most."""
    folds: int = 10
    """Of the cross-validation that the manifest's numbers come from."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Train on every answer of the file and write the artefact.

    Raises:
        TrainingError: data, encoder or result is not what it should be.
    """
    found = judging.read(data, config.rows)
    return fit_material(found, out, config, metrics=cross_validate(found, config, progress))


def fit_material(found: Material, out: Path, config: Config, *, metrics: Mapping[str, Any]) -> ScorerArtifact:
    """Train on these answers and write the artefact, with these numbers in its manifest; errors as for `fit`."""
    router, held_out = train(found, config)
    both = np.concatenate([held_out, 1.0 - held_out])
    return export_judge.write(router, judging.provenance(found, config, both, metrics), out)


def train(found: Material, config: Config) -> tuple[RankerRouter, Floats]:
    """A router, and its probability of each pair as if the pair's prompt had not been seen, [pairs].

    Raises:
        DataError: no two answers to one prompt differ in quality.
    """
    first, second, outcomes = pairs(found)
    features, strength, fitted = judging.fit(
        found, _scaled(found.rows.quality), landmarks=config.landmarks, seed=config.seed
    )
    differences = fitted.held_out[first] - fitted.held_out[second]
    alike = agreeing(together(found, first, second))
    slope, of_agreeing = (slope_of(differences[chosen], outcomes[chosen]) for chosen in (~alike, alike))
    router = RankerRouter(found.model.tokenizer_json, features, strength, slope, of_agreeing)
    return router, 1.0 / (1.0 + np.exp(-np.where(alike, of_agreeing, slope) * differences))


def pairs(found: Material) -> tuple[Rows, Rows, Floats]:
    """Every two answers to one prompt, and 1 where the first is better, 0 the second, one half neither.

    Raises:
        DataError: none differ.
    """
    first, second = found.rows.pairs()
    outcomes = 0.5 + 0.5 * np.sign(found.rows.quality[first] - found.rows.quality[second])
    if not np.any(outcomes != 0.5):
        raise DataError(f"{found.rows.source.name} has no two answers to one prompt that differ in quality")
    return first, second, outcomes


def together(found: Material, first: Rows, second: Rows) -> list[EncodedAnswers]:
    """Rows of two answers each."""
    return [
        EncodedAnswers(found.encoded[one].prompt, (found.encoded[one].answers[0], found.encoded[other].answers[0]))
        for one, other in zip(first, second, strict=True)
    ]


def cross_validate(found: Material, config: Config, progress: Progress = no_progress) -> Mapping[str, Any]:
    """What held-out folds say of such a ranker, beside the longer answer and, in pairs of a strong and a weak model's
    answer, always the strong one."""
    first, second, outcomes = pairs(found)
    folds = found.rows.folds(config.folds, config.seed)
    rows = together(found, first, second)
    probabilities = np.empty(len(outcomes))
    for fold in range(config.folds):
        progress(STEPS, fold, config.folds)
        router, _ = train(found.chosen(np.flatnonzero(folds != fold)), config)
        held = np.flatnonzero(folds[first] == fold)
        if len(held):
            probabilities[held] = router.probability([rows[pair] for pair in held])
    lengths = np.array([len(answer) for answer in found.rows.answers])
    strong = np.array([model == "strong" for model in found.rows.models])
    contestants = {"ranker": probabilities, "longer answer": 0.5 + 0.5 * np.sign(lengths[first] - lengths[second])}
    if strong.any():
        contestants["strong model's"] = np.where(strong[first], 1.0, np.where(strong[second], 0.0, 0.5))
    return {
        "protocol": f"{config.folds}-fold cross-validation, prompts apart",
        **judge_report.of_pairs(found.rows, first, outcomes, contestants, seed=config.seed),
    }


def _scaled(quality: Floats) -> Floats:
    """From 0 for the worst to 1 for the best, so that penalties mean the same for every unit."""
    low, high = quality.min(), quality.max()
    scaled: Floats = (quality - low) / max(high - low, 1e-12)
    return scaled
