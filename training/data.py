"""What people have to train and to evaluate on, read into three kinds of values.

format     columns                                                             read as
arena      prompt (JSON list of turns), model_a, model_b, winner_model_a,      `Battles`
           winner_model_b, winner_tie: lmsys/lmsys-arena-human-preference-55k
battles    prompt, model_a, model_b, winner (a, b, tie or a model's name)      `Battles`
grades     prompt, mixtral_score: routellm/gpt4_dataset; or prompt,            `Grades`
           weak_grade: 1 to 5, how good the weak model's answer is
pair       prompt, strong_X, weak_X with X one of `formats.QUALITIES`          `AnswerMatrix`
matrix     prompt, and one number per model: correct/MODEL, reward/MODEL, …    `AnswerMatrix`
ratings    prompt, model, and one number per row: correct, score, reward, …    `AnswerMatrix`
decisions  the dispatcher's DecisionRecords with text and feedback, as         `AnswerMatrix`
           `pointsman decisions export` writes them

A conversation is routed on its first user turn, and so that is its prompt; of a decision, it is the turn that was
scored, the last one. Where options of a question stand in a column `choices` of their own, they belong to the prompt.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training import decisions, formats, sketch, tables
from training.corpus import LabelledSet, SourceFile
from training.matrices import AnswerMatrix
from training.tables import MAX_BAD_SHARE, DataError, Table

Floats = NDArray[np.float64]

STRONG, WEAK = "strong", "weak"
"""Names of the two models of a `pair` file, which does not tell any."""

GOOD_GRADE = 4
"""A weak answer of this grade or better is as good as the strong one: RouteLLM's label is its grade below 4."""


class Format(enum.Enum):
    """The formats; the values are those of `--format`."""

    ARENA = "arena"
    BATTLES = "battles"
    GRADES = "grades"
    PAIR = "pair"
    MATRIX = "matrix"
    RATINGS = "ratings"
    DECISIONS = "decisions"


@dataclass(frozen=True, slots=True)
class Battles:
    """Pairwise verdicts.

    Attributes:
        prompts: [battles].
        model_a, model_b: names, [battles].
        score_a: 1 where `model_a` won, 0 where it lost, one half for a tie, [battles].
    """

    prompts: tuple[str, ...]
    model_a: tuple[str, ...]
    model_b: tuple[str, ...]
    score_a: Floats

    @property
    def models(self) -> tuple[str, ...]:
        """Every model once, sorted."""
        return tuple(sorted({*self.model_a, *self.model_b}))

    def pair(self, name: str, strong: str, weak: str) -> LabelledSet:
        """The battles between two models, as qualities: 1 for the winner, one half each for a tie."""
        a, b = np.array(self.model_a, object), np.array(self.model_b, object)
        straight, crossed = (a == strong) & (b == weak), (a == weak) & (b == strong)
        rows = np.flatnonzero(straight | crossed)
        score = np.where(straight, self.score_a, 1.0 - self.score_a)[rows]
        return LabelledSet(name, tuple(self.prompts[row] for row in rows), score, 1.0 - score)

    def matrix(self, name: str) -> AnswerMatrix:
        """One row per battle, with qualities of its two models alone: 1 for the winner, one half each for a tie."""
        models, rows = self.models, np.arange(len(self.prompts))
        place = {model: index for index, model in enumerate(models)}
        quality = np.full((len(rows), len(models)), np.nan)
        quality[rows, [place[model] for model in self.model_a]] = self.score_a
        quality[rows, [place[model] for model in self.model_b]] = 1.0 - self.score_a
        return AnswerMatrix(name, self.prompts, models, quality)


