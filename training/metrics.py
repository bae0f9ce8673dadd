"""How well scores rank prompts: PGR, APGR and CPT of RouteLLM (section 3.3), with bootstrap intervals and baselines.

A ranking is judged by two arrays of one entry per prompt: `scores`, where higher goes strong first, and `gain`, the
quality of the strong model's answer less that of the weak one's, in any unit. Prompts with equal scores cannot be told
apart, so they form one block whose gain comes in evenly. A gap that is not positive leaves nothing to recover: single
numbers then raise, and bootstrap draws are NaN.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SHARES: Floats = np.linspace(0.0, 1.0, 11)
"""The strong-call shares at which the paper averages PGR."""

CPT_LEVELS = (0.2, 0.5, 0.8)
"""The parts of the gap whose price in strong calls is reported."""

RANDOM_RUNS = 10

_CELLS = 4_000_000
"""Resampled prompts that are held in memory at once: some 100 MB."""


class NoGapError(ValueError):
    """The strong model is not better than the weak one on these prompts, so that PGR has no meaning."""


@dataclass(frozen=True, slots=True)
class PgrCurve:
    """Part of the quality gap that is recovered, over the share of strong calls.

    Attributes:
        shares: of strong calls at the end of each tie block, [points], from 0 to 1, ascending.
        pgr: performance gap recovered there, [points], from 0 to 1; in between neither monotone nor bounded.
    """

    shares: Floats
    pgr: Floats

    def at(self, shares: ArrayLike) -> Floats:
        """PGR at these shares, linear inside a tie block."""
        recovered: Floats = np.interp(np.asarray(shares, np.float64), self.shares, self.pgr)
        return recovered

    def apgr(self) -> float:
        """Mean of PGR over the share: `SHARES` by the trapezoid rule. One half is what a random order gives."""
        return float(np.trapezoid(self.at(SHARES), SHARES))

    def cpt(self, level: float) -> float:
        """Call-performance threshold: the smallest share of strong calls that recovers `level` of the gap.

        Args:
            level: in [0, 1]; 0.5 is the paper's CPT(50 %).
        """
        if level <= 0.0:
            return 0.0
        # The first crossing, where the curve may fall again later.
        after = int(np.argmax(self.pgr >= level))
        before = after - 1
        part = (level - self.pgr[before]) / (self.pgr[after] - self.pgr[before])
        return float(self.shares[before] + part * (self.shares[after] - self.shares[before]))


def pgr_curve(scores: ArrayLike, gain: ArrayLike, weights: ArrayLike | None = None) -> PgrCurve:
    """The curve of a ranking.

    Args:
        scores, gain: see the module.
        weights: how many prompts each one stands for, above 0; `None` counts all alike.

    Raises:
        NoGapError: the gains do not sum to more than 0.
        ValueError: no prompt, arrays of different lengths, or a number that is not finite.
    """
    ranked, order, ends = _blocks(_vector(scores))
    gains = _vector(gain)
    mass = np.ones(len(ranked)) if weights is None else _vector(weights)
    if not len(gains) == len(mass) == len(ranked):
        raise ValueError(f"{len(ranked)} scores and {len(gains)} gains: give one of each per prompt, and so of weights")
    gains = gains * mass
    total = gains.sum()
    if total <= 0.0:
        raise NoGapError("the strong model's answers are not better on average: there is no gap to recover")
    recovered = np.concatenate([[0.0], np.cumsum(gains[order])])[ends]
    # The last cumulated sum may differ from the total in its last digit; the whole gap is the whole gap.
    recovered[-1] = total
    calls = np.concatenate([[0.0], np.cumsum(mass[order])])[ends]
    return PgrCurve(calls / calls[-1], recovered / total)


def apgr(scores: ArrayLike, gain: ArrayLike) -> float:
    """`pgr_curve(scores, gain).apgr()`."""
    return pgr_curve(scores, gain).apgr()


@dataclass(frozen=True, slots=True)
class Resampling:
    """Bootstrap resamples of `prompts` rows: equal values give equal resamples, so that two rankings can be paired.

    Attributes:
        prompts: rows of the sample.
        draws: number of resamples.
        seed: of the draws.
        groups: a number per row; rows of one group, such as questions about one passage or battles on one prompt, tell
            less than as many independent ones, and are drawn together. `None`: every row is its own.
        weights: how many rows each one stands for where it is drawn; `None` counts all alike.
    """

    prompts: int
    draws: int = 1000
    seed: int = 0
    groups: NDArray[np.int64] | None = field(default=None, compare=False)
    weights: Floats | None = field(default=None, compare=False)

    def counts(self) -> Iterator[NDArray[Any]]:
        """How much each row counts in each resample: blocks of [some draws, prompts], `draws` in all."""
        generator = np.random.default_rng(self.seed)
        block = max(1, _CELLS // self.prompts)
        units = self.prompts if self.groups is None else int(self.groups.max()) + 1
        for start in range(0, self.draws, block):
            size = min(block, self.draws - start)
            drawn = generator.integers(0, units, size=(size, units))
            flat = (drawn + np.arange(size)[:, None] * units).ravel()
            counts = np.bincount(flat, minlength=size * units).reshape(size, units)
            rows = counts if self.groups is None else counts[:, self.groups]
            yield rows if self.weights is None else rows * self.weights

    def statistics(self, statistic: Callable[[NDArray[Any]], Floats]) -> Floats:
        """A statistic of every resample, from its counts per row: concatenated along the first axis."""
        return np.concatenate([statistic(counts) for counts in self.counts()])


@dataclass(frozen=True, slots=True)
class RankingDraws:
    """A ranking's numbers on every resample. Draws of one `Resampling` belong together pairwise.

    Attributes:
        apgr: [draws].
        cpt: [draws, levels].
        pgr: at `SHARES`, [draws, 11].
    """

    apgr: Floats
    cpt: Floats
    pgr: Floats


def ranking_draws(
    scores: ArrayLike, gain: ArrayLike, resampling: Resampling, levels: Sequence[float] = CPT_LEVELS
) -> RankingDraws:
    """PGR, APGR and CPT on every resample; NaN where a resample has no positive gap.

    Raises:
        ValueError: the arrays are not of `resampling.prompts` finite numbers.
    """
    ranked, order, ends = _blocks(_vector(scores))
    gains = _vector(gain)
    if not len(ranked) == len(gains) == resampling.prompts:
        raise ValueError(f"{len(ranked)} scores and {len(gains)} gains for resamples of {resampling.prompts} prompts")

    def numbers(counts: NDArray[Any]) -> Floats:
        sorted_counts = counts[:, order]
        calls = _cumulated(sorted_counts, ends)
        shares = calls / calls[:, -1:]
        gap = _cumulated(sorted_counts * gains[order], ends)
        total = gap[:, -1:]
        pgr = np.divide(gap, total, out=np.full_like(gap, np.nan), where=total > 0.0)
        curve = _interpolate(shares, pgr, SHARES)
        average = np.trapezoid(curve, SHARES, axis=1)
        crossings = [_first_crossing(shares, pgr, level) for level in levels]
        return np.column_stack([average, *crossings, curve])

    drawn = resampling.statistics(numbers)
    return RankingDraws(drawn[:, 0], drawn[:, 1 : 1 + len(levels)], drawn[:, 1 + len(levels) :])


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with its 95 % interval; both ends are NaN if no draw was defined."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """True if the whole interval is above 0."""
        return self.low > 0.0


def interval(value: float, draws: Floats) -> Interval:
    """The percentile interval of a value from its bootstrap draws; draws that are NaN are left out."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def random_scores(prompts: int, *, runs: int = RANDOM_RUNS, seed: int = 0) -> Floats:
    """Uniform scores of the random baseline, [runs, prompts]."""
    return np.random.default_rng(seed).random((runs, prompts))


