"""Answers of imaginary models to prompts of our own, small enough to train on in a test."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scorer_service.artifact import ScorerArtifact
from scorer_service.scorer import OnnxScorer
from training import corpus, embeddings, export, fit_mf, golden, many_models, pair_curves
from training.embeddings import Embedding, EncoderName, Floats
from training.many_models import Material
from training.matrices import AnswerMatrix
from training.pair_curves import PairCurves
from training.routers.matrix_factorization import MatrixFactorizationRouter
from training.train import no_progress

MODELS = tuple(f"model-{letter}" for letter in "abcdefghijkl")
"""From strong to weak, as their answers go."""

STRONG, WEAK = MODELS[1], MODELS[7]

_THINGS = ("rails", "bridges", "bakeries", "clouds", "chess", "violins", "glaciers", "tariffs", "owls", "poems")
_TASKS = (
    "Explain {0} to a child of {1} years.",
    "How many {0} fit into {1} wagons? Show your work.",
    "Prove that {1} {0} cannot all be different.",
    "Write {1} lines of Python that count {0}.",
    "What is wrong with this sentence about {0}: 'Them was {1} of it.'?",
    "Which of these is true of {0}?\nA. There are {1}.\nB. There is one.\nC. None of these\nAnswer:",
)


def material(*, seed: int = 0, labelled: int = 240, models: tuple[str, ...] = MODELS) -> Material:
    """Two sets that several models answered, which share some models, and labels for the pair alone."""
    generator = np.random.default_rng(seed)
    many = (
        _answers("exams", 120, models, generator, missing=0.1),
        _answers("chats", 90, models[::3], generator, missing=0.0),
    )
    traffic = (_answers("traffic", labelled, (STRONG, WEAK), generator, missing=0.0),) if labelled else ()
    return Material.of(many, traffic, (STRONG, WEAK))


@functools.cache
def embedded(name: EncoderName, prompts: tuple[str, ...]) -> tuple[Embedding, Floats]:
    """`embeddings.embed` without the cache on disk; the same for the same prompts."""
    return embeddings.embed(name, prompts, cache=None, progress=lambda _done, _total: None)


class ManyModelRouter(export.TrainedRouter, Protocol):
    """What `mf` and `sw` have in common."""

    @property
    def models(self) -> tuple[str, ...]: ...

    @property
    def curves(self) -> PairCurves: ...

    def strengths(self, rows: Sequence[Sequence[int]]) -> NDArray[np.floating[Any]]: ...


def assert_served(router: ManyModelRouter, written: ScorerArtifact) -> None:
    """The served probabilities are training's, of every pair and every model, alone and in a batch."""
    scorer = OnnxScorer(written, threads=1)
    # Without the longest, which stand at the end: the export itself has scored all of them.
    encoded = [export.preprocessor(router).encode(turns) for turns in golden.conversations()[:56:5]]
    strengths = router.strengths([row.input_ids for row in encoded])
    served = scorer.score_models(encoded)
    assert served.model_win_probabilities is not None
    strong = router.models.index(written.manifest.strong_model)
    for place in range(len(router.models)):
        expected = router.curves(strengths[:, place] - strengths[:, strong], place, strong)
        np.testing.assert_allclose(served.model_win_probabilities[:, place], expected, atol=1e-5, rtol=0)
    for strong, weak in ((2, 9), (9, 2), (0, 11)):
        names = router.models[strong], router.models[weak]
        expected = router.curves(strengths[:, strong] - strengths[:, weak], strong, weak)
        np.testing.assert_allclose(scorer.score(encoded, [names] * len(encoded)), expected, atol=1e-5, rtol=0)
    alone = np.concatenate([scorer.score([row]) for row in encoded])
    np.testing.assert_allclose(scorer.score_together(encoded), alone, atol=1e-6, rtol=0)
    np.testing.assert_allclose(served.win_probability, alone, atol=1e-6, rtol=0)
    assert np.ptp(alone) > 0.01


