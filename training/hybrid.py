"""Hybrid-LLM's labels (Ding et al., ICLR 2024) from quality scores of several sampled answers of both models.

Their router predicts how easy a prompt is: a label is high where the *small* model is good enough, q(S) ≥ q(L) − t.
The routers here learn 1 − 2·label, where high goes to the strong model.
"""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MOST_CANDIDATES = 512


class Kind(enum.Enum):
    """How a label is made; the values are those of `--kind`."""

    DETERMINISTIC = "deterministic"
    """1 if the first weak answer is as good as the first strong one."""
    PROBABILISTIC = "probabilistic"
    """How often a weak answer is as good as a strong one, over all pairs of samples."""
    TRANSFORMED = "transformed"
    """The same, where a weak answer may be worse by t*: for pairs so far apart that nearly every label is 0."""


@dataclass(frozen=True, slots=True)
class HybridLabels:
    """Labels of one kind: [prompts], in [0, 1], high where the weak model is good enough; t is 0 unless transformed."""

    labels: Floats
    t: float


def labels(strong: ArrayLike, weak: ArrayLike, kind: Kind) -> HybridLabels:
    """Label prompts.

    Args:
        strong: quality of each sampled answer of the strong model, [prompts, samples].
        weak: likewise; the number of samples may differ.
        kind: of label.
    """
    q_strong, q_weak = np.asarray(strong, np.float64), np.asarray(weak, np.float64)
    if kind is Kind.DETERMINISTIC:
        return HybridLabels((q_weak[:, 0] >= q_strong[:, 0]).astype(np.float64), 0.0)
    # behind[i, pair]: by how much a weak answer is worse than a strong one; label = share of pairs with behind <= t.
    behind = np.sort((q_strong[:, :, None] - q_weak[:, None, :]).reshape(len(q_strong), -1), axis=1)
    t = best_t(behind) if kind is Kind.TRANSFORMED else 0.0
    return HybridLabels(_within(behind, t), t)


def best_t(behind: Floats) -> float:
    """t*: the slack that spreads the labels most, by the mean of |y_i − y_j| over all pairs of prompts.

    Labels change only where t passes one of the differences, so that these and 0 are all there is to try; of many, a
    few hundred quantiles are. The smallest of equally good ones is taken.

    Args:
        behind: differences q(L) − q(S) over pairs of samples, [prompts, pairs], ascending in each row.
    """
    candidates = np.unique(np.concatenate([[0.0], behind[behind > 0.0]]))
    if len(candidates) > _MOST_CANDIDATES:
        levels = np.linspace(0.0, 1.0, _MOST_CANDIDATES)
        candidates = np.unique(np.quantile(candidates, levels, method="inverted_cdf"))
    spread = [mean_pairwise_difference(_within(behind, t)) for t in candidates]
    return float(candidates[int(np.argmax(spread))])


def mean_pairwise_difference(values: ArrayLike) -> float:
    """Mean of |y_i − y_j| over all N² ordered pairs, in N log N steps."""
    ranked = np.sort(np.asarray(values, np.float64))
    count = len(ranked)
    # In ascending order, value k is the larger one of k pairs and the smaller one of count − 1 − k.
    return float(2.0 * (ranked @ (2.0 * np.arange(count) - (count - 1))) / count**2)


def _within(behind: Floats, t: float) -> Floats:
    share: Floats = np.mean(behind <= t, axis=1)
    return share
