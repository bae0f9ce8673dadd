"""The columns of each data format -> the columns that `data` builds its values from.

Every reader takes a table as it lies in the file and gives one with a column `prompt` and those that its docstring
names; rows that cannot be read so are among the bad ones.
"""

import dataclasses

import polars as pl

from training import corpus, tables
from training.tables import LINE, DataError, Table

QUALITIES = ("correct", "score", "scores", "quality", "reward", "rating", "judge_score")
"""Names of a quality column, in order of preference."""

GRADE_COLUMNS = ("mixtral_score", "weak_grade")
"""Of the published data set, and ours."""

_LONE_SURROGATE = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"

_WINS_A, _WINS_B, _TIES = ["a", "model_a"], ["b", "model_b"], ["tie", "tie (bothbad)", "both_bad", "draw"]


def arena(table: Table) -> Table:
    """model_a, model_b, score_a. Of a conversation's turns, which are a JSON list, the first is the prompt."""
    if table.frame["prompt"].dtype == pl.String:
        # Cut in the middle of an emoji, some published prompts hold half of a pair, which no JSON reader takes.
        mended = pl.col("prompt").str.replace_all(_LONE_SURROGATE, r"\ufffd")
        turns = pl.coalesce(pl.col("prompt").str.json_path_match("$[0]"), mended.str.json_path_match("$[0]"))
    else:
        turns = pl.col("prompt").list.first()
    flags = [pl.col(name).cast(pl.Float64, strict=False) for name in ("winner_model_a", "winner_tie", "winner_model_b")]
    table = table.sift((turns.is_null(), "prompt is no JSON list of texts"))
    table = table.sift(
        *_model_checks(),
        (~pl.all_horizontal(flag.is_in([0.0, 1.0]) for flag in flags), "a winner column is neither 0 nor 1"),
        (pl.sum_horizontal(flags) != 1.0, "not exactly one of the winner columns is 1"),
    )
    return clean_prompts(_with(table, prompt=turns, score_a=flags[0] + 0.5 * flags[1]))


def battles(table: Table) -> Table:
    """model_a, model_b, score_a."""
    winner = pl.col("winner").cast(pl.String).str.strip_chars()
    side = winner.str.to_lowercase()
    score = (
        pl.when(side.is_in(_TIES)).then(0.5)
        .when((winner == pl.col("model_a")) | side.is_in(_WINS_A)).then(1.0)
        .when((winner == pl.col("model_b")) | side.is_in(_WINS_B)).then(0.0)
    )  # fmt: skip
    reason = pl.format("winner is {}, not a, b, tie or one of the two models", pl.coalesce(winner, pl.lit("missing")))
    return clean_prompts(_with(table.sift(*_model_checks(), (score.is_null(), reason)), score_a=score))


def grades(table: Table) -> Table:
    """grade: a whole number from 1 to 5."""
    column = next(name for name in GRADE_COLUMNS if name in table.frame.columns)
    grade = pl.col(column).cast(pl.Float64, strict=False)
    given = pl.coalesce(pl.col(column).cast(pl.String), pl.lit("missing"))
    table = table.sift((~grade.is_in([1.0, 2.0, 3.0, 4.0, 5.0]), pl.format(column + " is {}, not 1 to 5", given)))
    return clean_prompts(_with(table, grade=grade.cast(pl.Int64)))


def pair(table: Table) -> Table:
    """strong, weak: the qualities of both answers; of a list of qualities, their mean."""
    quality = pair_quality(table.frame.columns)
    assert quality is not None
    sides = {side: _number(table, f"{side}_{quality}") for side in ("strong", "weak")}
    checks = [(~value.is_finite(), f"{side}_{quality} is no number") for side, value in sides.items()]
    return clean_prompts(_with(table.sift(*checks), **sides))


def pair_quality(columns: list[str]) -> str | None:
    """The X of the columns strong_X and weak_X."""
    return next((name for name in QUALITIES if {f"strong_{name}", f"weak_{name}"} <= set(columns)), None)


