"""Trains the `static` router, the shipped default: a `kernel` teacher first, then a student that repeats its scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorer_service.artifact import ScorerArtifact
from training import experts, export, views
from training.experts import Gate
from training.fit_kernel import STEPS, provenance
from training.routers.static import StaticRouter
from training.train import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the static router is trained; goes into the manifest."""

    seed: int = 0
    dimensions: int = 32
    """Columns of the word-vector table. More make the artefact larger and did not rank better."""
    landmarks: int = 1024
    """Of each expert, at most."""
    set_balance: float = 0.5
    """A set of n prompts counts as n^(1 − set_balance) in the calibration."""
    folds: int = 10
    without: str = ""
    """A labelled set to leave out, to measure transfer to it."""
    labels: Path | None = None
    """File or folder with labels of the pair, in place of those of `eval/`."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Train on every prompt of the data folder and write the artefact.

    Raises:
        TrainingError: data, encoder or result is not what it should be.
    """
    material = views.read(data, config.without, config.labels)
    labels = material.labels(config.folds, config.seed)
    _, teachers_view = views.kernel_view(material, progress)
    progress(STEPS, 1, 4)
    teachers = experts.teach(teachers_view, labels, landmarks=config.landmarks, seed=config.seed)
    progress(STEPS, 2, 4)
    features, view = views.static_view(material, config.dimensions)
    gate = Gate.fit(view, labels)
    home = np.argmax(gate.shares(view), axis=1)
    students = experts.distil(view, teachers, labels, home, landmarks=config.landmarks, seed=config.seed)
    fitted = experts.assemble(view, labels, gate, students, config.set_balance)
    progress(STEPS, 3, 4)
    router = StaticRouter(material.model.tokenizer_json, features, fitted.head)
    written = export.write(router, provenance(material, labels, fitted, config, config.set_balance), out)
    progress(STEPS, 4, 4)
    return written
