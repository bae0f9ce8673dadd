"""Models to tiers, as RouteLLM does against sparse battles (section 4.1): contiguous groups of a ranking."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

PAPER_TIERS = 10


def tiers(ratings: ArrayLike, count: int = PAPER_TIERS) -> NDArray[np.int64]:
    """Split ratings into contiguous groups whose variances have the smallest sum.

    The variance is the population's, not weighted by the group's size, as in the paper's code: a lone model costs
    nothing, so that outliers get tiers of their own.

    Args:
        ratings: in any order and unit, [models].
        count: of tiers; with no more models than tiers, each has its own.

    Returns:
        The tier of each model, [models]; tier 0 has the highest ratings.
    """
    values = np.asarray(ratings, np.float64)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    models, count = len(ranked), min(count, len(ranked))
    variance = _variances(ranked)
    # Of the first `end` models, best[end] is the least cost in so many tiers, starts[tier, end] where the last begins.
    best = np.concatenate([[0.0], np.full(models, np.inf)])
    starts = np.zeros((count, models + 1), np.int64)
    for tier in range(count):
        costs = best[:-1, None] + variance  # [begin of the last tier, models up to its end − 1]
        starts[tier, 1:] = costs.argmin(axis=0)
        best = np.concatenate([[np.inf], costs.min(axis=0)])
    found = np.empty(models, np.int64)
    end = models
    for tier in reversed(range(count)):
        begin = int(starts[tier, end])
        found[order[begin:end]] = tier
        end = begin
    return found


def _variances(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of ranked[begin : end + 1] at [begin, end]; infinite where end < begin."""
    # Centred first: the difference of two large sums of squares would lose digits.
    centred = ranked - ranked.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    begin, end = np.ogrid[: len(ranked), : len(ranked)]
    size = end + 1 - begin
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums[end + 1] - sums[begin]) / size
        variance = (squares[end + 1] - squares[begin]) / size - mean**2
    return np.where(size > 0, np.maximum(variance, 0.0), np.inf)
