"""The dial on one's own prompts: the alpha of a share of strong calls, and the quality that it promises.

No label is needed: where probabilities are calibrated, 2p − 1 is what the strong model wins more often than it loses
on a prompt, and its sum over the prompts is the gap that routing recovers a part of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dispatcher_service.routing import alpha_for_share
from training.metrics import Floats, Interval, Resampling, interval
from training.tables import DataError

FEWEST_PROMPTS = 20
"""Fewer say next to nothing about a quantile."""


@dataclass(frozen=True, slots=True)
class DialPoint:
    """One setting of the dial on these prompts.

    Attributes:
        strong_call_share: as asked for.
        alpha: that gives it; the interval is how far another sample of such prompts would move it.
        realised_share: of these prompts that are at or above alpha. Ties in the score make it differ.
        artifact_alpha: what the artefact's own reference prompts would set for the share.
        artifact_share: what that alpha gives on these prompts: where it is far from the share, these prompts are not
            like the reference ones.
        pgr: expected part of the gap that is recovered.
        net_loss: on how many prompts of all the strong model's answer would have been better, less those on which it
            would have been worse, where the weak one answers.
    """

    strong_call_share: float
    alpha: Interval
    realised_share: float
    artifact_alpha: float
    artifact_share: float
    pgr: Interval
    net_loss: Interval


def dial_points(
    probabilities: Floats, quantiles: Sequence[float], shares: Sequence[float], *, draws: int = 1000, seed: int = 0
) -> list[DialPoint]:
    """A point for each share.

    Intervals are 95 %, by bootstrap over the prompts. They take the probabilities for calibrated.

    Args:
        probabilities: win probabilities of the user's prompts.
        quantiles: the artefact's `score_quantiles`.
        shares: in [0, 1].
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        DataError: too few prompts.
    """
    if len(probabilities) < FEWEST_PROMPTS:
        raise DataError(f"{len(probabilities)} prompts are too few to set the dial by: give {FEWEST_PROMPTS} or more")
    ranked = np.sort(probabilities)
    resampling = Resampling(len(ranked), draws, seed)

    def numbers(counts: NDArray[np.int64]) -> Floats:
        return np.array([[_promise(np.repeat(ranked, row), share) for share in shares] for row in counts])

    drawn = resampling.statistics(numbers)  # [draws, shares, 3]
    points = []
    for place, share in enumerate(shares):
        found = [interval(value, drawn[:, place, column]) for column, value in enumerate(_promise(ranked, share))]
        artifact_alpha = alpha_for_share(quantiles, share)
        points.append(
            DialPoint(
                strong_call_share=share,
                alpha=found[0],
                realised_share=float(np.mean(ranked >= found[0].value)),
                artifact_alpha=artifact_alpha,
                artifact_share=float(np.mean(ranked >= artifact_alpha)),
                pgr=found[1],
                net_loss=found[2],
            )
        )
    return points


def _promise(ranked: Floats, share: float) -> tuple[float, float, float]:
    """Alpha, expected PGR (NaN without an expected gap) and expected net loss, of ascending probabilities."""
    # An array is a sequence in all that the rule asks of one.
    alpha = float(alpha_for_share(cast("Sequence[float]", ranked), share))
    advantage = 2.0 * ranked - 1.0
    gap, lost = advantage.sum(), advantage[ranked < alpha].sum()
    return alpha, float(1.0 - lost / gap) if gap > 0.0 else np.nan, float(lost / len(ranked))
