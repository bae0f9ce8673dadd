"""Exports of the dispatcher's decision log as training reads them: `pointsman decisions export`, one file or many."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training import decisions, sketch, tables
from training.corpus import SourceFile
from training.tables import DataError

Floats = NDArray[np.float64]

BY_CHANCE = frozenset(
    f"REASON_{name}"
    for name in (
        "AT_OR_ABOVE_ALPHA",
        "BELOW_ALPHA",
        "SCORER_UNAVAILABLE",
        "BUDGET_DEGRADED",
        "LEDGER_UNAVAILABLE",
        "OVERRIDE_WEAK",
        "OVERRIDE_STRONG",
    )
)
"""Reasons that look at nothing but the win probability and the moment. Of any other, who answered is not chance."""

_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("request_id", "tenant_id", "received_at", "status"), pl.String()),
        "decision": pl.Struct(
            {"tier": pl.String, "reason": pl.String, "win_probability": pl.Float64, "scorer_version": pl.String}
        ),
        "text": decisions.TEXT,
        "feedback": decisions.FEEDBACK,
    }
)
"""The parts of a `pointsman.dispatcher.v1.DecisionRecord` that are read."""


@dataclass(frozen=True, slots=True)
class LogRecords:
    """Answered requests whose text was kept, in the order of their arrival. All are [records].

    Attributes:
        prompts: the turn that was scored.
        seconds: of arrival, since the epoch.
        tenant: who asked.
        scorer_version: of the prediction; empty where there was none.
        win_probability: that was compared; NaN where there was none.
        strong: True where the strong model answered.
        by_chance: False where something else than win probability and moment chose the model.
        rating: of the answer, in [0, 1]; NaN without one.
        preference: 1 where the strong model's answer was liked better, one half for a tie, 0; NaN without one.
        source: the files, as one.
        passed_over: requests without text, that failed, or that neither of the two models answered.
    """

    prompts: tuple[str, ...]
    seconds: Floats
    tenant: tuple[str, ...]
    scorer_version: tuple[str, ...]
    win_probability: Floats
    strong: NDArray[np.bool_]
    by_chance: NDArray[np.bool_]
    rating: Floats
    preference: Floats
    source: SourceFile
    passed_over: int

    @property
    def opinions(self) -> int:
        """Records with a rating or a preference."""
        return int((~np.isnan(self.rating) | ~np.isnan(self.preference)).sum())


def read(path: Path) -> LogRecords:
    """Read one export, or every .jsonl file of a folder. Of a request that is there twice, the later file counts.

    Raises:
        DataError: there is no file, one cannot be read, or no record has text.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .jsonl file: write some with `pointsman decisions export --out FILE.jsonl`")
    parsed = [tables.read_records(file, _SCHEMA) for file in files]
    for table in parsed:
        table.require(tables.MAX_BAD_SHARE)
    everything = pl.concat([table.frame.drop(tables.LINE) for table in parsed])
    everything = everything.unique(["tenant_id", "request_id"], keep="last", maintain_order=True)
    frame = _flat(everything)
    if not len(frame):
        raise DataError(
            f"{path}: none of {len(everything)} records has an answer and a text: set log_text for the tenant, and "
            "export before its texts expire (text_ttl)"
        )
    digest = hashlib.sha256("".join(tables.fingerprint(file) for file in files).encode()).hexdigest()
    return LogRecords(
        prompts=tuple(frame["prompt"].to_list()),
        seconds=frame["seconds"].to_numpy(),
        tenant=tuple(frame["tenant_id"].to_list()),
        scorer_version=tuple(frame["scorer_version"].fill_null("").to_list()),
        win_probability=_numbers(frame["win_probability"]),
        strong=(frame["tier"] == "TIER_STRONG").to_numpy(),
        by_chance=frame["reason"].is_in(list(BY_CHANCE)).to_numpy(),
        rating=_numbers(frame["rating"]),
        preference=_numbers(frame["preference"]),
        source=SourceFile(path.name, digest, len(frame), "the owner's terms", sketch.make(frame["prompt"])),
        passed_over=len(everything) - len(frame),
    )


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    decision, feedback = pl.col("decision").struct, pl.col("feedback").struct
    chosen = feedback.field("preference").replace_strict(decisions.BETTER, default=None)
    strong = decision.field("tier") == "TIER_STRONG"
    flat = frame.select(
        "tenant_id",
        pl.col("received_at")
        .str.to_datetime(time_zone="UTC", strict=False)
        .dt.epoch("us")
        .truediv(1e6)
        .alias("seconds"),
        "status",
        decision.field("tier"),
        decision.field("reason"),
        decision.field("win_probability"),
        decision.field("scorer_version"),
        decisions.last_user_turn().alias("prompt"),
        feedback.field("rating"),
        pl.when(strong).then(chosen).otherwise(1.0 - chosen).alias("preference"),
    )
    return flat.filter(
        pl.col("prompt").is_not_null(),
        pl.col("seconds").is_not_null(),
        pl.col("status") == "OK",
        pl.col("tier").is_in(["TIER_STRONG", "TIER_WEAK"]),
        pl.col("rating").is_null() | pl.col("rating").is_between(0.0, 1.0),
    ).sort("seconds", maintain_order=True)


def _numbers(column: pl.Series) -> Floats:
    found: Floats = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return found
