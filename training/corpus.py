"""The labelled prompts that the shipped default is trained on, with where they come from and what their terms are."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training import sketch
from training.errors import TrainingError

STRONG_MODEL = "gpt-4-1106-preview"
WEAK_MODEL = "Mixtral-8x7B-Instruct-v0.1"
"""The pair of RouteLLM's evaluations: every labelled set here has both models' answers."""

GROUP_CHARACTERS = 300
"""Prompts that begin alike share a reading passage, and must not stand on both sides of a split."""


class CorpusError(TrainingError):
    """A data file is missing or is not what it should be. The message names it and what to do."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Prompts with the quality of both models' answers.

    Attributes:
        name: of the set, in reports.
        prompts: as a caller would send them.
        strong: quality of the strong model's answer, [prompts]; any unit, the same as `weak`.
        weak: likewise.
    """

    name: str
    prompts: tuple[str, ...]
    strong: NDArray[np.float64]
    weak: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """What the strong model adds, [prompts]."""
        return self.strong - self.weak

    @property
    def labels(self) -> NDArray[np.float64]:
        """1 where the strong model's answer is better, 0 where it is worse, one half for a tie. [prompts]."""
        return 0.5 + 0.5 * np.sign(self.gain)

    def folds(self, count: int, seed: int) -> NDArray[np.int64]:
        """A fold per prompt; prompts that begin alike share one."""
        return folds([prompt[:GROUP_CHARACTERS] for prompt in self.prompts], count, seed)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A data file as it was read; `prompt_sketch` (see `sketch`) tells its prompts again, and holds none."""

    name: str
    sha256: str
    rows: int
    licence: str
    prompt_sketch: str

    def document(self) -> Mapping[str, Any]:
        """For the manifest."""
        return {
            "sha256": self.sha256,
            "rows": self.rows,
            "licence": self.licence,
            "prompt_sketch": self.prompt_sketch,
        }


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a default artefact is trained on."""

    labelled: tuple[LabelledSet, ...]
    unlabelled: tuple[str, ...]
    sources: tuple[SourceFile, ...]


def folds(groups: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Deal groups to `count` folds of nearly equal size: [rows], the same for the same seed."""
    _, membership = np.unique(np.array(groups, object), return_inverse=True)
    size = int(membership.max()) + 1
    dealt = np.empty(size, np.int64)
    dealt[np.random.default_rng(seed).permutation(size)] = np.arange(size) % count
    return dealt[membership]


def read(data: Path, *, evaluation: bool = True) -> Corpus:
    """Read the data folder.

    Args:
        data: holds `train/`, and `eval/` if that is wanted, as its README lays them out.
        evaluation: whether `eval/` belongs to it. Without, `arena_hard` is the only labelled set.

    Raises:
        CorpusError: a file is missing.
    """
    arena = read_parquet(data / "train/arena_hard.parquet").filter(
        pl.col("model").eq(WEAK_MODEL) & pl.col("judge_score").is_finite() & pl.col("baseline_judge_score").is_finite()
    )
    labelled = [_set("arena_hard", arena["prompt"], arena["baseline_judge_score"], arena["judge_score"])]
    if evaluation:
        mmlu, gsm8k, mt_bench = _evaluation(data)
        labelled = [mmlu, gsm8k, *labelled, mt_bench]
    others = [
        read_parquet(data / f"train/{name}.parquet") for name in ("mmlu_pro", "llmrouter", "pareto", "crux", "math_l5")
    ]
    unlabelled = tuple(prompt for frame in others for prompt in full_prompts(frame))
    return Corpus(tuple(labelled), unlabelled, read_sources(data, evaluation=evaluation))


def _evaluation(data: Path) -> tuple[LabelledSet, LabelledSet, LabelledSet]:
    mmlu = read_parquet(data / "eval/mmlu_dev.parquet")
    gsm8k = read_parquet(data / "eval/gsm8k_dev.parquet")
    mt_bench = pl.read_ndjson(_present(data / "eval/mt_bench_dev.jsonl"))
    return (
        _set("mmlu", mmlu["prompt"], mmlu["strong_correct"], mmlu["weak_correct"]),
        _set("gsm8k", gsm8k["prompt"], gsm8k["strong_correct"], gsm8k["weak_correct"]),
        _set(
            "mt_bench",
            mt_bench["turns"].list.first(),
            mt_bench["strong_scores"].list.mean(),
            mt_bench["weak_scores"].list.mean(),
        ),
    )


def read_sources(data: Path, *, evaluation: bool) -> tuple[SourceFile, ...]:
    """Every file of the data folder that training reads, those of `eval/` only if they are asked for."""
    return tuple(
        _source(data, name, licence) for name, licence in _LICENCES.items() if evaluation or name.startswith("train/")
    )


_LICENCES = {
    "eval/mmlu_dev.parquet": "Apache-2.0 (RouteLLM); questions MIT (MMLU)",
    "eval/gsm8k_dev.parquet": "Apache-2.0 (RouteLLM); questions MIT (GSM8K)",
    "eval/mt_bench_dev.jsonl": "Apache-2.0 (RouteLLM); questions Apache-2.0 (FastChat)",
    "train/arena_hard.parquet": "Apache-2.0 (arena-hard-auto); prompts from LMSYS-Chat-1M under its own agreement",
    "train/mmlu_pro.parquet": "Apache-2.0 (MMLU-Pro)",
    "train/llmrouter.parquet": "MIT (LLMRouter)",
    "train/pareto.parquet": "Apache-2.0 (ParetoBandit)",
    "train/crux.parquet": "Apache-2.0 (ZeroEval)",
    "train/math_l5.parquet": "Apache-2.0 (ZeroEval)",
}


def _set(name: str, prompts: pl.Series, strong: pl.Series, weak: pl.Series) -> LabelledSet:
    return LabelledSet(
        name,
        tuple(prompts.to_list()),
        strong.cast(pl.Float64).to_numpy(),
        weak.cast(pl.Float64).to_numpy(),
    )


def full_prompts(frame: pl.DataFrame) -> list[str]:
    """Prompts as a model saw them: some sets keep the answer options in a column of their own."""
    if "choices" not in frame.columns:
        return frame["prompt"].to_list()
    joined = pl.when(pl.col("choices").is_null()).then("prompt").otherwise(pl.col("prompt") + "\n" + pl.col("choices"))
    return frame.select(joined)["prompt"].to_list()


def read_parquet(path: Path) -> pl.DataFrame:
    """Read one file.

    Raises:
        CorpusError: it is missing.
    """
    return pl.read_parquet(_present(path))


def _present(path: Path) -> Path:
    if not path.is_file():
        raise CorpusError(f"{path} is missing: give the folder that holds train/ and eval/ by --data or POINTSMAN_DATA")
    return path


def _source(data: Path, name: str, licence: str) -> SourceFile:
    path = data / name
    if name.endswith("jsonl"):
        prompts = pl.read_ndjson(path)["turns"].list.first().to_list()
    else:
        prompts = full_prompts(pl.read_parquet(path))
    return SourceFile(name, hashlib.sha256(path.read_bytes()).hexdigest(), len(prompts), licence, sketch.make(prompts))
