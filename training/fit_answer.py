"""Trains the `answer` kind: how likely an answer is acceptable, from (prompt, answer, quality) rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from training import export_judge, judge_report, judging, kernel_fit, platt
from training.judging import Material
from training.routers.answer import AnswerRouter
from training.routers.blocks import StandardSurface
from training.routers.judging import Strength
from training.tables import DataError
from training.token_rows import TokenRows
from training.train import Progress, no_progress

Floats = NDArray[np.float64]

STEPS = "fitting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the scorer of answers is trained; goes into the manifest."""

    seed: int = 0
    rows: Path | None = None
    """File of graded answers, see `answer_rows`; none stands for the data folder's."""
    acceptable: float = 0.5
    """An answer of this quality or more is acceptable."""
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
    return export_judge.write(router, judging.provenance(found, config, held_out, metrics), out)


def train(found: Material, config: Config) -> tuple[AnswerRouter, Floats]:
    """A router, and its probability of each training row as if the row's prompt had not been seen, [rows].

    Raises:
        DataError: all answers are acceptable, or none.
        ExportError: held-out scores do not rise with the labels.
    """
    accepted = labels(found, config)
    features, strength, fitted = judging.fit(found, accepted, landmarks=config.landmarks, seed=config.seed)
    slope, offset = platt.fit(fitted.held_out, accepted, np.ones(len(accepted)))
    router = AnswerRouter(found.model.tokenizer_json, features, strength, slope, offset)
    return router, platt.sigmoid(slope * fitted.held_out + offset)


def labels(found: Material, config: Config) -> Floats:
    """1 where an answer is acceptable, 0 where it is not, [rows].

    Raises:
        DataError: all are alike.
    """
    accepted = (found.rows.quality >= config.acceptable).astype(np.float64)
    if accepted.min() == accepted.max():
        raise DataError(
            f"{found.rows.source.name}: every answer is on one side of acceptable={config.acceptable:g}, with "
            f"qualities from {found.rows.quality.min():g} to {found.rows.quality.max():g}: set another"
        )
    return accepted


def cross_validate(found: Material, config: Config, progress: Progress = no_progress) -> Mapping[str, Any]:
    """What held-out folds say of such a scorer, beside the answer's length and the prompt alone."""
    accepted, folds = labels(found, config), found.rows.folds(config.folds, config.seed)
    probabilities, prompt_only = np.empty(len(accepted)), np.empty(len(accepted))
    for fold in range(config.folds):
        progress(STEPS, fold, config.folds)
        seen, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        router, _ = train(found.chosen(seen), config)
        probabilities[held] = router.probability([found.encoded[row] for row in held])
        prompt_only[held] = _prompt_only(router.features.prompt, found, accepted, folds == fold, config)
    lengths = np.array([len(answer) for answer in found.rows.answers], np.float64)
    contestants = {"prompt and answer": probabilities, "prompt only": prompt_only, "shortest answer": -lengths}
    return {
        "protocol": f"{config.folds}-fold cross-validation, prompts apart",
        **judge_report.of_answers(found.rows, accepted, contestants, seed=config.seed),
    }


def _prompt_only(
    features: StandardSurface, found: Material, accepted: Floats, held: NDArray[np.bool_], config: Config
) -> Floats:
    """The same machine on the prompt's features alone, fitted to the other rows: what can be known unread."""
    prompts = features(TokenRows.of([row.prompt.input_ids for row in found.encoded]))
    fitted = kernel_fit.fit(
        prompts[~held],
        accepted[~held],
        found.rows.groups()[~held],
        landmarks=config.landmarks,
        seed=config.seed,
    )
    return Strength.of(fitted)(prompts[held])
