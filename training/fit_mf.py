"""Trains `mf`: battles of all models, cross-entropy of winner over loser, Adam; ties are dropped, as in the paper.

They come back in the calibration, which is fitted to wins and ties of rows that training has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from training import embeddings, export, many_models, pair_curves
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.embeddings import EncoderName
from training.many_models import Material
from training.routers.matrix_factorization import Factors, MatrixFactorizationRouter, with_constant
from training.train import Progress

Floats = NDArray[np.float32]

_FOLDS = 20
"""The paper's 95/5: one fold in twenty stops the training early, three more are kept for calibration."""

_CALIBRATION = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How `mf` is trained; goes into the manifest. Where it is not the paper's setting, the reason is beside it."""

    seed: int = 0
    encoder: EncoderName = "minilm"
    labels: Path | None = None
    """File or folder with labels of the pair that will be served."""
    strong_model: str = STRONG_MODEL
    weak_model: str = WEAK_MODEL
    labelled_share: float = 0.5
    """Share of the battles drawn from `labels`, which would drown among the millions of `train/`."""
    dimensions: int = 128
    noise: float = 0.1
    """Standard deviation of what is added to each entry of an embedding in training."""
    learning_rate: float = 3e-3
    """Ten times the paper's, since a batch is eight times its size."""
    weight_decay: float = 1e-5
    batch: int = 512
    steps: int = 4000
    patience: int = 8
    """Stop after so many looks, 100 steps apart, at which the kept-back battles were predicted no better."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Battles without ties, prompt by prompt.

    Attributes:
        winners, losers: [battles] model indices.
        starts, counts: [prompts] the battles of a prompt are `starts : starts + counts`.
    """

    winners: NDArray[np.int64]
    losers: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, material: Material) -> "Decided":
        """All of them, prompts in the order of `material.prompts`."""
        winners, losers, counts = [], [], []
        for matrix in material.matrices:
            columns = np.array([material.models.index(model) for model in matrix.models])
            for quality in matrix.quality:
                # NaN compares false, so that a missing answer neither wins nor loses.
                won, lost = np.nonzero(quality[:, None] - quality[None, :] > max(matrix.tie_below, 1e-6))
                winners.append(columns[won])
                losers.append(columns[lost])
                counts.append(len(won))
        sizes = np.array(counts)
        return cls(np.concatenate(winners), np.concatenate(losers), np.cumsum(sizes) - sizes, sizes)

    def draw(
        self, prompts: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """One battle of each of these prompts: winners and losers."""
        place = self.starts[prompts] + (generator.random(len(prompts)) * self.counts[prompts]).astype(np.int64)
        return self.winners[place], self.losers[place]


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Train on `train/` and the labels, and write the artefact.

    Raises:
        TrainingError: data, encoder or result is not what it should be.
    """
    material = many_models.read(data, config.labels, (config.strong_model, config.weak_model))
    embedding, vectors = embeddings.embed(
        config.encoder, material.prompts, progress=lambda done, total: progress("encoding", done, total)
    )
    folds = material.folds(_FOLDS, config.seed)
    factors = factorize(material, vectors, folds, config, progress)
    kept_back = [np.isin(fold, _CALIBRATION) for fold in folds]
    strengths = material.split(factors.strengths(vectors).astype(np.float64))
    curves = pair_curves.fit(
        [strength[kept] for strength, kept in zip(strengths, kept_back, strict=True)],
        [matrix.take(np.flatnonzero(kept)) for matrix, kept in zip(material.matrices, kept_back, strict=True)],
        material.models,
        material.pair,
    )
    router = MatrixFactorizationRouter(embedding, factors, curves, material.models, *material.pair)
    held_out = [np.where(kept[:, None], strength, np.nan) for strength, kept in zip(strengths, kept_back, strict=True)]
    return export.write(router, many_models.provenance(material, config, curves, held_out), out)


def factorize(
    material: Material, vectors: Floats, folds: Sequence[NDArray[np.int64]], config: Config, progress: Progress
) -> Factors:
    """Gradient descent on battles, drawn anew for each step; keeps the factors that did best on fold 0.

    Args:
        material: the labels.
        vectors: unit embeddings of `material.prompts`.
        folds: per matrix; fold 0 decides when to stop, those of the calibration are not looked at.
        config: the settings.
        progress: told of the steps.
    """
    battles = Decided.of(material)
    fold = np.concatenate(folds)
    trained = (fold != 0) & ~np.isin(fold, _CALIBRATION) & (battles.counts > 0)
    chance = _chances(material, trained, config.labelled_share)
    generator = np.random.default_rng(config.seed)
    inputs = with_constant(vectors)
    width = inputs.shape[1]
    weights = _Weights(
        projection=(generator.standard_normal((width, config.dimensions)) / np.sqrt(config.dimensions)),
        models=generator.standard_normal((len(material.models), config.dimensions)),
        weights=np.ones(config.dimensions),
    )
    judge = _Judge.of(
        battles, inputs, _chances(material, (fold == 0) & (battles.counts > 0), config.labelled_share), generator
    )
    adam = _Adam(weights, config)
    best, best_loss, since = weights.factors(), np.inf, 0
    for step in range(config.steps):
        prompts = generator.choice(len(fold), config.batch, p=chance)
        won, lost = battles.draw(prompts, generator)
        batch = inputs[prompts]
        batch[:, :-1] += generator.standard_normal((config.batch, width - 1)) * config.noise
        adam.step(weights.gradient(batch, won, lost))
        if step % 100 == 99:
            progress("training", step + 1, config.steps)
            factors = weights.factors()
            loss = judge(factors)
            best, best_loss, since = (factors, loss, 0) if loss < best_loss else (best, best_loss, since + 1)
            if since >= config.patience:
                break
    return best


def _chances(material: Material, usable: NDArray[np.bool_], labelled_share: float) -> NDArray[np.float64]:
    """The chance of each prompt to be drawn: the labelled files get their share, and a set of n prompts √n parts."""
    chance = [rows / np.sqrt(max(int(rows.sum()), 1)) for rows in material.split(usable)]
    first_labelled = len(chance) - material.labelled
    groups = ((chance[:first_labelled], 1.0 - labelled_share), (chance[first_labelled:], labelled_share))
    scaled = [rows * (part / sum(float(each.sum()) for each in group)) for group, part in groups for rows in group]
    joined: NDArray[np.float64] = np.concatenate(scaled)
    chances: NDArray[np.float64] = joined / joined.sum()
    return chances


@dataclass(slots=True)
class _Weights:
    """What is trained; the models' vectors are scaled to unit length where they are used."""

    projection: NDArray[np.float64]
    models: NDArray[np.float64]
    weights: NDArray[np.float64]

    def factors(self) -> Factors:
        unit = self.models / np.linalg.norm(self.models, axis=1, keepdims=True)
        return Factors(self.projection.astype(np.float32), unit.astype(np.float32), self.weights.astype(np.float32))

    def arrays(self) -> list[NDArray[np.float64]]:
        return [self.projection, self.models, self.weights]

    def gradient(
        self, inputs: NDArray[np.floating[Any]], won: NDArray[np.int64], lost: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        """Of the mean of −log σ(δ_won − δ_lost), in the order of `arrays`."""
        length = np.linalg.norm(self.models, axis=1, keepdims=True)
        unit = self.models / length
        hidden = inputs @ self.projection
        difference = unit[won] - unit[lost]
        log_odds = (hidden * difference) @ self.weights
        slope = -1.0 / (1.0 + np.exp(log_odds)) / len(inputs)
        pulled = slope[:, None] * hidden * self.weights
        by_unit = np.zeros_like(self.models)
        np.add.at(by_unit, won, pulled)
        np.subtract.at(by_unit, lost, pulled)
        return [
            inputs.T @ (slope[:, None] * difference * self.weights),
            # Through the scaling to unit length: only what turns a vector counts.
            (by_unit - unit * (by_unit * unit).sum(axis=1, keepdims=True)) / length,
            (slope[:, None] * hidden * difference).sum(axis=0),
        ]


class _Adam:
    """Adam (arXiv 1412.6980) with the weight decay in the gradient, as the paper's training has it."""

    def __init__(self, weights: _Weights, config: Config) -> None:
        self._arrays = weights.arrays()
        self._rate, self._decay, self._steps = config.learning_rate, config.weight_decay, 0
        self._mean = [np.zeros_like(array) for array in self._arrays]
        self._square = [np.zeros_like(array) for array in self._arrays]

    def step(self, gradients: Sequence[NDArray[np.float64]]) -> None:
        """Change the weights in place."""
        self._steps += 1
        first, second = 1.0 - 0.9**self._steps, 1.0 - 0.999**self._steps
        for array, gradient, mean, square in zip(self._arrays, gradients, self._mean, self._square, strict=True):
            decayed = gradient + self._decay * array
            mean[...] = 0.9 * mean + 0.1 * decayed
            square[...] = 0.999 * square + 0.001 * decayed**2
            array[...] = array - self._rate * (mean / first) / (np.sqrt(square / second) + 1e-8)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Log loss on battles of prompts that training does not see, drawn once as training draws its own."""

    inputs: Floats
    winners: NDArray[np.int64]
    losers: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        battles: Decided,
        inputs: Floats,
        chance: NDArray[np.float64],
        generator: np.random.Generator,
    ) -> "_Judge":
        prompts = generator.choice(len(chance), 8_000, p=chance)
        return cls(inputs[prompts], *battles.draw(prompts, generator))

    def __call__(self, factors: Factors) -> float:
        hidden = self.inputs @ factors.projection
        log_odds = (hidden * (factors.models[self.winners] - factors.models[self.losers])) @ factors.weights
        return float(np.mean(np.logaddexp(0.0, -log_odds)))
