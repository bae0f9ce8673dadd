"""Which of several candidates gain beyond doubt: one test of all of them together (Westfall and Young's max-T).

If a candidate were no better than what it is compared with, the sign of each difference would be a coin's. Flipping all
coins tells how large the largest of the candidates' test statistics gets by chance; what is larger is clear. So a best
one of many is not believed for having been tried, and neither is one that differs on a handful of prompts.
"""

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats

_DRAWS = 4000
_BLOCK = 250


def clear(differences: Floats, *, confidence: float, seed: int = 0) -> NDArray[np.bool_]:
    """Whether each candidate's mean gain is clear, [candidates].

    Args:
        differences: what a candidate gains on a prompt, [prompts, candidates].
        confidence: that none is called clear where none gains anything, in (0, 1).
        seed: of the coins.
    """
    told = differences[np.any(differences != 0.0, axis=1)]
    size = np.sqrt((told**2).sum(axis=0))
    found = np.zeros(differences.shape[1], bool)
    differing = np.flatnonzero(size > 0.0)
    if not len(differing):
        return found
    scaled = (told[:, differing] / size[differing]).astype(np.float32)
    random = np.random.default_rng(seed)
    largest = [
        (random.integers(0, 2, (_BLOCK, len(scaled)), np.int8).astype(np.float32) * 2 - 1) @ scaled
        for _ in range(_DRAWS // _BLOCK)
    ]
    bound = np.quantile(np.concatenate(largest).max(axis=1), confidence)
    found[differing] = scaled.sum(axis=0) > bound
    return found
