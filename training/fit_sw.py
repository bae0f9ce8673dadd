"""Prepares `sw`: battles of all models are counted by prompt and tier; only the calibration is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from training import embeddings, export, many_models, matrices, pair_curves, tiers
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.embeddings import EncoderName
from training.many_models import Material
from training.matrices import AnswerMatrix
from training.routers.similarity_ranking import Ranking, SimilarityRankingRouter, tier_pairs
from training.train import Progress

Floats = NDArray[np.float32]


STATIC_PROMPTS = 4_096
"""Of `train/`: still more than half a million battles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How `sw` is prepared; goes into the manifest."""

    seed: int = 0
    encoder: EncoderName = "minilm"
    labels: Path | None = None
    """File or folder with labels of the pair that will be served."""
    strong_model: str = STRONG_MODEL
    weak_model: str = WEAK_MODEL
    labelled_share: float = 0.3
    """Share of all weight that the battles of `labels` get, which would drown among the millions of `train/`."""
    even: float = 1.0
    """A prompt with n battles weighs n^(1 - even): 0 is the paper, where a prompt that 51 models answered weighs
    as much as 1,275 prompts that two did."""
    prompts: int | None = None
    """Keep so many prompts of `train/`, drawn at random, and all labelled ones. None keeps every one for MiniLM, beside
    which they cost nothing, and `STATIC_PROMPTS` for the static encoder, which they would slow down threefold."""
    folds: int = 5
    """Calibration asks about each prompt without the battles of its own fold."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Count the battles of `train/` and of the labels, calibrate, and write the artefact.

    Raises:
        TrainingError: data, encoder or result is not what it should be.
    """
    material = many_models.read(data, config.labels, (config.strong_model, config.weak_model))
    embedding, vectors = embeddings.embed(
        config.encoder, material.prompts, progress=lambda done, total: progress("encoding", done, total)
    )
    kept = _kept(material, config)
    ranking = Ranking.of(
        vectors[kept], _weighted_wins(material, config, material.split(kept)), tiers.tiers(material.ratings)
    )
    held_out = _held_out(material, (vectors, kept, ranking), config, progress)
    curves = pair_curves.fit(held_out, material.matrices, material.models, material.pair)
    router = SimilarityRankingRouter(embedding, ranking, curves, material.models, *material.pair)
    return export.write(router, many_models.provenance(material, config, curves, held_out), out)


def tier_wins(matrix: AnswerMatrix, tier: NDArray[np.int64], count: int) -> Floats:
    """How often the answers of each tier were better than those of another, prompt by prompt.

    Args:
        matrix: the answers.
        tier: of each of its models, [models].
        count: of tiers.

    Returns:
        [prompts, pairs of tiers, 2]: wins of the pair's stronger tier and of its weaker one, a tie counting one half.
    """
    member = np.eye(count)[tier]
    wins = np.empty((len(matrix.prompts), count, count))
    for start in range(0, len(matrix.prompts), 256):
        quality = matrix.quality[start : start + 256]
        result = np.nan_to_num(matrices.outcome(quality[:, :, None] - quality[:, None, :], matrix.tie_below))
        wins[start : start + 256] = np.einsum("ia,pij,jb->pab", member, result, member, optimize=True)
    stronger, weaker = tier_pairs(count).T
    both: Floats = np.stack([wins[:, stronger, weaker], wins[:, weaker, stronger]], axis=2).astype(np.float32)
    return both


def _kept(material: Material, config: Config) -> NDArray[np.bool_]:
    """Which prompts the ranking holds."""
    labelled = np.concatenate(
        [
            np.full(len(matrix.prompts), place >= len(material.matrices) - material.labelled)
            for place, matrix in enumerate(material.matrices)
        ]
    )
    most = config.prompts or (STATIC_PROMPTS if config.encoder == "static" else len(labelled))
    others = np.flatnonzero(~labelled)
    drawn = np.random.default_rng(config.seed).permutation(others)[:most]
    kept = labelled.copy()
    kept[drawn] = True
    return kept


def _weighted_wins(material: Material, config: Config, kept: Sequence[NDArray[np.bool_]]) -> Floats:
    """The wins of the kept prompts, weighted as the settings say."""
    tier = tiers.tiers(material.ratings)
    place = {model: index for index, model in enumerate(material.models)}
    count = int(tier.max()) + 1
    wins = []
    for matrix, rows in zip(material.matrices, kept, strict=True):
        own = tier[[place[model] for model in matrix.models]]
        counted = tier_wins(matrix.take(np.flatnonzero(rows)), own, count)
        battles = counted.sum(axis=(1, 2), keepdims=True)
        wins.append(counted / np.maximum(battles, 1.0) ** config.even)
    if material.labelled:
        first = len(wins) - material.labelled
        others, labelled = (sum(float(part.sum()) for part in parts) for parts in (wins[:first], wins[first:]))
        factor = config.labelled_share / (1.0 - config.labelled_share) * others / labelled
        wins[first:] = [part * np.float32(factor) for part in wins[first:]]
    return np.concatenate(wins)


def _held_out(
    material: Material,
    asked: tuple[Floats, NDArray[np.bool_], Ranking],
    config: Config,
    progress: Progress,
) -> list[NDArray[np.float64]]:
    """Per matrix, strengths [prompts, models] of prompts by the battles of other folds.

    Args:
        material: as read.
        asked: unit vectors of all prompts, which of them the ranking holds, and the ranking.
        config: the settings.
        progress: told of the folds.
    """
    vectors, kept, ranking = asked
    fold = np.concatenate(material.folds(config.folds, config.seed))
    strengths = np.empty((len(fold), len(material.models)))
    for held in range(config.folds):
        progress("calibrating", held + 1, config.folds)
        strengths[fold == held] = ranking.strengths(vectors[fold == held], among=fold[kept] != held)
    return material.split(strengths)
