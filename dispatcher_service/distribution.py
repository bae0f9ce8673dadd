"""What a tenant's win probabilities look like: a decayed histogram, as a value.

Percentile-space pacing needs an estimate F of a tenant's score distribution. How good it is decides how much quality
is kept, never whether a target is held (see pacing.py), so that a fixed grid is enough.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Self

BINS = 512
"""Equal bins over [0, 1]. Tie-half probabilities crowd in a band of some .06: that still is 30 bins."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram of win probabilities. Inside a bin the mass is taken as uniform, so that F is continuous.

    `weights` holds `BINS` non-negative numbers, at least one positive. Weights of several replicas or periods add.
    """

    weights: tuple[float, ...]
    _edges: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.weights) != BINS:
            raise ValueError(f"a distribution has {BINS} weights, not {len(self.weights)}")
        sums = list(accumulate(self.weights, initial=0.0))
        if not sums[-1] > 0:
            raise ValueError("a distribution needs some weight")
        # Dividing by the very last sum makes every edge above the support exactly 1.
        object.__setattr__(self, "_edges", tuple(total / sums[-1] for total in sums))

    @classmethod
    def seeded(cls, quantiles: Sequence[float], *, weight: float) -> Self:
        """The distribution that quantiles describe.

        Args:
            quantiles: at n >= 2 evenly spaced levels 0, 1/(n-1), …, 1, ascending, in [0, 1].
            weight: how many observations it stands for.
        """
        weights = [0.0] * BINS
        mass = weight / (len(quantiles) - 1)
        for low, high in pairwise(quantiles):
            _spread(weights, low, high, mass)
        return cls(tuple(weights))

    def cumulative(self, win_probability: float) -> float:
        """F: the fraction of calls expected below `win_probability`."""
        position = win_probability * BINS
        index = min(max(int(position), 0), BINS - 1)
        below, above = self._edges[index], self._edges[index + 1]
        return below + (position - index) * (above - below)

    def quantile(self, level: float) -> float:
        """`inf{s : F(s) >= level}` for a level in (0, 1]; 0 for a level at or below 0."""
        if level <= 0:
            return 0.0
        index = bisect_left(self._edges, level)  # edges[index - 1] < level <= edges[index]
        below, above = self._edges[index - 1], self._edges[index]
        return min((index - 1 + (level - below) / (above - below)) / BINS, 1.0)

    def observed(self, win_probabilities: Sequence[float], *, memory: float) -> "Distribution":
        """With some more calls in it. Each fades all earlier ones by `1 - 1/memory`: the weight tends to `memory`."""
        fade = (1.0 - 1.0 / memory) ** len(win_probabilities)
        weights = [weight * fade for weight in self.weights]
        for win_probability in win_probabilities:
            weights[min(int(win_probability * BINS), BINS - 1)] += 1.0
        return Distribution(tuple(weights))

    def merged(self, other: "Distribution") -> "Distribution":
        """Both together."""
        return Distribution(tuple(mine + theirs for mine, theirs in zip(self.weights, other.weights, strict=True)))

    def carried_over(self, old: Sequence[float], new: Sequence[float], *, weight: float) -> "Distribution":
        """This tenant's distribution under a new scorer version, before it has scored a single call of the tenant.

        A tenant's prompts are easier or harder than the reference prompts that artefacts publish quantiles of. A prompt
        that stood at some percentile of the old version's reference is expected at that percentile of the new one's, so
        that the tenant's share does not jump.

        Args:
            old, new: reference quantiles of the two versions, as for `seeded`.
            weight: how many observations the result stands for.
        """
        reference = Distribution.seeded(old, weight=1.0)
        target = Distribution.seeded(new, weight=1.0)
        steps = len(new) - 1
        levels = (reference.cumulative(self.quantile(step / steps)) for step in range(steps + 1))
        return Distribution.seeded([target.quantile(level) for level in levels], weight=weight)


def _spread(weights: list[float], low: float, high: float, mass: float) -> None:
    """Add `mass`, uniform over [low, high], to the bins."""
    first, last = min(int(low * BINS), BINS - 1), min(int(high * BINS), BINS - 1)
    if first == last:
        weights[first] += mass
        return
    density = mass / (high - low)
    for index in range(first, last + 1):
        overlap = min(high, (index + 1) / BINS) - max(low, index / BINS)
        weights[index] += density * overlap