def length_scores(prompts: Sequence[str]) -> Floats:
    """The prompt-length baseline: the longest goes strong first. Characters, [prompts]."""
    return np.array([len(prompt) for prompt in prompts], np.float64)


def oracle_scores(gain: ArrayLike) -> Floats:
    """Scores of a router that knows the answers: no ranking recovers more at any share."""
    return _vector(gain)


def cost_of_share(strong_call_share: ArrayLike, *, strong_price: float, weak_price: float) -> Floats:
    """Cost at a share of strong calls, as a part of the cost of sending every call strong.

    Args:
        strong_call_share: in [0, 1].
        strong_price: of the same call at the strong model, in any unit.
        weak_price: likewise; calls of both tiers are taken to be of the same size.
    """
    share = np.asarray(strong_call_share, np.float64)
    cost: Floats = (share * strong_price + (1.0 - share) * weak_price) / strong_price
    return cost


def cost_saved(cpt: ArrayLike, level: float, *, strong_price: float, weak_price: float) -> Floats:
    """What a router saves beside random routing of the same quality, as a part of the latter's cost.

    Random routing recovers `level` of the gap with that share of strong calls, the router with `cpt`.
    """
    router = cost_of_share(cpt, strong_price=strong_price, weak_price=weak_price)
    saved: Floats = 1.0 - router / cost_of_share(level, strong_price=strong_price, weak_price=weak_price)
    return saved


