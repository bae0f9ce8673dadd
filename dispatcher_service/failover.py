"""Which deployment is tried next, and when: pure, so that every order of failures can be tested.

A request has a *route*: its model's deployments, then those of the model's `fallbacks`, then, where the tenant's policy
allows it, those of the tenant's other models. In a tool loop the model never changes, so that the route ends with the
first *leg*. Within a leg every deployment is tried once before any is tried again, and none more often than
`RetryPolicy.tries`; then the next leg begins. A leg whose deployments ask to be left alone (Retry-After, an open
breaker) is passed over while another leg is left; when none is, the deployment that is due first is waited for, if that
is within `max_backoff` and the caller's deadline. Otherwise the caller is told when to come back.
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher_service.catalogue import Deployment, Model, RetryPolicy
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamSkipped,
    UpstreamTimeout,
)
from dispatcher_service.routing import Ladder


class AttemptResult(enum.Enum):
    """How a call of a deployment ended. Closed: a metric label."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Not called: its breaker was open or it had no room."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A model of the route with its deployments, in the order in which they are tried.

    `rung` is that of the ladder which the model stands on, or answers in place of.
    """

    rung: int
    model: str
    deployments: tuple[Deployment, ...]


Route = tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A deployment that failed at a time, in seconds of the caller's clock."""

    deployment: str
    error: UpstreamError
    at: float


@dataclass(frozen=True, slots=True)
class Step:
    """The next call: which, of which leg, and after how many seconds."""

    leg: Leg
    deployment: Deployment
    wait: float


def route(
    *,
    rung: int,
    ladder: Ladder,
    fitting: Sequence[int],
    models: Mapping[str, Model],
    deployments: Mapping[str, Sequence[Deployment]],
    fallback_to_other_tier: bool,
    in_tool_loop: bool,
    fits: Callable[[Model], bool],
    off: frozenset[str] = frozenset(),
    draw: Callable[[], float],
) -> Route:
    """The legs of one request.

    Args:
        rung: what was chosen.
        ladder: the tenant's models.
        fitting: the rungs that can take the request, ascending.
        models: the catalogue's.
        deployments: the catalogue's, by model.
        fallback_to_other_tier: whether the tenant's policy allows other models of the ladder: the stronger ones first,
            the nearest before the others, and then the cheaper ones likewise.
        in_tool_loop: whether a model waits for its own tools.
        fits: whether a fallback can take the request.
        off: models that operators have turned off; the chosen one is none of them.
        draw: uniform numbers in [0, 1), for the weighted order of deployments.
    """
    chosen = ladder.models[rung]
    names = [(rung, chosen)]
    if not in_tool_loop:
        names += [(rung, name) for name in models[chosen].fallbacks if fits(models[name])]
        if fallback_to_other_tier:
            others = [other for other in fitting if other > rung] + [
                other for other in reversed(fitting) if other < rung
            ]
            names += [(other, ladder.models[other]) for other in others]
    seen = set(off)
    legs = []
    for step, name in names:
        if name not in seen:
            seen.add(name)
            legs.append(Leg(step, name, weighted_order(deployments[name], draw)))
    return tuple(legs)


def weighted_order(deployments: Iterable[Deployment], draw: Callable[[], float]) -> tuple[Deployment, ...]:
    """A random order in which each next deployment is drawn by weight; those of weight 0 stand by at the end.

    Source: exponential keys, Efraimidis and Spirakis 2006: sorting by u^(1/w), descending, draws without replacement.
    """
    listed = list(deployments)
    if len(listed) == 1:
        return tuple(listed)
    return tuple(sorted(listed, key=lambda d: draw() ** (1 / d.weight) if d.weight else -1.0, reverse=True))


def next_step(
    plan: Route,
    failures: Sequence[Failure],
    *,
    now: float,
    deadline: float | None,
    policy: RetryPolicy,
    draw: Callable[[], float],
) -> Step | None:
    """What to do after these failures; `None` if there is nothing left to try.

    Args:
        plan: the request's route.
        failures: all so far, the oldest first.
        now: the time, on the clock of `failures`.
        deadline: when the caller's patience ends, on that clock; `None` if it does not.
        policy: see there.
        draw: uniform numbers in [0, 1): jitter.
    """
    called = sum(failure.error.called for failure in failures)
    if called >= policy.max_attempts or (failures and is_final(failures[-1].error)):
        return None
    patience = policy.max_backoff if deadline is None else min(policy.max_backoff, deadline - now)
    waiting: list[Step] = []
    for leg in plan:
        step, prompt = _step_of(leg, failures, now=now, policy=policy, draw=draw)
        if step is None or step.wait >= patience:
            continue
        if prompt:
            return step
        waiting.append(step)
    # Every leg has deployments that want to be left alone for a while: the one that is due first.
    return min(waiting, key=lambda step: step.wait, default=None)


def is_final(error: UpstreamError) -> bool:
    """True if no other deployment would answer better: the request itself is at fault, or its time is over."""
    return isinstance(error, UpstreamRejected) or error.out_of_time


def result_of(error: UpstreamError) -> AttemptResult:
    """What an attempt that ended in this error is counted as."""
    for kind, result in _RESULTS:
        if isinstance(error, kind):
            return result
    return AttemptResult.UNAVAILABLE


_RESULTS: Final = (
    (UpstreamSkipped, AttemptResult.SKIPPED),
    (UpstreamRateLimited, AttemptResult.RATE_LIMITED),
    (UpstreamTimeout, AttemptResult.TIMEOUT),
    (UpstreamRejected, AttemptResult.REJECTED),
)


def _step_of(
    leg: Leg, failures: Sequence[Failure], *, now: float, policy: RetryPolicy, draw: Callable[[], float]
) -> tuple[Step | None, bool]:
    """The leg's best next call, and whether it waits for no more than our own backoff."""
    best: tuple[int, float, Deployment, bool] | None = None
    for deployment in leg.deployments:
        own = [failure for failure in failures if failure.deployment == deployment.name]
        if not own:
            return Step(leg, deployment, 0.0), True
        last = own[-1]
        if len(own) >= policy.tries or not last.error.retryable:
            continue
        # Jitter over the upper half: callers that failed together come back apart, and none at once.
        backoff = min(policy.backoff * 2 ** (len(own) - 1), policy.max_backoff) * (0.5 + draw() / 2)
        wait = max(last.at + max(backoff, last.error.asked_to_wait) - now, 0.0)
        if best is None or (len(own), wait) < best[:2]:
            best = len(own), wait, deployment, last.error.asked_to_wait <= backoff
    return (None, False) if best is None else (Step(leg, best[2], best[1]), best[3])
