"""Answers with their quality, read from a file: what scorers and rankers of answers learn from.

format   columns
pair     prompt, strong_response, weak_response, strong_X, weak_X, as `pointsman label` writes them
wide     prompt, and for each of any number of models response/MODEL and X/MODEL
long     prompt, answer (or response), X, and if it is known model

with X one of `formats.QUALITIES`: 0 or 1, or any other number that is higher for a better answer.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training import corpus, data, formats, sketch, tables
from training.corpus import GROUP_CHARACTERS, SourceFile
from training.tables import DataError, Table

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]

RESPONSE = "response/"
"""What the name of a model's column of answers begins with."""


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """Answers to prompts.

    Attributes:
        prompts: as a caller would send them, [rows]; a prompt stands once per answer.
        answers: [rows].
        quality: [rows].
        models: who answered, [rows]; empty text where it is not told.
        source: for a manifest.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    quality: Floats
    models: tuple[str, ...]
    source: SourceFile

    def chosen(self, rows: NDArray[np.intp]) -> "AnswerRows":
        """Some of the rows."""
        return AnswerRows(
            tuple(self.prompts[row] for row in rows),
            tuple(self.answers[row] for row in rows),
            self.quality[rows],
            tuple(self.models[row] for row in rows),
            self.source,
        )

    def groups(self) -> Groups:
        """A number per row, equal where prompts begin alike: such rows do not tell independently."""
        _, groups = np.unique(
            np.array([prompt[:GROUP_CHARACTERS] for prompt in self.prompts], object), return_inverse=True
        )
        return groups.astype(np.int64)

    def folds(self, count: int, seed: int) -> NDArray[np.int64]:
        """A fold per row; rows of one group share it."""
        return corpus.folds([prompt[:GROUP_CHARACTERS] for prompt in self.prompts], count, seed)

    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Every two answers to one prompt, as two arrays of rows."""
        places: dict[str, list[int]] = {}
        for row, prompt in enumerate(self.prompts):
            places.setdefault(prompt, []).append(row)
        found = [pair for rows in places.values() for pair in itertools.combinations(rows, 2)]
        first, second = np.array(found, np.intp).reshape(-1, 2).T
        return first, second


def read(path: Path, *, max_bad_share: float = tables.MAX_BAD_SHARE) -> AnswerRows:
    """Read a file; an answer without text or quality is left out.

    Raises:
        DataError: it has other columns, or no usable row.
    """
    table = data.with_prompts(path, max_bad_share=max_bad_share)
    columns = table.frame.columns
    quality = formats.pair_quality(columns)
    wide = {model: column for model, column in _wide(table).items() if f"{RESPONSE}{model}" in columns}
    text = next((name for name in ("answer", "response") if name in columns), None)
    own = formats.ratings_quality(columns)
    if quality is not None and {"strong_response", "weak_response"} <= set(columns):
        sides = [(side, f"{side}_response", f"{side}_{quality}") for side in ("weak", "strong")]
        frame = pl.concat([_answers(table, *side) for side in sides])
    elif wide:
        frame = pl.concat([_answers(table, model, f"{RESPONSE}{model}", column) for model, column in wide.items()])
    elif text is not None and own is not None:
        model = pl.col("model").cast(pl.String) if "model" in columns else pl.lit("")
        frame = table.frame.select("prompt", answer=text, quality=pl.col(own).cast(pl.Float64), model=model)
    else:
        raise DataError(
            f"{path} holds no graded answers: it needs prompt, answer and one of {', '.join(formats.QUALITIES)}, or "
            "prompt, strong_response, weak_response and such a column of both, or response/MODEL and correct/MODEL"
        )
    frame = frame.filter(pl.col("quality").is_finite() & (pl.col("answer").str.strip_chars() != ""))
    if not len(frame):
        raise DataError(f"{path} has no answer with text and quality")
    source = SourceFile(
        path.name, tables.fingerprint(path), len(table.frame), "the owner's terms", sketch.make(table.frame["prompt"])
    )
    return AnswerRows(
        tuple(frame["prompt"].to_list()),
        tuple(frame["answer"].to_list()),
        frame["quality"].to_numpy().astype(np.float64),
        tuple(frame["model"].fill_null("").to_list()),
        source,
    )


def _wide(table: Table) -> Mapping[str, str]:
    """Model -> its column of quality, where columns are named QUALITY/MODEL."""
    named = any(column.partition("/")[0] in formats.QUALITIES for column in table.frame.columns if "/" in column)
    return formats.matrix_columns(table) if named else {}


def _answers(table: Table, model: str, response: str, quality: str) -> pl.DataFrame:
    """One model's answers, where each model has columns of its own."""
    return table.frame.select(
        "prompt",
        answer=response,
        quality=pl.col(quality).cast(pl.Float64),
        model=pl.lit(model),
    )
