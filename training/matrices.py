"""Answer matrices: how well each of many models answered each of many prompts, read from the folder `train/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training import corpus
from training.corpus import LabelledSet, SourceFile

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AnswerMatrix:
    """Quality of every answer to every prompt of one set.

    Attributes:
        name: of the set, in reports.
        prompts: as a caller would send them.
        models: by the name that is the same in every set.
        quality: [prompts, models] in a unit of the set's own, higher is better; NaN where there is no label.
        tie_below: two answers that differ by less are equally good; equal ones always are.
        tasks: which task of the set a prompt belongs to, [prompts]; empty where the set does not say.
    """

    name: str
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    quality: Floats
    tie_below: float = 0.0
    tasks: tuple[str, ...] = ()

    def outcomes(self, strong: str, weak: str) -> Floats:
        """1 where `strong` answered better, 0 where worse, one half for a tie, NaN without both labels. [prompts]."""
        return outcome(self.gap(strong, weak), self.tie_below)

    def gap(self, strong: str, weak: str) -> Floats:
        """Quality of the answer of `strong` less that of `weak`, NaN without both. [prompts]."""
        result: Floats = self.quality[:, self.models.index(strong)] - self.quality[:, self.models.index(weak)]
        return result

    def take(self, rows: NDArray[np.int64]) -> "AnswerMatrix":
        """The same matrix for some of its prompts."""
        prompts = tuple(self.prompts[row] for row in rows)
        tasks = tuple(self.tasks[row] for row in rows) if self.tasks else ()
        return AnswerMatrix(self.name, prompts, self.models, self.quality[rows], self.tie_below, tasks)


def outcome(gap: Floats, tie_below: float) -> Floats:
    """Quality differences as battles: 1, one half (a tie) or 0; NaN stays."""
    tie = np.abs(gap) < max(tie_below, np.finfo(np.float32).eps)
    result: Floats = np.where(np.isnan(gap), np.nan, np.where(tie, 0.5, (gap > 0).astype(np.float64)))
    return result


def read_matrices(data: Path) -> tuple[AnswerMatrix, ...]:
    """All sets of `train/`.

    An answer in which no choice could be found is missing, not wrong: how often that happens says more about the
    format than about the model.

    Raises:
        CorpusError: a file is missing.
    """
    return (
        _columns(data, "mmlu_pro", "correct/", tasks="category"),
        _columns(data, "llmrouter", "correct/", tasks="task"),
        _columns(data, "pareto", "reward/", tie_below=0.05, tasks="source"),
        _columns(data, "crux", "correct/"),
        _columns(data, "math_l5", "correct/"),
        _arena_hard(data),
    )


def sources(data: Path) -> tuple[SourceFile, ...]:
    """The files that `read_matrices` reads."""
    return corpus.read_sources(data, evaluation=False)


def labelled_pair(labelled: LabelledSet, pair: tuple[str, str]) -> AnswerMatrix:
    """A set with labels for a strong and a weak model alone, as a matrix of these two models."""
    quality = np.stack([labelled.strong, labelled.weak], axis=1)
    return AnswerMatrix(labelled.name, labelled.prompts, pair, quality)


def known_models(matrices: Sequence[AnswerMatrix]) -> tuple[str, ...]:
    """Every model of these sets once, in order of appearance."""
    return tuple(dict.fromkeys(model for matrix in matrices for model in matrix.models))


def wins(matrices: Sequence[AnswerMatrix], models: Sequence[str]) -> Floats:
    """How often each model's answer was better than each other one's, a tie counting one half: [models, models]."""
    place = {model: index for index, model in enumerate(models)}
    total = np.zeros((len(models), len(models)))
    for matrix in matrices:
        columns = [place[model] for model in matrix.models]
        for first, column in enumerate(columns):
            result = outcome(matrix.quality[:, [first]] - matrix.quality, matrix.tie_below)
            result[:, first] = np.nan
            total[column, columns] += np.nansum(result, axis=0)
    return total


_SAME_MODEL: Mapping[str, str] = {
    "llama-3.1-8b-instruct": "Meta-Llama-3.1-8B-Instruct",
    "Meta-Llama-3_1-8B": "Meta-Llama-3.1-8B",
    "Meta-Llama-3_1-8B-Instruct": "Meta-Llama-3.1-8B-Instruct",
    "Meta-Llama-3_1-70B": "Meta-Llama-3.1-70B",
    "Meta-Llama-3_1-70B-Instruct": "Meta-Llama-3.1-70B-Instruct",
    "qwen2.5-7b-instruct": "Qwen2.5-7B-Instruct",
}
"""Spellings of one model in different sets, without their publisher; the same model links the sets' scales."""


def _canonical(column: str) -> str:
    name = column.rpartition("/")[2]
    return _SAME_MODEL.get(name, name)


def _columns(data: Path, name: str, prefix: str, *, tie_below: float = 0.0, tasks: str = "") -> AnswerMatrix:
    """A file with one column per model."""
    frame = corpus.read_parquet(data / f"train/{name}.parquet")
    labels = [column for column in frame.columns if column.startswith(prefix)]
    quality = frame.select(labels).cast(pl.Float64).to_numpy().copy()
    for place, column in enumerate(labels):
        parsed = "parsed/" + column.removeprefix(prefix)
        if parsed in frame.columns:
            quality[frame[parsed].fill_null(value=False).not_().to_numpy(), place] = np.nan
    models = tuple(_canonical(column) for column in labels)
    task = tuple(frame[tasks].to_list()) if tasks else ()
    return AnswerMatrix(name, tuple(corpus.full_prompts(frame)), models, quality, tie_below, task)


def _arena_hard(data: Path) -> AnswerMatrix:
    """One row per prompt and model: a rating of 1 to 10."""
    frame = corpus.read_parquet(data / "train/arena_hard.parquet")
    wide = frame.pivot(
        on="model", index="prompt", values="judge_score", aggregate_function="first", maintain_order=True
    )
    models = tuple(column for column in wide.columns if column != "prompt")
    quality = wide.select(models).cast(pl.Float64).to_numpy()
    return AnswerMatrix("arena_hard", tuple(wide["prompt"].to_list()), models, quality)
