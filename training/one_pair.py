"""What `bert` and `causal_lm` share: rows kept back for calibration, tokens, and what the manifest tells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.preprocess import Passage, Preprocessor, PreprocessSpec
from training import export, made_with, metrics
from training.errors import TrainingError
from training.logit_curve import LogitCurve
from training.many_models import Material
from training.pair_labels import PairLabels

Floats = NDArray[np.float64]

_MOST_KEPT = 1_000
"""Rows that calibrate: two numbers need no more."""


def kept_back(labels: PairLabels, folds: int) -> NDArray[np.bool_]:
    """Which rows calibrate: some folds of the labelled files, which are the traffic to come, or of all without any."""
    kept = labels.fold < folds
    if labels.traffic.any():
        kept &= labels.traffic
    rows = np.flatnonzero(kept)
    if len(rows) < 2:
        raise TrainingError(f"{len(labels.prompts)} labelled prompts are too few to keep some back for calibration")
    chosen = np.zeros(len(kept), bool)
    chosen[rows if len(rows) <= _MOST_KEPT else rows[:: -(-len(rows) // _MOST_KEPT)]] = True
    return chosen


def tokenize(prompts: Sequence[str], tokenizer_json: str, spec: PreprocessSpec) -> list[tuple[int, ...]]:
    """Token ids as serving makes them."""
    preprocessor = Preprocessor(Tokenizer.from_str(tokenizer_json), spec)
    passages = [Passage(prompt, cut=False) for prompt in prompts]
    return [encoded.input_ids for encoded in preprocessor.encode_passages(passages)]


def calibrate(
    material: Material, labels: PairLabels, kept: NDArray[np.bool_], odds: Floats, config: Any
) -> tuple[LogitCurve, export.Provenance]:
    """Fit the curve to the rows that were kept back, and say how well it does there.

    Args:
        material: as read.
        labels: of all rows.
        kept: which were kept back.
        odds: log-odds of those, in order.
        config: the kind's settings.

    Raises:
        ExportError: higher odds do not win more often.
    """
    outcomes = labels.outcomes[kept]
    curve = LogitCurve.fit(odds, outcomes)
    probability = curve(odds)
    gain = 2.0 * outcomes - 1.0
    measured = {
        "protocol": "rows that were not trained on; they did fit the calibration",
        "kept_back": {
            "labels": len(odds),
            "apgr": round(metrics.apgr(probability, gain), 4) if gain.sum() > 0 else None,
            "brier": round(float(np.mean((outcomes - probability) ** 2)), 5),
            "brier_of_base_rate": round(float(np.var(outcomes)), 5),
        },
    }
    quantiles = np.quantile(probability, np.linspace(0.0, 1.0, export.QUANTILES))
    return curve, export.Provenance(
        strong_model=material.pair[0],
        weak_model=material.pair[1],
        score_quantiles=quantiles.tolist(),
        data={source.name: source.document() for source in material.sources},
        training={
            "config": made_with.settings(config),
            "versions": made_with.versions(),
            "labels": len(labels.prompts),
        },
        metrics=measured,
    )
