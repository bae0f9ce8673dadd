"""Fits one expert: kernel ridge regression on landmarks (Nyström), its penalty chosen by nested squared error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training import corpus
from training.routers.difficulty_kernel import Doubles, Floats, Machine

Rows = NDArray[np.int64]

TEXT_SHARPNESS = 4.0
PROFILE_SHARPNESS = 2.0
"""Squared distances are measured in mean squared distances between prompts; the kernels fall with these rates."""

PENALTIES = (3.0, 10.0, 30.0, 100.0)
"""Candidates. Around the best one the error is flat."""

SMOOTH_PENALTIES = (0.3, 1.0, 3.0, 10.0)
"""For targets without noise: another machine's scores."""

_NESTED_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Design:
    """Every prompt against the landmarks: what all fits of an expert share.

    Attributes:
        unfitted: the machine without its weights.
        kernel: [prompts, landmarks].
        between: the kernel among landmarks.
    """

    unfitted: Machine
    kernel: Doubles
    between: Doubles

    @classmethod
    def of(cls, features: Floats, profiles: Floats, traffic: Rows, *, landmarks: int, seed: int) -> "Design":
        """Choose landmarks and scales.

        Args:
            features, profiles: of all prompts, [prompts, …].
            traffic: the prompts that the expert is for: it standardises by them and takes its landmarks from them.
            landmarks: at most so many.
            seed: of their choice.
        """
        chosen = np.sort(np.random.default_rng(seed).permutation(traffic)[:landmarks])
        text_rate = np.float32(np.sqrt(TEXT_SHARPNESS / _mean_squared_distance(features[traffic])))
        mean, spread = profiles[traffic].mean(axis=0), profiles[traffic].std(axis=0)
        # Standardised profiles of k heads lie 2k apart in the mean.
        scale = np.sqrt(PROFILE_SHARPNESS / (2.0 * profiles.shape[1])) * (spread > 1e-9)
        rate = (scale / np.maximum(spread, 1e-9)).astype(np.float32)
        unfitted = Machine(
            landmarks=features[chosen] * text_rate,
            profiles=(profiles[chosen] - mean) * rate,
            text_rate=float(text_rate),
            profile_mean=mean,
            profile_rate=rate,
            weights=np.zeros(len(chosen)),
            bias=0.0,
        )
        between = unfitted.kernel(features[chosen], profiles[chosen]).astype(np.float64)
        return cls(unfitted, unfitted.kernel(features, profiles).astype(np.float64), between)

    def fit(self, rows: Rows, targets: Doubles, penalty: float, mass: Doubles | None = None) -> tuple[Doubles, float]:
        """Weights and bias from these rows.

        Args:
            rows: to learn from.
            targets: of these, [len(rows)].
            penalty: of the weights.
            mass: how much each row counts, of mean 1, [len(rows)]; `None` counts all alike.
        """
        return self._solve(*self._equations(rows, targets, mass), penalty), _level(targets, mass)

    def choose_penalty(
        self,
        rows: Rows,
        targets: Doubles,
        groups: Sequence[str],
        penalties: Sequence[float],
        mass: Doubles | None = None,
    ) -> float:
        """The candidate with the least squared error on held-out rows; rows of one group are held out together."""
        fold = corpus.folds(groups, _NESTED_FOLDS, seed=0)
        error = np.zeros(len(penalties))
        for held in range(_NESTED_FOLDS):
            seen = fold != held
            kept, left_out = (None, None) if mass is None else (mass[seen], mass[~seen])
            gram, aim = self._equations(rows[seen], targets[seen], kept)
            for place, penalty in enumerate(penalties):
                guess = self.kernel[rows[~seen]] @ self._solve(gram, aim, penalty) + _level(targets[seen], kept)
                squares = (guess - targets[~seen]) ** 2
                error[place] += (squares if left_out is None else left_out * squares).sum()
        return penalties[int(np.argmin(error))]

    def scores(self, weights: Doubles, bias: float) -> Doubles:
        """Of all prompts."""
        scores: Doubles = self.kernel @ weights + bias
        return scores

    def machine(self, weights: Doubles, bias: float) -> Machine:
        """The expert with these weights."""
        empty = self.unfitted
        return Machine(
            landmarks=empty.landmarks,
            profiles=empty.profiles,
            text_rate=empty.text_rate,
            profile_mean=empty.profile_mean,
            profile_rate=empty.profile_rate,
            weights=weights,
            bias=bias,
        )

    def _equations(self, rows: Rows, targets: Doubles, mass: Doubles | None) -> tuple[Doubles, Doubles]:
        """Both sides of the normal equations, without the penalty."""
        inputs = self.kernel[rows]
        weighted = inputs if mass is None else inputs * mass[:, None]
        return weighted.T @ inputs, weighted.T @ (targets - _level(targets, mass))

    def _solve(self, gram: Doubles, aim: Doubles, penalty: float) -> Doubles:
        # The small multiple of the identity keeps weights of near-duplicates from running away against each other.
        ridge = penalty * (self.between + 1e-3 * np.eye(len(aim)))
        weights: Doubles = np.linalg.solve(gram + ridge, aim).astype(np.float64)
        return weights


def _level(targets: Doubles, mass: Doubles | None) -> float:
    return float(np.average(targets, weights=mass))


def _mean_squared_distance(features: Floats) -> float:
    centred = features.astype(np.float64) - features.mean(axis=0)
    return float(2.0 * (centred**2).sum(axis=1).mean())
