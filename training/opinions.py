"""Opinions on logged answers, as labels of what the strong model adds: weighted by inverse propensity.

A log is no sample of the traffic. Which model answered follows from the win probability and alpha, and who says
something about an answer depends on what was answered. So records are first sorted into *strata* of like win
probability (Rosenbaum and Rubin 1984), within which it is taken to be chance which model answered and who spoke:

- alpha moves with the tenant's pace, whatever the prompt at hand is (exploration scavenging: Langford, Strehl and
  Wortman 2008); so it does where a caller brings its own alpha, an operator turns all calls to one side, money runs
  out, or the scorer is away. In the strata that this reaches both models answered, and their shares are the
  propensities: estimated from all records, those without an opinion too (Hirano, Imbens and Ridder 2003).
- where a threshold alone decided, one model answered everything, and ratings there say nothing of the other: such
  strata are left out and counted. Only a preference, which compares both answers, tells of them.
- in a sticky conversation or a tool loop an earlier turn chose the model, and that the answer depends on it too is
  certain: ratings of those are left out. So are those of fallbacks, where another model answered than was chosen.

A *preference* is a label as it is: 1, one half or 0. A *rating* r is of one answer. With e the share of the strong
model among a stratum's ratings and m_s, m_w their means, its label is the doubly robust pseudo-outcome (Dudík,
Langford and Li 2011; Kennedy 2020)

    y = 1/2 + 1/2 (m_s - m_w + [strong] (r - m_s)/e - [weak] (r - m_w)/(1 - e)),

whose mean over a stratum is P(strong is better) with a tie counting one half, if ratings are thumbs, and one half plus
half the mean difference of ratings otherwise. Single labels may lie outside [0, 1]. Each rating counts 4e(1 - e) as
much as a preference, since its label is that much less certain (overlap weights: Li, Morgan and Zaslavsky 2018).

The labels of a stratum together weigh as much as it has records: each stands for the silent ones beside it. Weights are
cut at `LARGEST_WEIGHT` times their mean. What no weight mends is an opinion that is given because of what it is: if
people speak up when they are angry, both models look worse than they are, and labels shrink towards one half.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

STRATA = 20
"""Of equal size, per group of records that were decided alike."""

_RECORDS_PER_STRATUM = 25
"""With fewer records there are fewer strata: shares of a handful say nothing."""

LEAST_SHARE = 0.05
"""A stratum where one model answered less of what was rated says nothing about that model."""

LARGEST_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Decided:
    """Records of a log, as far as opinions need them. All are [records].

    Attributes:
        group: a number; records of one group (a tenant, a scorer version) were decided by the same rule.
        win_probability: by which they were decided.
        strong: True where the strong model answered.
        by_chance: False where an earlier turn or a failure chose the model, so that it is not chance who answered.
        rating: of the answer, in [0, 1]; NaN without one.
        preference: 1 where the strong model's answer was liked better, one half for a tie, 0; NaN without one.
    """

    group: Rows
    win_probability: Floats
    strong: NDArray[np.bool_]
    by_chance: NDArray[np.bool_]
    rating: Floats
    preference: Floats


@dataclass(frozen=True, slots=True)
class Lessons:
    """Labels of some of the records.

    Attributes:
        rows: which records, ascending.
        labels: see the module; their weighted mean over many is P(strong is better). [rows].
        weights: of mean 1, [rows].
        one_sided: ratings left out because one model answered (nearly) all of their stratum.
        not_by_chance: ratings left out because an earlier turn or a failure chose the model.
        cut: weights that were cut.
    """

    rows: Rows
    labels: Floats
    weights: Floats
    one_sided: int
    not_by_chance: int
    cut: int

    @property
    def effective(self) -> float:
        """As many labels of equal weight say as much: (Σw)²/Σw² (Kish 1965)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum()) if len(self.weights) else 0.0


def strata(group: Rows, win_probability: Floats) -> Rows:
    """A stratum per record: up to `STRATA` of equal size in each group, by rank. [records], numbered from 0."""
    found = np.empty(len(group), np.int64)
    first = 0
    for each in np.unique(group):
        rows = np.flatnonzero(group == each)
        count = min(STRATA, max(1, len(rows) // _RECORDS_PER_STRATUM))
        # Equal probabilities stay together, at the place of the first of them.
        rank = np.searchsorted(np.sort(win_probability[rows]), win_probability[rows])
        found[rows] = first + rank * count // len(rows)
        first += count
    return found


def lessons(records: Decided) -> Lessons:
    """Make labels and weights of all opinions that say something."""
    stratum = strata(records.group, records.win_probability)
    labels = np.full(len(stratum), np.nan)
    precision = np.zeros(len(stratum))
    weights = np.zeros(len(stratum))
    compared = ~np.isnan(records.preference)
    rated = ~np.isnan(records.rating) & ~compared
    labels[compared], precision[compared] = records.preference[compared], 1.0
    one_sided = 0
    for each in np.unique(stratum[rated | compared]):
        members = stratum == each
        own = members & rated & records.by_chance
        if own.any():
            strong, rating = records.strong[own], records.rating[own]
            share = strong.mean()
            if LEAST_SHARE <= share <= 1.0 - LEAST_SHARE:
                labels[own] = pseudo_outcomes(rating, strong)
                precision[own] = 4.0 * share * (1.0 - share)
            else:
                one_sided += int(own.sum())
        total = precision[members].sum()
        if total > 0.0:
            weights[members] = precision[members] * members.sum() / total
    rows = np.flatnonzero(precision > 0.0)
    kept = weights[rows] / weights[rows].mean() if len(rows) else np.empty(0)
    cut = kept > LARGEST_WEIGHT
    kept = np.minimum(kept, LARGEST_WEIGHT)
    return Lessons(
        rows=rows,
        labels=labels[rows],
        weights=kept / kept.mean() if len(rows) else kept,
        one_sided=one_sided,
        not_by_chance=int((rated & ~records.by_chance).sum()),
        cut=int(cut.sum()),
    )


def pseudo_outcomes(rating: Floats, strong: NDArray[np.bool_]) -> Floats:
    """Labels of one stratum's ratings, both sides being there. [ratings]."""
    share = strong.mean()
    mean_strong, mean_weak = rating[strong].mean(), rating[~strong].mean()
    surprise = np.where(strong, (rating - mean_strong) / share, -(rating - mean_weak) / (1.0 - share))
    found: Floats = 0.5 + 0.5 * (mean_strong - mean_weak + surprise)
    return found
