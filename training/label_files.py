"""Labelled prompts of one pair in files, and their division into rows to learn from and rows to be measured on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from training import corpus
from training.corpus import CorpusError, LabelledSet, SourceFile

_GROUP_CHARACTERS = 300
"""Prompts that begin alike share a passage, and stay on one side of a split."""

LABELS, REST = "labels", "rest"
"""The two folders that `split` fills; a file keeps its name in both."""


@dataclass(frozen=True, slots=True)
class Divided:
    """What `split` wrote."""

    labels: Path
    rest: Path
    labelled_rows: int
    rest_rows: int


def read(path: Path) -> tuple[LabelledSet, ...]:
    """Read a file of labels, or every one in a folder.

    A file has one row per prompt: `prompt`, `strong_correct`, `weak_correct`; or `turns`, of which the first is the
    prompt, and `strong_scores`, `weak_scores`, whose means are the qualities.

    Raises:
        CorpusError: there is no file, or one has other columns.
    """
    return tuple(_labelled_set(file) for file in _files(path))


def sources(path: Path) -> tuple[SourceFile, ...]:
    """The same files with their hashes; whose they are is for the caller to know."""
    return tuple(
        SourceFile(f"{LABELS}/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest(), len(_frame(file)), "labels")
        for file in _files(path)
    )


def split(file: Path, *, labels: int, seed: int, out: Path) -> Divided:
    """Draw rows at random to learn from, and leave the rest to be measured on.

    Prompts whose first 300 characters are equal stand on one side, so that the draw can be a few rows longer.

    Raises:
        CorpusError: the file is missing, or has not more rows than are asked for.
    """
    frame = _frame(file)
    if not 0 < labels < len(frame):
        raise CorpusError(f"{file} has {len(frame)} rows: ask for at least 1 label and fewer than that")
    groups = np.array([prompt[:_GROUP_CHARACTERS] for prompt in _prompts(frame)], object)
    _, group = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    sizes = np.bincount(group)[order]
    last = int(np.searchsorted(np.cumsum(sizes), labels))
    drawn = pl.Series(rank[group] <= last)
    divided = Divided(out / LABELS / file.name, out / REST / file.name, int(drawn.sum()), int((~drawn).sum()))
    for target, part in ((divided.labels, frame.filter(drawn)), (divided.rest, frame.filter(~drawn))):
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            part.write_parquet(target)
        else:
            part.write_ndjson(target)
    return divided


def _files(path: Path) -> list[Path]:
    files = (
        sorted(file for file in path.iterdir() if file.suffix in (".parquet", ".jsonl")) if path.is_dir() else [path]
    )
    if not files:
        raise CorpusError(f"{path} holds no .parquet or .jsonl file of labels")
    return files


def _frame(file: Path) -> pl.DataFrame:
    if file.suffix == ".parquet":
        return corpus.read_parquet(file)
    if not file.is_file():
        raise CorpusError(f"{file} is missing")
    return pl.read_ndjson(file)


def _prompts(frame: pl.DataFrame) -> list[str]:
    column = frame["prompt"] if "prompt" in frame.columns else frame["turns"].list.first()
    return column.to_list()


def _labelled_set(file: Path) -> LabelledSet:
    frame = _frame(file)
    if {"prompt", "strong_correct", "weak_correct"} <= set(frame.columns):
        strong, weak = frame["strong_correct"], frame["weak_correct"]
    elif {"turns", "strong_scores", "weak_scores"} <= set(frame.columns):
        strong, weak = frame["strong_scores"].list.mean(), frame["weak_scores"].list.mean()
    else:
        raise CorpusError(
            f"{file} has the columns {', '.join(frame.columns)}: it needs prompt, strong_correct and weak_correct, or "
            "turns, strong_scores and weak_scores"
        )
    name = file.stem.removesuffix("_dev")
    return LabelledSet(
        name, tuple(_prompts(frame)), strong.cast(pl.Float64).to_numpy(), weak.cast(pl.Float64).to_numpy()
    )
