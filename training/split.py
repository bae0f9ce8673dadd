"""Divides a file of labelled prompts into rows to learn from and rows to be measured on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from training.corpus import GROUP_CHARACTERS
from training.tables import DataError

LABELS, REST = "labels", "rest"
"""The two folders that `split` fills; a file keeps its name in both."""


@dataclass(frozen=True, slots=True)
class Divided:
    """What `split` wrote."""

    labels: Path
    rest: Path
    labelled_rows: int
    rest_rows: int


def split(file: Path, *, labels: int, seed: int, out: Path) -> Divided:
    """Draw rows at random to learn from, and leave the rest to be measured on; both keep the file's columns.

    Prompts whose first 300 characters are equal stand on one side, so that a few rows more or fewer are drawn.

    Args:
        file: .csv, .parquet or .jsonl.
        labels: rows to draw.
        seed: of the draw.
        out: where the folders `labels` and `rest` are made.

    Raises:
        DataError: the file is missing, has no prompts, or not more rows than are asked for.
    """
    frame = _read(file)
    if not 0 < labels < len(frame):
        raise DataError(f"{file} has {len(frame)} rows: ask for at least 1 label and fewer than that")
    _, group = np.unique(np.array(_openings(file, frame), object), return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    drawn_groups = int(np.searchsorted(np.cumsum(np.bincount(group)[order]), labels)) + 1
    drawn = pl.Series(rank[group] < drawn_groups)
    divided = Divided(out / LABELS / file.name, out / REST / file.name, int(drawn.sum()), int((~drawn).sum()))
    for target, part in ((divided.labels, frame.filter(drawn)), (divided.rest, frame.filter(~drawn))):
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(part, target)
    return divided


def _read(file: Path) -> pl.DataFrame:
    """The columns as they lie in the file: `tables.read_table` would turn lists into text."""
    if not file.is_file():
        raise DataError(f"{file} is missing")
    try:
        match file.suffix.lower():
            case ".parquet":
                return pl.read_parquet(file)
            case ".csv":
                return pl.read_csv(file, infer_schema=False)
            case ".jsonl":
                return pl.read_ndjson(file)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{file} cannot be read as {file.suffix[1:]}: {error}") from error
    raise DataError(f"{file} is no .csv, .parquet or .jsonl file")


def _openings(file: Path, frame: pl.DataFrame) -> list[str]:
    """What a row's prompt begins with."""
    if "prompt" in frame.columns:
        prompt = pl.col("prompt")
    elif "turns" in frame.columns:
        prompt = pl.col("turns").list.first()
    else:
        raise DataError(f"{file} has no column prompt or turns")
    return frame.select(prompt.cast(pl.String).str.head(GROUP_CHARACTERS).alias("opening"))["opening"].to_list()


def _write(frame: pl.DataFrame, path: Path) -> None:
    match path.suffix.lower():
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case _:
            frame.write_ndjson(path)
