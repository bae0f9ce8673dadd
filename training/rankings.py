"""One router's order of the prompts, measured with intervals, and two of them compared."""

from dataclasses import dataclass

import numpy as np

from training import metrics
from training.metrics import CPT_LEVELS, SHARES, Floats, Interval, RankingDraws, Resampling, interval

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens, input and output mixed as the traffic mixes them."""

    strong: float
    weak: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a router orders the prompts. Intervals are 95 %, by bootstrap over prompts.

    Attributes:
        name: of the router.
        apgr: average PGR; one half is random.
        cpt: strong-call share at each of `CPT_LEVELS`.
        saved: cost saved at each of `CPT_LEVELS` beside random routing of the same quality.
        pgr: at each of `SHARES`.
        draws: the bootstrap's, to compare rankings in pairs; `None` for the random order.
    """

    name: str
    apgr: Interval
    cpt: tuple[Interval, ...]
    saved: tuple[Interval, ...]
    pgr: tuple[Interval, ...]
    draws: RankingDraws | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rankings of the same prompts: `first` less `second`, by paired bootstrap."""

    first: str
    second: str
    apgr: Interval
    cpt80: Interval
    """Negative where the first needs fewer strong calls."""


def measure(name: str, scores: Floats, gain: Floats, resampling: Resampling, prices: Prices) -> Ranking:
    """Measure a router's scores against what the strong model adds; both [prompts].

    Raises:
        NoGapError: the strong model adds nothing on average.
    """
    curve = metrics.pgr_curve(scores, gain)
    drawn = metrics.ranking_draws(scores, gain, resampling)
    cpt = [curve.cpt(level) for level in CPT_LEVELS]
    return Ranking(
        name,
        interval(curve.apgr(), drawn.apgr),
        tuple(interval(value, drawn.cpt[:, column]) for column, value in enumerate(cpt)),
        tuple(
            interval(float(_saved(value, level, prices)), _saved(drawn.cpt[:, column], level, prices))
            for column, (value, level) in enumerate(zip(cpt, CPT_LEVELS, strict=True))
        ),
        tuple(interval(float(value), drawn.pgr[:, place]) for place, value in enumerate(curve.at(SHARES))),
        drawn,
    )


def of_random_order(gain: Floats, prices: Prices, seed: int) -> Ranking:
    """Mean of `RANDOM_RUNS` runs; the interval is where 95 % of single runs fall, by their standard deviation."""
    curves = [metrics.pgr_curve(scores, gain) for scores in metrics.random_scores(len(gain), seed=seed)]

    def spread(values: Floats) -> Interval:
        mean, width = float(values.mean()), 1.96 * float(values.std(ddof=1))
        return Interval(mean, mean - width, mean + width)

    def share(values: Floats) -> Interval:
        found = spread(values)
        return Interval(found.value, max(0.0, found.low), min(1.0, found.high))

    cpt = np.array([[curve.cpt(level) for level in CPT_LEVELS] for curve in curves])
    pgr = np.array([curve.at(SHARES) for curve in curves])
    return Ranking(
        RANDOM,
        spread(np.array([curve.apgr() for curve in curves])),
        tuple(share(column) for column in cpt.T),
        tuple(spread(_saved(column, level, prices)) for column, level in zip(cpt.T, CPT_LEVELS, strict=True)),
        tuple(spread(column) for column in pgr.T),
        None,
    )


def _saved(cpt: float | Floats, level: float, prices: Prices) -> Floats:
    return metrics.cost_saved(cpt, level, strong_price=prices.strong, weak_price=prices.weak)


def compare(first: Ranking, second: Ranking) -> Comparison:
    """Compare two rankings that were measured on the same resamples."""
    assert first.draws is not None
    assert second.draws is not None
    last = len(CPT_LEVELS) - 1
    return Comparison(
        first.name,
        second.name,
        interval(first.apgr.value - second.apgr.value, first.draws.apgr - second.draws.apgr),
        interval(first.cpt[last].value - second.cpt[last].value, first.draws.cpt[:, last] - second.draws.cpt[:, last]),
    )
