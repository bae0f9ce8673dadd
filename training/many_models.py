"""What `mf` and `sw` share: the labels of all models, the rows kept back for calibration, and the way out.

Their training data are the answer matrices of `train/`, and `labels`: rows of the traffic to come with labels for the
pair that is served. Any two answers to one prompt are a battle.
"""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from scorer_service import artifact
from training import bradley_terry, corpus, export, label_files, matrices, metrics
from training.corpus import STRONG_MODEL, WEAK_MODEL, SourceFile
from training.matrices import AnswerMatrix
from training.pair_curves import PairCurves

Floats = NDArray[np.float64]

_GROUP_CHARACTERS = 300
"""Prompts that begin alike share a passage, and stay together in a split."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on.

    Attributes:
        matrices: of `train/`, then of the labelled files.
        labelled: how many of them, at the end, are the labelled files.
        models: every model, strongest first by a Bradley-Terry fit to all battles.
        ratings: natural log-strength of each of `models`.
        sources: the files that were read.
    """

    matrices: tuple[AnswerMatrix, ...]
    labelled: int
    models: tuple[str, ...]
    ratings: Floats
    sources: tuple[SourceFile, ...]

    @property
    def prompts(self) -> list[str]:
        """All prompts, matrix by matrix."""
        return [prompt for matrix in self.matrices for prompt in matrix.prompts]

    def split(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut an array of one row per prompt into one array per matrix."""
        ends = np.cumsum([len(matrix.prompts) for matrix in self.matrices])
        return np.split(rows, ends[:-1])

    def folds(self, count: int, seed: int) -> list[NDArray[np.int64]]:
        """A fold per prompt of each matrix; prompts that begin alike share one."""
        return [
            corpus.folds([prompt[:_GROUP_CHARACTERS] for prompt in matrix.prompts], count, seed)
            for matrix in self.matrices
        ]

    @property
    def battles(self) -> int:
        """How many two answers to one prompt there are."""
        return sum(int(known * (known - 1) // 2) for known in _answers(self.matrices))


def read(data: Path, labels: Path | None) -> Material:
    """Read `train/` and the labelled rows.

    Args:
        data: the data folder.
        labels: a file with labels for the served pair, or a folder of them; None trains on `train/` alone.

    Raises:
        CorpusError: a file is missing or is no file of labels.
    """
    labelled = [matrices.labelled_pair(found) for found in label_files.read(labels)] if labels else []
    everything = (*matrices.read_matrices(data), *labelled)
    names = matrices.known_models(everything)
    ratings = bradley_terry.fit(matrices.wins(everything, names))
    order = np.argsort(-ratings, kind="stable")
    return Material(
        matrices=everything,
        labelled=len(labelled),
        models=tuple(names[place] for place in order),
        ratings=ratings[order],
        sources=matrices.sources(data) + (label_files.sources(labels) if labels else ()),
    )


def provenance(material: Material, config: Any, curves: PairCurves, held_out: Sequence[Floats]) -> export.Provenance:
    """What the manifest tells.

    Args:
        material: as read.
        config: the kind's settings.
        curves: of all pairs.
        held_out: per matrix, the strengths [prompts, models] of prompts that were not trained on; prompts that were
            are NaN.
    """
    strong, weak = material.models.index(STRONG_MODEL), material.models.index(WEAK_MODEL)
    probabilities = [curves(strength[:, strong] - strength[:, weak], strong, weak) for strength in held_out]
    # The labelled files are the traffic to come; without any, the training prompts have to stand for it.
    reference = np.concatenate(probabilities[-material.labelled :] if material.labelled else probabilities)
    reference = np.sort(reference[~np.isnan(reference)])
    return export.Provenance(
        strong_model=STRONG_MODEL,
        weak_model=WEAK_MODEL,
        models=material.models,
        calibrated_pairs=curves.pairs(material.models),
        score_quantiles=np.quantile(reference, np.linspace(0.0, 1.0, export.QUANTILES)).tolist(),
        data={source.name: source.document() for source in material.sources},
        training={"config": settings(config), "versions": versions(), "battles": material.battles},
        metrics=_metrics(material, probabilities),
    )


def settings(config: Any) -> Mapping[str, Any]:
    """The settings as the manifest holds them; of a path its last part, since the rest is the machine's own."""
    return {
        name: value.name if isinstance(value, Path) else value for name, value in dataclasses.asdict(config).items()
    }


def versions() -> Mapping[str, str]:
    """What the numbers depend on beside data and settings."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def write(router: export.TrainedRouter, told: export.Provenance, out: Path) -> artifact.ScorerArtifact:
    """Write the artefact."""
    return export.write(router, told, out)


def _metrics(material: Material, probabilities: Sequence[Floats]) -> Mapping[str, Any]:
    """Numbers of the default pair on the rows that were kept back."""
    report: dict[str, Any] = {"protocol": "rows that the router was not fitted on; they did fit its calibration"}
    for matrix, held_out in zip(material.matrices, probabilities, strict=True):
        if not {STRONG_MODEL, WEAK_MODEL} <= set(matrix.models):
            continue
        labels = matrix.outcomes(STRONG_MODEL, WEAK_MODEL)
        kept = ~np.isnan(labels) & ~np.isnan(held_out)
        gain = matrix.gap(STRONG_MODEL, WEAK_MODEL)[kept]
        report[matrix.name] = {
            "labels": int(kept.sum()),
            "apgr": round(metrics.apgr(held_out[kept], gain), 4) if gain.sum() > 0 else None,
            "brier": round(float(np.mean((labels[kept] - held_out[kept]) ** 2)), 5),
            "brier_of_base_rate": round(float(np.var(labels[kept])), 5),
        }
    return report


def _answers(everything: Sequence[AnswerMatrix]) -> NDArray[np.int64]:
    """Labelled answers per prompt, all matrices."""
    return np.concatenate([(~np.isnan(matrix.quality)).sum(axis=1) for matrix in everything])
