"""The dispatcher's decision log as training data: what people thought of the answers to conversations that were kept.

A preference says which tier's answer was better. A rating is of the one answer that was given: it makes a pair only
where the same prompt was also answered, and rated, by the other tier. Records without text or without feedback say
nothing here and are passed over, and so are those of a model between its tenant's cheapest and strongest one: they are
of neither side of the pair.
"""

import dataclasses

import polars as pl

from training import tables
from training.tables import LINE, DataError, Table

TEXT = pl.Struct({"messages": pl.List(pl.Struct({"role": pl.String, "text": pl.String}))})
FEEDBACK = pl.Struct({"rating": pl.Float64, "preference": pl.String})

_SCHEMA = pl.Schema({"decision": pl.Struct({"tier": pl.String}), "text": TEXT, "feedback": FEEDBACK})
"""The parts of a `pointsman.dispatcher.v1.DecisionRecord` that are read."""

BETTER = {"PREFERENCE_CHOSEN": 1.0, "PREFERENCE_OTHER": 0.0, "PREFERENCE_TIE": 0.5}
"""How much better the chosen model's answer was liked, by the name of the preference."""


def read(table: Table) -> Table:
    """prompt, strong, weak: the quality of each tier's answer in [0, 1], NaN where nobody told.

    Raises:
        DataError: no record has both text and feedback, or all that do are of models between the ends.
    """
    table = tables.read_records(table.path, _SCHEMA)
    told = pl.col("text").is_not_null() & pl.col("feedback").is_not_null()
    frame = table.frame.filter(told)
    if not len(frame) and len(table.frame):
        raise DataError(
            f"{table.path}: none of {len(table.frame)} records has both text and feedback: keep texts (log_text), "
            "record feedback, and export with `pointsman decisions export`"
        )
    of_ends = frame.filter(pl.col("decision").struct.field("tier").ne_missing("TIER_MIDDLE"))
    if len(frame) and not len(of_ends):
        raise DataError(
            f"{table.path}: all {len(frame)} records with text and feedback are of models between a tenant's cheapest "
            "and its strongest, and a pair is of these two: let some requests go there, with an alpha of 1 and of 0"
        )
    flat = of_ends.select(
        LINE,
        pl.col("decision").struct.field("tier"),
        last_user_turn().alias("prompt"),
        pl.col("feedback").struct.field("rating"),
        pl.col("feedback").struct.field("preference").replace_strict(BETTER, default=None).alias("chosen"),
    )
    rating, chosen = pl.col("rating"), pl.col("chosen")
    table = dataclasses.replace(table, frame=flat).sift(
        (pl.col("prompt").is_null(), "no user message has text"),
        (~pl.col("tier").is_in(["TIER_STRONG", "TIER_WEAK"]), "the record has no decision"),
        (rating.is_null() & chosen.is_null(), "the feedback is neither a rating nor a preference"),
        (rating.is_not_null() & ~rating.is_between(0.0, 1.0), "the rating is not in [0, 1]"),
    )
    went_strong = pl.col("tier") == "TIER_STRONG"
    given = pl.coalesce(chosen, rating)
    other = 1.0 - chosen  # null for a rating
    sides = table.frame.with_columns(
        strong=pl.when(went_strong).then(given).otherwise(other),
        weak=pl.when(went_strong).then(other).otherwise(given),
    )
    compared = sides.filter(chosen.is_not_null()).select(LINE, "prompt", "strong", "weak")
    rated = (
        sides.filter(chosen.is_null())
        .group_by("prompt", maintain_order=True)
        .agg(pl.col(LINE).first(), pl.col("strong", "weak").mean())
        .select(LINE, "prompt", "strong", "weak")
    )
    found = pl.concat([compared, rated]).sort(LINE).with_columns(pl.col("strong", "weak").fill_null(float("nan")))
    return dataclasses.replace(table, frame=found)


def last_user_turn() -> pl.Expr:
    """The text that was scored, of a column `text` as in `TEXT`; null if no user message has any."""
    message = pl.element()
    spoken = message.struct.field("text").filter(message.struct.field("role") == "ROLE_USER")
    spoken = spoken.filter(spoken.str.strip_chars() != "")
    return pl.col("text").struct.field("messages").list.eval(spoken).list.last()
