"""Held-out numbers of an artefact, set by set, as they go into its manifest and its model card."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from training import metrics, reliability
from training.corpus import LabelledSet
from training.experts import Fitted, Labels
from training.routers.difficulty_kernel import Doubles


def report(labels: Labels, fitted: Fitted, baseline: Doubles | None, draws: int = 1000) -> Mapping[str, Any]:
    """Held-out numbers of each set, with 95 % intervals, beside prompt length and, if given, another ranking.

    Args:
        labels: the labelled prompts.
        fitted: whose held-out probabilities are judged.
        baseline: held-out scores of the plain ridge, [labelled].
        draws: of the bootstrap.
    """
    numbers: dict[str, Any] = {"protocol": f"{labels.fold_count}-fold cross-validation over all labelled prompts"}
    for labelled in labels.sets:
        rows = labels.rows([labelled.name])
        numbers[labelled.name] = judge(
            fitted.probabilities[rows], labelled, None if baseline is None else baseline[rows], draws
        )
    return numbers


def judge(probabilities: Doubles, labelled: LabelledSet, baseline: Doubles | None, draws: int) -> Mapping[str, Any]:
    """Ranking and calibration of held-out probabilities of one set."""
    gain, outcome = labelled.gain, labelled.labels
    resampling = metrics.Resampling(len(gain), draws)
    drawn = metrics.ranking_draws(probabilities, gain, resampling)
    curve = metrics.pgr_curve(probabilities, gain)
    numbers: dict[str, Any] = {
        "labels": len(gain),
        "apgr": _rounded(metrics.interval(curve.apgr(), drawn.apgr)),
        "apgr_of_length": round(metrics.apgr(metrics.length_scores(labelled.prompts), gain), 4),
        "cpt50": round(curve.cpt(0.5), 4),
        "cpt80": round(curve.cpt(0.8), 4),
        "brier_skill": _rounded(reliability.brier_skill(probabilities, outcome, resampling)),
        "calibration_error": round(reliability.reliability(probabilities, outcome).error, 4),
        "calibration_error_by_chance": round(
            reliability.calibration_error_by_chance(probabilities, outcome, draws=draws), 4
        ),
    }
    if baseline is not None:
        other = metrics.ranking_draws(baseline, gain, resampling)
        numbers["apgr_of_ridge"] = round(metrics.apgr(baseline, gain), 4)
        gap = curve.apgr() - metrics.apgr(baseline, gain)
        numbers["gain_over_ridge"] = _rounded(metrics.interval(gap, drawn.apgr - other.apgr))
    return numbers


def _rounded(value: metrics.Interval) -> Mapping[str, float]:
    return {name: round(number, 4) for name, number in asdict(value).items()}
