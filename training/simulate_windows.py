"""A replay summed up window by window."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher_service.budget import Period, window_at
from training.simulate_plans import Replay, Result
from training.streams import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSummary:
    """One window of a replay.

    Attributes:
        start: of its first call, in seconds since the epoch; for a budget window its own start.
        calls: in it, refused ones included.
        strong: how many got the strongest model's answer.
        climbed: sum of x (see `pacing`) over the answers given; of two models, the same number.
        cost: nano-USD.
        degraded, refused: calls that did not fit the limits.
        alpha: the lowest and the highest in force; `None` without free calls.
        gain: how many more answers are better than worse, beside all weak: of two models the sum over strong calls of
            2·win_probability - 1. Over calls that a threshold decided.
        best_gain: the same for the choices that are best in hindsight at the same sum of x: of two models, the
            threshold that sends as many calls strong.
        quality: sum over the answers given; `None` where nothing is known of them.
    """

    start: float
    calls: int
    strong: int
    climbed: float
    cost: int
    degraded: int
    refused: int
    alpha: tuple[float, float] | None
    gain: float
    best_gain: float
    quality: float | None = None

    @property
    def mean_quality(self) -> float | None:
        """Of the calls that were answered."""
        return None if self.quality is None else self.quality / max(self.calls - self.refused, 1)

    @property
    def share(self) -> float:
        """The mean of x over the calls that were answered: of two models, how many of them went strong."""
        return self.climbed / max(self.calls - self.refused, 1)


def by_calls(replay: Replay, length: int) -> list[WindowSummary]:
    """Windows of `length` calls each; a shorter rest at the end is left out, unless it is all there is."""
    results = replay.results
    ends = range(length, len(results) + 1, length) or range(len(results), len(results) + 1)
    return [_summary(results[max(end - length, 0) : end]) for end in ends]


def by_period(replay: Replay, period: Period) -> list[WindowSummary]:
    """The budget windows of a period that hold calls."""
    found = itertools.groupby(replay.results, key=lambda result: window_at(period, result.call.at))
    return [_summary(tuple(results), start=window.start) for window, results in found]


def total(windows: Iterable[WindowSummary]) -> WindowSummary:
    """Several windows as one."""
    all_ = list(windows)
    ranges = [window.alpha for window in all_ if window.alpha is not None]
    return WindowSummary(
        start=all_[0].start,
        calls=sum(window.calls for window in all_),
        strong=sum(window.strong for window in all_),
        climbed=sum(window.climbed for window in all_),
        cost=sum(window.cost for window in all_),
        degraded=sum(window.degraded for window in all_),
        refused=sum(window.refused for window in all_),
        alpha=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
        gain=sum(window.gain for window in all_),
        best_gain=sum(window.best_gain for window in all_),
        quality=_sum(window.quality for window in all_),
    )


def _summary(results: Sequence[Result], start: float | None = None) -> WindowSummary:
    free = [result for result in results if result.free]
    alphas = [result.alpha for result in free if result.alpha is not None]
    return WindowSummary(
        start=results[0].call.at if start is None else start,
        calls=len(results),
        strong=sum(result.strong for result in results),
        climbed=sum(result.x for result in results),
        cost=sum(result.cost for result in results),
        degraded=sum(result.degraded for result in results),
        refused=sum(result.rung is None for result in results),
        alpha=(min(alphas), max(alphas)) if alphas else None,
        gain=sum(_gain(result.call, result.rung) for result in free if result.rung is not None),
        best_gain=_best_gain([result.call for result in free], sum(result.x for result in free)),
        quality=_sum(result.quality for result in results),
    )


def _sum(qualities: Iterable[float | None]) -> float | None:
    """Of those that are known; `None` if none is."""
    known = [quality for quality in qualities if quality is not None]
    return sum(known) if known else None


def _gain(call: Call, rung: int) -> float:
    """How much more often a model's answer is better than the cheapest candidate's than it is worse."""
    candidates = call.candidates
    if candidates is None or rung not in candidates.rungs:
        return 0.0
    return 2 * (candidates.beaten[0] - candidates.beaten[candidates.rungs.index(rung)])


def _best_gain(calls: Sequence[Call], climbed: float) -> float:
    """The most that calls can gain in all at this sum of x: steps up, the most gainful first, the last one in part."""
    gained = 0.0
    for gain, x in sorted((step for call in calls for step in _steps(call)), key=lambda step: -step[0] / step[1]):
        taken = min(x, climbed)
        gained += gain * taken / x
        climbed -= taken
        if climbed <= 0.0:
            break
    return gained


def _steps(call: Call) -> list[tuple[float, float]]:
    """(gain, x) of each step from the cheapest model up to the strongest that a sensible choice may stop at.

    Each gains less per x than the one before: a model that does not is passed over (the upper hull).
    """
    assert call.candidates is not None
    hull = [(0.0, 0.0)]
    for x, gain in sorted((call.x(rung), _gain(call, rung)) for rung in call.candidates.rungs[1:]):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], (x, gain)):
            hull.pop()
        if x > hull[-1][0]:
            hull.append((x, gain))
    return [(after[1] - before[1], after[0] - before[0]) for before, after in itertools.pairwise(hull)]


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-12)
