"""The line at the door: calls that were received and wait for their turn to begin.

One event loop receives calls and works on them, and gRPC hands over one call in several turns of the loop: the next
only when it is asked for. Whatever is begun makes every turn longer. So a loop that begins each call as it comes
receives no faster than it works, the rest waits where it can be neither seen nor refused, and a refusal takes as long
as an answer.

Here receiving comes first: the next in line begin when nothing has been received for as many turns as receiving takes.
So all that waits is here: its number is known, and so is how long a newcomer would wait. Where the loop receives
without a pause, some begin nevertheless.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_QUIET_TURNS: Final = 5
"""Turns of the loop from one call that gRPC hands over to the next, if one is there (grpcio 1.85)."""

_AT_ONCE: Final = 2
"""Calls that begin together. One wastes a twentieth of the time on looking whether there is more to receive, and with
many at work the turns become long."""

_PATIENCE: Final = 50
"""Calls that may be received before the next begin nevertheless. Refusing so many takes as long as two to four answers:
a flood may slow down work, and must not stop it."""

_FREE_SECONDS: Final = 0.002
"""With nobody in line, and this long after the last beginning, a call begins at once: the usual case."""

_FIRST_PACE: Final = 0.004
"""Seconds per call of a line that has not moved yet."""
_PACE_WEIGHT: Final = 0.05


class Line:
    """First come, first served. All state belongs to one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._pace = _FIRST_PACE
        self._begun = 1
        self._begun_at = float("-inf")
        self._quiet_turns = 0
        self._received = 0
        self._watching = False

    def __len__(self) -> int:
        """Calls that wait now. May be called from any thread."""
        return len(self._waiting)

    def seconds(self) -> float:
        """How long a call would wait that comes now, as fast as the line has moved lately."""
        return len(self._waiting) * self._pace

    def received(self) -> None:
        """gRPC has handed over a call, whatever becomes of it."""
        self._quiet_turns = 0
        self._received += 1

    async def turn(self) -> None:
        """Wait until the caller's call may begin. Who is cancelled meanwhile leaves the line."""
        now = self._clock()
        if not self._waiting and now - self._begun_at >= _FREE_SECONDS:
            self._begun, self._begun_at = 1, now
            return
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting[mine] = None
        if not self._watching:
            self._watching = True
            self._quiet_turns = self._received = 0
            loop.call_soon(self._watch)
        try:
            await mine
        finally:
            self._waiting.pop(mine, None)

    def _watch(self) -> None:
        """Once in each turn of the loop while somebody waits."""
        self._quiet_turns += 1
        if self._waiting and (self._quiet_turns > _QUIET_TURNS or self._received > _PATIENCE):
            self._begin()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._watch)
        else:
            self._watching = False

    def _begin(self) -> None:
        now = self._clock()
        self._pace += _PACE_WEIGHT * ((now - self._begun_at) / self._begun - self._pace)
        self._begun, self._begun_at = min(_AT_ONCE, len(self._waiting)), now
        self._quiet_turns = self._received = 0
        for _ in range(self._begun):
            mine, _ = self._waiting.popitem(last=False)
            if not mine.done():  # cancelled in this very turn
                mine.set_result(None)
