"""Bradley-Terry strengths from battles: P(i beats j) = 1 / (1 + exp(s_j − s_i)); a tie is half a win for each side.

Battles come as a matrix of wins first: the likelihood depends on nothing else, so that a fit costs as much for fifty
thousand battles as for fifty.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]

ELO_SCALE = 400.0 / np.log(10.0)
"""Elo points per unit of log strength: 400 points are odds of ten to one."""

_MOST_STEPS = 100
_CLOSE = 1e-10
_LONGEST_STEP = 2.0
"""Of one Newton step in a strength: the likelihood is not quadratic far from its top."""


class NotComparableError(ValueError):
    """Some models never beat, or never lose to, the others, directly or through others: their gap has no bound."""


def fit(wins: ArrayLike, *, prior: float = 0.0) -> Floats:
    """The most likely log strengths, of mean 0: [models].

    Args:
        wins: of row over column, [models, models], not negative; the diagonal says nothing.
        prior: ties of each model with an imagined one of strength 0. With any at all every table has an answer;
            with none, `NotComparableError` may come.

    Raises:
        NotComparableError: without a prior, the likelihood has no top.
    """
    table = np.array(wins, np.float64)
    np.fill_diagonal(table, 0.0)
    models = len(table)
    if prior == 0.0 and connected_components(table > 0.0, connection="strong")[0] > 1:
        raise NotComparableError(
            "some models won or lost every battle against the rest, so that their strengths have no bound: "
            "leave them out, or give a prior"
        )
    won = table.sum(axis=1) + prior / 2.0
    games = table + table.T
    strengths = np.zeros(models)
    for _ in range(_MOST_STEPS):
        expected = 1.0 / (1.0 + np.exp(strengths - strengths[:, None]))
        imagined = 1.0 / (1.0 + np.exp(-strengths))
        gradient = won - (games * expected).sum(axis=1) - prior * imagined
        information = games * expected * (1.0 - expected)
        hessian = np.diag(information.sum(axis=1) + prior * imagined * (1.0 - imagined)) - information
        # Adding a constant to all strengths changes no real battle: the added ones pin their mean instead.
        step = np.linalg.solve(hessian + 1.0 / models, gradient)
        strengths += step * min(1.0, _LONGEST_STEP / max(np.abs(step).max(), _CLOSE))
        strengths -= strengths.mean() if prior == 0.0 else 0.0
        if np.abs(step).max() < _CLOSE:
            break
    centred: Floats = strengths - strengths.mean()
    return centred


def win_probability(strength: ArrayLike, other: ArrayLike) -> Floats:
    """P(a model of log strength `strength` beats one of `other`), a tie counting one half."""
    probability: Floats = 1.0 / (1.0 + np.exp(np.asarray(other, np.float64) - np.asarray(strength, np.float64)))
    return probability
