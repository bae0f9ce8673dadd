"""Token ids of many prompts, end to end in one array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Prompts of different lengths without padding. No prompt is empty.

    Attributes:
        ids: [tokens] all prompts' ids, one prompt after the other.
        starts: [prompts] where each prompt begins in `ids`.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenRows":
        """Join lists of ids.

        Raises:
            ValueError: a list is empty.
        """
        lengths = np.array([len(row) for row in rows], np.int64)
        if not lengths.all():
            raise ValueError(f"row {int(np.argmin(lengths))} has no tokens")
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64))

    @property
    def ends(self) -> NDArray[np.int64]:
        """[prompts] one past each prompt's last token."""
        return np.append(self.starts[1:], len(self.ids))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[prompts] tokens per prompt."""
        return self.ends - self.starts

    def sum(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum a value per token over each prompt: [tokens, width] -> [prompts, width]."""
        return np.add.reduceat(values, self.starts, axis=0)

    def spread(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give each token its prompt's value: [prompts] -> [tokens]."""
        return np.repeat(values, self.lengths)

    def blocks(self, prompts: int) -> "list[TokenRows]":
        """Cut into pieces of at most so many prompts, to bound memory."""
        pieces = []
        for first in range(0, len(self.starts), prompts):
            starts = self.starts[first : first + prompts]
            end = self.ends[min(first + prompts, len(self.starts)) - 1]
            pieces.append(TokenRows(self.ids[starts[0] : end], starts - starts[0]))
        return pieces
