"""Trains the `kernel` router on the shared data: difficulty heads, experts, gate, calibrator, artefact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from training import corpus, difficulty, expert_report, experts, export, made_with, minilm, views
from training.encoder import PromptEncoder
from training.experts import Fitted, Gate, Labels
from training.routers.kernel import KernelRouter
from training.train import Progress
from training.views import Material

Floats = NDArray[np.float64]

STEPS = "fitting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the kernel router is trained; goes into the manifest."""

    seed: int = 0
    landmarks: int = 1024
    """Of each expert, at most: more cost time and gained nothing."""
    set_balance: float = 0.5
    """A set of n prompts counts as n^(1 − set_balance) in the calibration."""
    folds: int = 10
    without: str = ""
    """A labelled set to leave out, to measure transfer to it."""
    labels: Path | None = None
    """File or folder with labels of the pair, in place of those of `eval/`."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Train on every labelled prompt of the data folder and write the artefact.

    Raises:
        TrainingError: data, encoder or result is not what it should be.
    """
    material = views.read(data, config.without, config.labels)
    labels = material.labels(config.folds, config.seed)
    features, view = views.kernel_view(material, progress)
    progress(STEPS, 1, 3)
    teachers = experts.teach(view, labels, landmarks=config.landmarks, seed=config.seed)
    fitted = experts.assemble(view, labels, Gate.fit(view, labels), teachers, config.set_balance)
    progress(STEPS, 2, 3)
    router = KernelRouter(material.model, features, fitted.head)
    written = export.write(router, provenance(material, labels, fitted, config, config.set_balance), out)
    progress(STEPS, 3, 3)
    return written


def provenance(material: Material, labels: Labels, fitted: Fitted, config: Any, balance: float) -> export.Provenance:
    """What the manifest says of a default artefact."""
    baseline = plain_ridge(material, labels)
    return export.Provenance(
        strong_model=corpus.STRONG_MODEL,
        weak_model=corpus.WEAK_MODEL,
        score_quantiles=weighted_quantiles(fitted.probabilities, labels.weights(balance), export.QUANTILES),
        data={source.name: source.document() for source in material.corpus.sources},
        training={"config": made_with.settings(config), "versions": made_with.versions()},
        metrics=expert_report.report(labels, fitted, baseline),
    )


def plain_ridge(material: Material, labels: Labels) -> Floats:
    """The baseline that every router here has to beat: held-out scores of ridge on sentence embeddings, set by set."""
    final = PromptEncoder().layers(material.prompts[: len(labels.targets)], [minilm.LAYERS])[:, 0].astype(np.float64)
    inputs = final / np.linalg.norm(final, axis=1, keepdims=True)
    outcome = 2.0 * labels.labels - 1.0
    scores = np.empty(len(inputs))
    for labelled in labels.sets:
        rows = labels.rows([labelled.name])
        for fold in range(labels.fold_count):
            seen, held = rows[labels.folds[rows] != fold], rows[labels.folds[rows] == fold]
            weights, bias = difficulty.ridge(inputs[seen], outcome[seen, None])
            scores[held] = (inputs[held] @ weights + bias)[:, 0]
    return scores


def weighted_quantiles(values: Floats, weights: Floats, count: int) -> list[float]:
    """Evenly spaced quantiles from 0 to 1 of values that count unequally."""
    order = np.argsort(values)
    mass = np.cumsum(weights[order]) - 0.5 * weights[order]
    quantiles = np.interp(np.linspace(0.0, 1.0, count), mass / weights.sum(), values[order])
    return [float(value) for value in quantiles]
