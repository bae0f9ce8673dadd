"""What `mf` and `sw` share: the labels of all models, the rows kept back for calibration, and the way out.

Their training data are the answer matrices of `train/`, and `labels`: rows of the traffic to come with labels for the
pair that is served. Any two answers to one prompt are a battle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import bradley_terry, corpus, export, made_with, matrices, metrics, tables
from training import data as training_data
from training.corpus import GROUP_CHARACTERS, SourceFile
from training.data import Battles, Grades
from training.matrices import AnswerMatrix
from training.pair_curves import PairCurves
from training.tables import DataError

Floats = NDArray[np.float64]

_PRIOR = 0.1
"""Imagined ties of each model, so that one that never won has a rating too."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on.

    Attributes:
        matrices: of all models, then those of the labelled files.
        labelled: how many of them, at the end, are the labelled files.
        models: every model, strongest first by a Bradley-Terry fit to all battles.
        ratings: natural log-strength of each of `models`.
        pair: the strong and the weak model that are served by default.
        sources: the files that were read.
    """

    matrices: tuple[AnswerMatrix, ...]
    labelled: int
    models: tuple[str, ...]
    ratings: Floats
    pair: tuple[str, str]
    sources: tuple[SourceFile, ...]

    @classmethod
    def of(
        cls,
        many: Sequence[AnswerMatrix],
        labelled: Sequence[AnswerMatrix],
        pair: tuple[str, str],
        sources: Sequence[SourceFile] = (),
    ) -> "Material":
        """Rank the models.

        Raises:
            DataError: a model of the pair is in none of the matrices.
        """
        everything = (*many, *labelled)
        names = matrices.known_models(everything)
        for model in pair:
            if model not in names:
                raise DataError(
                    f"no data tell of a model {model!r}: set strong_model and weak_model to two of "
                    f"{tables.names(names)}"
                )
        ratings = bradley_terry.fit(matrices.wins(everything, names), prior=_PRIOR)
        order = np.argsort(-ratings, kind="stable")
        ranked = tuple(names[place] for place in order)
        return cls(everything, len(labelled), ranked, ratings[order], pair, tuple(sources))

    @property
    def places(self) -> tuple[int, int]:
        """Where the pair's models stand in `models`."""
        return self.models.index(self.pair[0]), self.models.index(self.pair[1])

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
            corpus.folds([prompt[:GROUP_CHARACTERS] for prompt in matrix.prompts], count, seed)
            for matrix in self.matrices
        ]

    @property
    def battles(self) -> int:
        """How many two answers to one prompt there are."""
        known = np.concatenate([(~np.isnan(matrix.quality)).sum(axis=1) for matrix in self.matrices])
        return int((known * (known - 1) // 2).sum())


def read(data: Path, labels: Path | None, pair: tuple[str, str]) -> Material:
    """Read battles of many models, and labels of one pair.

    Args:
        data: the data folder, of which `train/` is read; or a file of battles or answers, such as an arena's CSV.
        labels: a file with labels for the pair, or a folder of them; None trains on `data` alone.
        pair: the strong and the weak model that are served by default.

    Raises:
        TrainingError: a file is missing, is in no known format, or does not know the pair.
    """
    labelled = training_data.read_labels(labels) if labels else []
    many, sources = (matrices.read_matrices(data), matrices.sources(data)) if data.is_dir() else _file(data)
    return Material.of(
        many,
        [matrices.labelled_pair(found.pair(*pair), pair) for found in labelled],
        pair,
        (*sources, *(found.source for found in labelled)),
    )


def _file(path: Path) -> tuple[tuple[AnswerMatrix, ...], tuple[SourceFile, ...]]:
    found = training_data.read(path)
    content = found.content
    if isinstance(content, Grades):
        raise DataError(f"{path} holds grades of one model: battles or answers of two or more are needed")
    return (content.matrix(found.name) if isinstance(content, Battles) else content,), (found.source,)


def provenance(material: Material, config: Any, curves: PairCurves, held_out: Sequence[Floats]) -> export.Provenance:
    """What the manifest tells.

    Args:
        material: as read.
        config: the kind's settings.
        curves: of all pairs.
        held_out: per matrix, the strengths [prompts, models] of prompts that were not trained on; prompts that were
            are NaN.
    """
    strong, weak = material.places
    probabilities = [curves(strength[:, strong] - strength[:, weak], strong, weak) for strength in held_out]
    # The labelled files are the traffic to come; without any, the training prompts have to stand for it.
    reference = np.concatenate(probabilities[-material.labelled :] if material.labelled else probabilities)
    reference = np.sort(reference[~np.isnan(reference)])
    return export.Provenance(
        strong_model=material.pair[0],
        weak_model=material.pair[1],
        models=material.models,
        calibrated_pairs=curves.pairs(material.models),
        score_quantiles=np.quantile(reference, np.linspace(0.0, 1.0, export.QUANTILES)).tolist(),
        data={source.name: source.document() for source in material.sources},
        training={
            "config": made_with.settings(config),
            "versions": made_with.versions(),
            "battles": material.battles,
        },
        metrics=_metrics(material, probabilities),
    )


def _metrics(material: Material, probabilities: Sequence[Floats]) -> Mapping[str, Any]:
    """Numbers of the default pair on the rows that were kept back."""
    report: dict[str, Any] = {"protocol": "rows that the router was not fitted on; they did fit its calibration"}
    for matrix, held_out in zip(material.matrices, probabilities, strict=True):
        if not set(material.pair) <= set(matrix.models):
            continue
        labels = matrix.outcomes(*material.pair)
        kept = ~np.isnan(labels) & ~np.isnan(held_out)
        gain = matrix.gap(*material.pair)[kept]
        report[matrix.name] = {
            "labels": int(kept.sum()),
            "apgr": round(metrics.apgr(held_out[kept], gain), 4) if gain.sum() > 0 else None,
            "brier": round(float(np.mean((labels[kept] - held_out[kept]) ** 2)), 5),
            "brier_of_base_rate": round(float(np.var(labels[kept])), 5),
        }
    return report
