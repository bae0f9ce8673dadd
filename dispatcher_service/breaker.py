"""A circuit breaker: leaves a failing deployment alone for a while, then lets one call see whether it is well again.

    CLOSED ──`failures` in a row──> OPEN ──`cooldown` seconds──> HALF_OPEN ──one success──> CLOSED
                                     ^                              │
                                     └──────────one failure─────────┘

Ours, because the libraries for it read the clock themselves or guard functions, while an attempt here is a stream whose
success is known long after its start.
"""

import enum
from collections.abc import Callable


class BreakerState(enum.Enum):
    """Whether calls pass. Closed: a metric label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The breaker of one deployment. Nothing in it awaits, so that one event loop needs no lock.

    Every `allow()` that returned true is followed by exactly one of `succeeded`, `failed` and `abandoned`.
    """

    def __init__(self, *, failures: int, cooldown: float, clock: Callable[[], float]) -> None:
        """Opens after `failures` failures in a row, for `cooldown` seconds of `clock`."""
        self._limit = failures
        self._cooldown = cooldown
        self._clock = clock
        self._in_a_row = 0
        self._open_until: float | None = None
        self._probing = False

    def configure(self, *, failures: int, cooldown: float) -> None:
        """Other limits from now on; the state stays."""
        self._limit, self._cooldown = failures, cooldown

    @property
    def state(self) -> BreakerState:
        """The state now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    @property
    def retry_after(self) -> float:
        """Seconds until a call may pass; 0 if one may now, and while another's probe is under way the cool-down."""
        if self._open_until is None:
            return 0.0
        left = self._open_until - self._clock()
        return left if left > 0 else self._cooldown if self._probing else 0.0

    def allow(self) -> bool:
        """Whether a call may be made now. Half open, only one at a time may."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                allowed, self._probing = not self._probing, True
                return allowed

    def succeeded(self) -> None:
        """The deployment answered, be it with a refusal of what the caller asked."""
        self._in_a_row, self._open_until, self._probing = 0, None, False

    def failed(self, *, retry_after: float = 0.0) -> None:
        """The deployment failed. `retry_after` is what it asked for itself: it stays open at least that long."""
        self._in_a_row += 1
        if self._in_a_row >= self._limit or self._open_until is not None:
            self._open_until = self._clock() + max(self._cooldown, retry_after)
        self._probing = False

    def abandoned(self) -> None:
        """The call ended without telling anything, for example because its caller went away."""
        self._probing = False