def matrix(table: Table) -> Table:
    """quality/MODEL for each model, NaN where there is none: not labelled, or the answer had no choice to be found."""
    columns = matrix_columns(table)
    found = {}
    for model, column in columns.items():
        value = _number(table, column).fill_null(float("nan"))
        parsed = "parsed/" + column.partition("/")[2]
        if parsed in table.frame.columns:
            value = pl.when(pl.col(parsed).fill_null(value=False)).then(value).otherwise(float("nan"))
        found[f"quality/{model}"] = value
    checks = [
        (pl.col(column).is_not_null() & _number(table, column).is_null(), f"{column} is no number")
        for column in columns.values()
    ]
    return clean_prompts(_with(table.sift(*checks), **found))


def matrix_columns(table: Table) -> dict[str, str]:
    """Model -> its column: those named QUALITY/MODEL, or else every column of numbers."""
    columns = [name for name in table.frame.columns if name not in (LINE, "prompt")]
    for quality in QUALITIES:
        if found := [name for name in columns if name.startswith(quality + "/")]:
            return {name.partition("/")[2]: name for name in found}
    numeric = [name for name in columns if table.frame[name].dtype.is_numeric() or table.frame[name].dtype == pl.String]
    numbers = table.frame.select(pl.col(name).cast(pl.Float64, strict=False) for name in numeric)
    return {name: name for name in numeric if numbers[name].count()}


def ratings(table: Table) -> Table:
    """quality/MODEL for each model, NaN where a prompt has no row of it; of repeated rows, the first counts."""
    quality = ratings_quality(table.frame.columns)
    assert quality is not None
    value = _number(table, quality)
    model = pl.col("model").cast(pl.String)
    checks = (
        (model.is_null(), "model is missing"),
        (pl.col(quality).is_not_null() & value.is_null(), f"{quality} is no number"),
    )
    table = clean_prompts(_with(table.sift(*checks), model="quality/" + model, value=value.fill_null(float("nan"))))
    wide = table.frame.pivot(
        on="model", index="prompt", values="value", aggregate_function="first", maintain_order=True
    )
    places = table.frame.group_by("prompt", maintain_order=True).agg(pl.col(LINE).first())[LINE]
    frame = wide.with_columns(places, pl.col("^quality/.*$").fill_null(float("nan")))
    return dataclasses.replace(table, frame=frame)


def ratings_quality(columns: list[str]) -> str | None:
    """The column of one row's quality."""
    return next((name for name in QUALITIES if name in columns), None)


def clean_prompts(table: Table) -> Table:
    """Make `prompt` the text that is routed on: options appended, a conversation's first turn, never blank.

    Raises:
        DataError: there is no column for it.
    """
    columns = table.frame.columns
    if "prompt" not in columns and "turns" in columns:
        table = _with(table, prompt=pl.col("turns").list.first())
    elif "prompt" not in columns:
        raise DataError(f"{table.path} has no column prompt: it has {tables.names(columns)}")
    table = table.sift((pl.col("prompt").cast(pl.String).str.strip_chars() == "", "prompt is empty"))
    return _with(table, prompt=pl.Series(corpus.full_prompts(table.frame), dtype=pl.String))


def _model_checks() -> tuple[tuple[pl.Expr, str], ...]:
    a, b = (pl.col(name).cast(pl.String) for name in ("model_a", "model_b"))
    return (a.is_null() | b.is_null(), "model_a or model_b is missing"), (a == b, "model_a is model_b")


def _number(table: Table, column: str) -> pl.Expr:
    """A column as float64; null where it is no number."""
    if isinstance(table.frame[column].dtype, pl.List):
        return pl.col(column).list.mean().cast(pl.Float64)
    return pl.col(column).cast(pl.Float64, strict=False)


def _with(table: Table, **columns: pl.Expr | pl.Series) -> Table:
    return dataclasses.replace(table, frame=table.frame.with_columns(**columns))