def _answers(
    name: str, count: int, models: tuple[str, ...], generator: np.random.Generator, *, missing: float
) -> AnswerMatrix:
    """Answers are right or wrong; harder tasks and weaker models are wrong more often."""
    task, thing, number = (generator.integers(0, size, count) for size in (len(_TASKS), len(_THINGS), 90))
    prompts = tuple(
        f"{name}: " + _TASKS[t].format(_THINGS[o], n + 3) for t, o, n in zip(task, thing, number, strict=True)
    )
    strength = np.array([-0.5 * _place(model) for model in models])
    chance = 1.0 / (1.0 + np.exp(0.8 * task[:, None] - 2.5 - strength))
    quality = (generator.random(chance.shape) < chance).astype(np.float64)
    quality[generator.random(chance.shape) < missing] = np.nan
    return AnswerMatrix(name, prompts, models, quality)


def _place(model: str) -> int:
    """How far from the strongest: `model-a` is 0."""
    return ord(model.removeprefix("model-")) - ord("a")


def trained(directory: Path, *, models: tuple[str, ...] = MODELS) -> ScorerArtifact:
    """A real `mf` artefact of these models, trained in a second or two."""
    found = material(models=models)
    embedding, vectors = embedded("static", tuple(found.prompts))
    settings = fit_mf.Config(steps=300, batch=128, dimensions=16, encoder="static")
    factors = fit_mf.factorize(found, vectors, found.folds(20, 0), settings, no_progress)
    strengths = [rows.astype(np.float64) for rows in found.split(factors.strengths(vectors))]
    curves = pair_curves.fit(strengths, found.matrices, found.models, found.pair)
    router = MatrixFactorizationRouter(embedding, factors, curves, found.models, *found.pair)
    return export.write(router, many_models.provenance(found, settings, curves, strengths), directory)


def write_folder(folder: Path, *, seed: int = 0, labelled: int = 240, kept_back: int = 120) -> Path:
    """A data folder as its README lays it out, of our own prompts: `train/`, and labels of the pair beside it.

    Returns:
        The folder; `labels.csv` and `kept_back.csv` in it are labelled prompts of the same traffic.
    """
    generator = np.random.default_rng(seed)
    (folder / "train").mkdir(parents=True)
    for name, column, task in _TRAIN_FILES:
        answers = _answers(name, 40, MODELS, generator, missing=0.0)
        columns = {f"{column}/{model}": answers.quality[:, place] for place, model in enumerate(MODELS)}
        tasks = {task: [f"task {place % 3}" for place in range(40)]} if task else {}
        pl.DataFrame({"prompt": answers.prompts, **tasks, **columns}).write_parquet(folder / f"train/{name}.parquet")
    chats = _answers("chats", 40, MODELS, generator, missing=0.0)
    rated = [
        {"prompt": prompt, "model": model, "judge_score": score, "baseline_judge_score": 8.0}
        for prompt, row in zip(chats.prompts, 3.0 + 5.0 * chats.quality, strict=True)
        for model, score in zip((corpus.WEAK_MODEL, *MODELS[8:]), row[7:], strict=True)
    ]
    pl.DataFrame(rated).write_parquet(folder / "train/arena_hard.parquet")
    traffic = _answers("traffic", 2 * (labelled + kept_back), (STRONG, WEAK), generator, missing=0.0)
    frame = pl.DataFrame(
        {"prompt": traffic.prompts, "strong_correct": traffic.quality[:, 0], "weak_correct": traffic.quality[:, 1]}
    ).unique("prompt", keep="first", maintain_order=True)
    frame[:labelled].write_csv(folder / "labels.csv")
    frame[labelled : labelled + kept_back].write_csv(folder / "kept_back.csv")
    return folder


_TRAIN_FILES = (
    ("mmlu_pro", "correct", "category"),
    ("llmrouter", "correct", "task"),
    ("pareto", "reward", "source"),
    ("crux", "correct", ""),
    ("math_l5", "correct", ""),
)
"""Name, prefix of the models' columns, and the column of tasks if there is one."""


def prompt(generator: np.random.Generator) -> tuple[str, bool]:
    """A prompt, and whether it is one of the harder tasks: sums, proofs and choices."""
    task, thing, number = (int(generator.integers(0, size)) for size in (len(_TASKS), len(_THINGS), 900))
    return _TASKS[task].format(_THINGS[thing], number + 3), task in (1, 2, 5)