def _vector(values: ArrayLike) -> Floats:
    vector = np.asarray(values, np.float64)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError("scores and gains must be lists of finite numbers, one per prompt, and not empty")
    return vector


def _blocks(scores: Floats) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Scores from high to low, the order that sorts them, and the prompts before each tie block and after the last."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1, [len(ranked)]])
    return ranked, order, ends


def _cumulated(values: NDArray[Any], ends: NDArray[np.intp]) -> Floats:
    """Running sums of [draws, prompts] at the block ends: [draws, blocks + 1], from 0."""
    sums = np.zeros((len(values), len(ends)))
    sums[:, 1:] = np.cumsum(values, axis=1, dtype=np.float64)[:, ends[1:] - 1]
    return sums


def _interpolate(shares: Floats, pgr: Floats, targets: Floats) -> Floats:
    """Row by row, `pgr` where `shares` reaches each target: [draws, targets]."""
    draws, points = shares.shape
    # One search over all rows: a row's shares run from 0 to 1, so that an offset of 2 keeps rows apart.
    offset = 2.0 * np.arange(draws)[:, None]
    after = np.searchsorted((shares + offset).ravel(), (targets + offset).ravel()).reshape(draws, -1)
    after = np.minimum(after - np.arange(draws)[:, None] * points, points - 1)
    return _between(shares, pgr, after, targets[None, :])


def _between(x: Floats, y: Floats, after: NDArray[np.intp], targets: Floats) -> Floats:
    """`y` at `targets`, on the line that ends at the index `after` of x; x rises strictly there, or `after` is 0."""
    before = np.maximum(after - 1, 0)
    left, right = np.take_along_axis(x, before, 1), np.take_along_axis(x, after, 1)
    low, high = np.take_along_axis(y, before, 1), np.take_along_axis(y, after, 1)
    step = right - left
    part = np.divide(targets - left, step, out=np.zeros_like(step), where=step > 0.0)
    value: Floats = low + part * (high - low)
    return value


def _first_crossing(shares: Floats, pgr: Floats, level: float) -> Floats:
    """Row by row, the share at which `pgr` first reaches the level: [draws]; NaN where it is NaN."""
    after = np.argmax(pgr >= level, axis=1)[:, None]
    crossing = _between(pgr, shares, after, np.full((len(shares), 1), level))[:, 0]
    return np.where(np.isnan(pgr[:, -1]), np.nan, crossing)
