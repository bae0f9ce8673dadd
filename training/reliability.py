"""How far win probabilities can be believed: Brier skill, and equal-mass calibration error beside what chance gives.

Labels are 1 where the strong model's answer was better, 0 where it was worse and one half for a tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.metrics import Floats, Interval, Resampling, interval

BINS = 10
"""Groups of equal size in a reliability plot and in the calibration error."""


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference."""
    return float(np.mean((np.asarray(probabilities, np.float64) - np.asarray(labels, np.float64)) ** 2))


def brier_skill(probabilities: ArrayLike, labels: ArrayLike, resampling: Resampling | None = None) -> Interval:
    """1 − Brier / Brier of the base rate: above 0 if the probabilities say more than their labels' own mean.

    The base rate is that of the rows that are judged, which is the strictest constant there is. Without `resampling`
    the interval is the value. NaN if all labels are equal.
    """
    predicted, observed = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    everything = np.ones((1, len(observed)), np.int64)
    error = (predicted - observed) ** 2

    def skill(counts: NDArray[np.int64]) -> Floats:
        prompts = counts.sum(axis=1)
        base = counts @ observed**2 / prompts - (counts @ observed / prompts) ** 2
        ratio: Floats = np.divide(counts @ error / prompts, base, out=np.full_like(base, np.nan), where=base > 1e-12)
        return 1.0 - ratio

    value = float(skill(everything)[0])
    return interval(value, np.array([value]) if resampling is None else resampling.statistics(skill))


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability plot: one entry per bin of `BINS` or fewer, from the lowest probabilities to the highest.

    Attributes:
        predicted: mean probability, [bins].
        observed: mean label, [bins].
        prompts: in the bin, [bins].
    """

    predicted: Floats
    observed: Floats
    prompts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Equal-mass expected calibration error: mean over prompts of their bin's |predicted − observed|."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.prompts))


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Group prompts by probability into bins of (nearly) equal size.

    Prompts of equal probability cannot be told apart: where a bin's edge falls among them, each counts with their
    mean label, so that the result does not depend on the order of rows.
    """
    predicted = np.asarray(probabilities, np.float64)
    order, parts = _parts(predicted, bins)
    ranked = predicted[order]
    observed = _mean_of_ties(ranked, np.asarray(labels, np.float64)[order])
    return Reliability(
        np.array([ranked[part].mean() for part in parts]),
        np.array([observed[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def calibration_error_by_chance(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = BINS,
    draws: int = 1000,
    quantile: float = 0.95,
    seed: int = 0,
) -> float:
    """A quantile of the calibration error that perfectly calibrated probabilities show at this number of prompts.

    Labels are drawn with the given probabilities as their means and, as far as these allow, with the labels' share of
    ties: many ties make the error of chance smaller.
    """
    predicted = np.asarray(probabilities, np.float64)
    order, parts = _parts(predicted, bins)
    ranked = predicted[order]
    observed = np.asarray(labels, np.float64)
    ties = np.minimum(np.mean((observed > 0.0) & (observed < 1.0)), 2.0 * np.minimum(ranked, 1.0 - ranked))
    wins = ranked - ties / 2.0
    generator = np.random.default_rng(seed)
    starts = np.array([part[0] for part in parts])
    errors = np.empty(draws)
    for draw in range(draws):
        luck = generator.random(len(ranked))
        drawn = (luck < wins) + 0.5 * ((luck >= wins) & (luck < wins + ties))
        # Sum over a bin of (predicted − observed) = prompts × (means' difference).
        errors[draw] = np.abs(np.add.reduceat(ranked - _mean_of_ties(ranked, drawn), starts)).sum() / len(ranked)
    return float(np.quantile(errors, quantile))


def _parts(predicted: Floats, bins: int) -> tuple[NDArray[np.intp], Sequence[NDArray[np.int64]]]:
    """The order that sorts the probabilities, and the positions in it of each bin."""
    order = np.argsort(predicted, kind="stable")
    return order, np.array_split(np.arange(len(predicted)), min(bins, len(predicted)))


def _mean_of_ties(ranked: Floats, labels: Floats) -> Floats:
    """The labels, each replaced by the mean label of its probability; `ranked` ascends."""
    block = np.concatenate([[0], np.cumsum(np.diff(ranked) != 0.0)])
    means: Floats = (np.bincount(block, labels) / np.bincount(block))[block]
    return means