@dataclass(frozen=True, slots=True)
class Grades:
    """How good the weak model's answers are: 1 to 5, [prompts], where a strong model's answer is 5."""

    prompts: tuple[str, ...]
    grades: NDArray[np.int64]

    def pair(self, name: str) -> LabelledSet:
        """Qualities up to `GOOD_GRADE`: beyond, the strong answer is no better. It is never worse."""
        weak = np.minimum(self.grades, GOOD_GRADE).astype(np.float64)
        return LabelledSet(name, self.prompts, np.full(len(weak), float(GOOD_GRADE)), weak)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file as it was read.

    Attributes:
        name: the file's name without its suffix.
        format: as detected or given.
        content: what it says.
        source: for a manifest.
        bad_rows: one line about rows that were left out; empty if none was.
    """

    name: str
    format: Format
    content: Battles | AnswerMatrix | Grades
    source: SourceFile
    bad_rows: str

    def models(self) -> tuple[str, ...]:
        """The models that it tells of; none for grades, which do not name them."""
        return () if isinstance(self.content, Grades) else tuple(self.content.models)

    def pair(self, strong: str | None = None, weak: str | None = None) -> LabelledSet:
        """The prompts for which both models' quality is known.

        Args:
            strong: name of the strong model; may be left out where the file tells of one pair only.
            weak: likewise.

        Raises:
            DataError: the models are not there, or no prompt has both.
        """
        if isinstance(self.content, Grades):
            return self.content.pair(self.name)
        models = self.models()
        if strong is None or weak is None:
            if models != (STRONG, WEAK):
                raise DataError(
                    f"{self.source.name} tells of {len(models)} models ({tables.names(models)}): name the pair with "
                    "--strong-model and --weak-model"
                )
            strong, weak = STRONG, WEAK
        elif models == (STRONG, WEAK):  # a pair file does not name its models
            strong, weak = STRONG, WEAK
        for model in (strong, weak):
            if model not in models:
                raise DataError(f"{self.source.name} has no model {model!r}: it has {tables.names(models)}")
        if isinstance(self.content, Battles):
            labelled = self.content.pair(self.name, strong, weak)
        else:
            labelled = _both_known(self.content, strong, weak)
        if not labelled.prompts:
            raise DataError(f"{self.source.name} has no prompt that both {strong!r} and {weak!r} answered")
        return labelled


def read(path: Path, format_: Format | None = None, *, max_bad_share: float = MAX_BAD_SHARE) -> Dataset:
    """Read a file.

    Args:
        path: a .csv, .parquet or .jsonl file.
        format_: `None` detects it by its columns.
        max_bad_share: more bad rows than this share are an error.

    Raises:
        DataError: the file cannot be used.
    """
    table = tables.read_table(path)
    found = format_ or _detect(table)
    if lacking := _lacking(found, table):
        raise DataError(f"{path} is no {found.value} file: it lacks {lacking}")
    table = _READERS[found](table)
    table.require(max_bad_share)
    seen = sketch.make(table.frame["prompt"])
    source = SourceFile(path.name, tables.fingerprint(path), table.rows, "the owner's terms", seen)
    return Dataset(path.stem, found, _content(found, path.stem, table.frame), source, table.bad_summary())


def read_labels(path: Path) -> list[Dataset]:
    """Files of labels for a pair of models: one file, or all of a folder by name.

    Raises:
        DataError: a file cannot be used, or the folder is empty.
    """
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} is empty: put files with labels of the pair there")
    return [read(file) for file in files]


def with_prompts(path: Path, *, max_bad_share: float = MAX_BAD_SHARE) -> Table:
    """Any table that has prompts: its rows as they lie in the file, with `prompt` as it is routed on.

    Raises:
        DataError: it has none, or too many bad rows.
    """
    table = tables.read_table(path)
    # An arena file keeps a list of turns where others keep the prompt.
    table = formats.arena(table) if _detect_or_none(table) is Format.ARENA else formats.clean_prompts(table)
    table.require(max_bad_share)
    return table


def read_prompts(path: Path, *, max_bad_share: float = MAX_BAD_SHARE) -> list[str]:
    """Prompts alone: of a text file its lines, of any other as `with_prompts`.

    Raises:
        DataError: there is none.
    """
    if path.suffix.lower() == ".txt":
        prompts = tables.read_lines(path)
    else:
        prompts = with_prompts(path, max_bad_share=max_bad_share).frame["prompt"].to_list()
    if not prompts:
        raise DataError(f"{path} holds no prompt")
    return prompts


_READERS: Mapping[Format, Callable[[Table], Table]] = {
    Format.ARENA: formats.arena,
    Format.BATTLES: formats.battles,
    Format.GRADES: formats.grades,
    Format.PAIR: formats.pair,
    Format.MATRIX: formats.matrix,
    Format.RATINGS: formats.ratings,
    Format.DECISIONS: decisions.read,
}
"""Also the order of detection: the more special one first."""

_COLUMNS: Mapping[Format, tuple[str, ...]] = {
    Format.ARENA: ("prompt", "model_a", "model_b", "winner_model_a", "winner_model_b", "winner_tie"),
    Format.BATTLES: ("prompt", "model_a", "model_b", "winner"),
    Format.RATINGS: ("prompt", "model"),
    Format.DECISIONS: ("request_id", "decision"),
}


def _lacking(format_: Format, table: Table) -> str:
    """What a table would need to be of this format; empty if it is."""
    columns = table.frame.columns
    if format_ is not Format.DECISIONS and "prompt" not in columns and "turns" not in columns:
        return "a column prompt"
    if missing := [name for name in _COLUMNS.get(format_, ()) if name not in columns]:
        return "the columns " + ", ".join(missing)
    lacks_a_column = {
        Format.GRADES: not set(formats.GRADE_COLUMNS) & set(columns),
        Format.PAIR: formats.pair_quality(columns) is None,
        Format.RATINGS: formats.ratings_quality(columns) is None,
        Format.MATRIX: format_ is Format.MATRIX and len(formats.matrix_columns(table)) < 2,
    }
    return _NUMBERS[format_] if lacks_a_column.get(format_) else ""


_NUMBERS: Mapping[Format, str] = {
    Format.GRADES: "a column " + " or ".join(formats.GRADE_COLUMNS),
    Format.PAIR: "columns strong_X and weak_X, with X one of " + ", ".join(formats.QUALITIES),
    Format.RATINGS: "a column of numbers: one of " + ", ".join(formats.QUALITIES),
    Format.MATRIX: "columns of two models or more, named correct/MODEL",
}
"""What a format needs beside `_COLUMNS`."""


def _detect_or_none(table: Table) -> Format | None:
    fitting = [format_ for format_ in _READERS if not _lacking(format_, table)]
    # Any two columns of numbers look like a matrix: that is for the user to say.
    prefixed = any(column.partition("/")[0] in formats.QUALITIES for column in table.frame.columns if "/" in column)
    return next((format_ for format_ in fitting if format_ is not Format.MATRIX or prefixed), None)


def _detect(table: Table) -> Format:
    found = _detect_or_none(table)
    if found is None:
        raise DataError(
            f"{table.path} has the columns {tables.names(table.frame.columns)}, which are no known format's: rename "
            f"them as 'Data formats' in docs/training.md says, or give --format ({', '.join(f.value for f in Format)})"
        )
    return found


def _content(format_: Format, name: str, frame: pl.DataFrame) -> Battles | AnswerMatrix | Grades:
    prompts = tuple(frame["prompt"].to_list())
    match format_:
        case Format.ARENA | Format.BATTLES:
            model_a, model_b = (tuple(frame[side].cast(pl.String).to_list()) for side in ("model_a", "model_b"))
            return Battles(prompts, model_a, model_b, frame["score_a"].to_numpy())
        case Format.GRADES:
            return Grades(prompts, frame["grade"].to_numpy())
        case Format.PAIR | Format.DECISIONS:
            return AnswerMatrix(name, prompts, (STRONG, WEAK), frame.select(STRONG, WEAK).to_numpy())
    columns = [column for column in frame.columns if column.startswith("quality/")]
    models = tuple(column.partition("/")[2] for column in columns)
    return AnswerMatrix(name, prompts, models, frame.select(columns).to_numpy())


def _both_known(matrix: AnswerMatrix, strong: str, weak: str) -> LabelledSet:
    sides = matrix.quality[:, [matrix.models.index(strong), matrix.models.index(weak)]]
    rows = np.flatnonzero(np.isfinite(sides).all(axis=1))
    return LabelledSet(matrix.name, tuple(matrix.prompts[row] for row in rows), sides[rows, 0], sides[rows, 1])
