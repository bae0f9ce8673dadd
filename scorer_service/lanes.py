"""Two queues in front of one scorer, so that long texts wait for each other only.

A text as long as the window of the shipped artefact allows costs the tokenizer half a second, five thousand times a
common one.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic

from scorer_service.batching import Batcher, Observer, Result, Work

LONG_TEXT: Final = 16_384
"""Characters from which a piece of work waits in the lane of the long ones. Tokenising this many takes 5 to 25 ms."""

_GIVE_WAY: Final[Callable[[], object]] = getattr(os, "sched_yield", bool)
"""Of no use where there is none, as on macOS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """`max_queue` and `max_long_queue` bound the two lanes, in pieces of work; the rest is as for `Batcher`."""

    max_queue: int
    max_long_queue: int
    max_batch: int
    batch_wait: float


class Lanes(Generic[Work, Result]):
    """The two queues, each with a worker of its own."""

    def __init__(
        self, run: Callable[[Sequence[Work]], Sequence[Result]], *, limits: LaneLimits, observer: Observer
    ) -> None:
        """`run` and `observer` as for `Batcher`."""
        self._common = Batcher(
            run,
            max_queue=limits.max_queue,
            max_batch=limits.max_batch,
            wait_seconds=limits.batch_wait,
            observer=observer,
            give_way=_GIVE_WAY,
        )
        # One at a time: between two of them it is seen whether anybody still waits.
        self._long = Batcher(run, max_queue=limits.max_long_queue, max_batch=1, wait_seconds=0, observer=observer)

    def of(self, characters: int) -> Batcher[Work, Result]:
        """Where work with so much text waits."""
        return self._long if characters >= LONG_TEXT else self._common

    def depth(self) -> int:
        """Pieces of work that wait now. May be called from any thread."""
        return self._common.depth() + self._long.depth()

    async def close(self) -> None:
        """Stop both."""
        await self._common.close()
        await self._long.close()
