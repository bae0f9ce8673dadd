"""When a failed call is tried again, and after how long. Pure, so that both clients do alike."""

import random
from collections.abc import Callable

import grpc

from pointsman._calls import PointsmanCallError

_FIRST_WAIT = 0.1
_MAX_WAIT = 5.0
_JITTER = 0.2
_NEVER_SENT = ("failed to connect", "connections to all backends failing", "DNS resolution failed")
"""How gRPC says that a request has not left: nothing can have been done for it."""


def wait_before_retry(
    error: PointsmanCallError,
    *,
    tried: int,
    retries: int,
    time_left: float,
    named: bool,
    draw: Callable[[], float] = random.random,
) -> float | None:
    """Seconds to wait before the next try, or `None` to give up.

    The service says itself when a retry can help, and after how long: that is honoured. A failure that did not come
    from the service is tried again if the request has certainly not been sent, or if it is `named`: the
    dispatcher answers a request id once, so that trying again cannot be billed twice.

    Args:
        error: the latest failure.
        tried: tries so far, at least 1.
        retries: how many more than the first are allowed.
        time_left: seconds until the caller's deadline.
        named: whether the caller has named the request.
        draw: gives uniform numbers in [0, 1).
    """
    if tried > retries or not _can_help(error, named=named):
        return None
    if error.retry_after is not None:
        # Never sooner than it says; spread, so that all who were told the same do not come back at once.
        wait = error.retry_after * (1 + _JITTER * draw())
    else:
        wait = min(_FIRST_WAIT * 2 ** (tried - 1), _MAX_WAIT) * draw()
    return wait if wait < time_left else None


def _can_help(error: PointsmanCallError, *, named: bool) -> bool:
    if error.code is grpc.StatusCode.ABORTED:
        return error.retry_after is not None  # the same request, by its id, is being answered
    if error.code is not grpc.StatusCode.UNAVAILABLE:
        return False
    if error.reason:
        return error.retry_after is not None
    return named or error.message.startswith(_NEVER_SENT)
