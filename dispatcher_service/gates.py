"""What stands before each deployment: its breaker and its limit of calls at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from dispatcher_service.breaker import Breaker, BreakerState
from dispatcher_service.catalogue import Deployment
from dispatcher_service.errors import UpstreamError, UpstreamRejected, UpstreamSkipped
from dispatcher_service.failover import AttemptResult, result_of

BUSY_RETRY_AFTER = 1.0
"""Seconds after which a deployment without room is worth another try: calls take about that long."""


class Observe(Protocol):
    """What metrics see of attempts. Must not raise."""

    def attempt_began(self, deployment: str) -> None:
        """A call of a deployment began."""

    def attempt_ended(self, deployment: str, result: AttemptResult) -> None:
        """It ended."""

    def attempt_skipped(self, deployment: str) -> None:
        """A deployment was not called although it was its turn."""


class _Gate(AbstractContextManager[None]):
    """What stands before one deployment, and surrounds each of its calls: of a call it keeps nothing but its count."""

    def __init__(self, deployment: Deployment, breaker: Breaker, observe: Observe) -> None:
        self.breaker = breaker
        self._deployment = deployment
        self._observe = observe
        self._in_flight = 0

    def configure(self, deployment: Deployment) -> None:
        """The deployment as it is from now on. Calls in flight and what is known of its health stay."""
        if deployment is not self._deployment:
            self._deployment = deployment
            self.breaker.configure(failures=deployment.breaker_failures, cooldown=deployment.breaker_cooldown)

    def __enter__(self) -> None:
        name, limit = self._deployment.name, self._deployment.max_concurrency
        if limit is not None and self._in_flight >= limit:
            self._observe.attempt_skipped(name)
            what = f"has the {limit} calls at once that it may have"
            raise UpstreamSkipped(name, what, asked_to_wait=BUSY_RETRY_AFTER)
        if not self.breaker.allow():
            self._observe.attempt_skipped(name)
            what = "left alone, because it failed several times in a row"
            raise UpstreamSkipped(name, what, asked_to_wait=self.breaker.retry_after)
        self._in_flight += 1
        self._observe.attempt_began(name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._in_flight -= 1
        self._observe.attempt_ended(self._deployment.name, self._judged(error))

    def _judged(self, error: BaseException | None) -> AttemptResult:
        """How the call ended, once the breaker knows."""
        if error is None:
            self.breaker.succeeded()
            return AttemptResult.OK
        if not isinstance(error, UpstreamError):
            # The caller went away, or there is no money: that says nothing about the deployment.
            self.breaker.abandoned()
            return AttemptResult.CANCELLED
        if isinstance(error, UpstreamRejected):
            self.breaker.succeeded()
        elif error.out_of_time:
            # A caller without patience must not close a deployment to the others.
            self.breaker.abandoned()
        else:
            self.breaker.failed(retry_after=error.asked_to_wait)
        return result_of(error)


class Gates:
    """The gates of all deployments. Nothing in it awaits."""

    def __init__(self, *, clock: Callable[[], float], observe: Observe) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._observe = observe
        self._gates: dict[str, _Gate] = {}

    def calling(self, deployment: Deployment) -> AbstractContextManager[None]:
        """Surrounds one call. How the block ends tells the breaker how the deployment is.

        Entering raises:
            UpstreamSkipped: it must not be called now.
        """
        return self._gate(deployment)

    def state(self, deployment: Deployment) -> BreakerState:
        """The breaker's state now. It only looks: metrics ask from a thread of their own."""
        gate = self._gates.get(deployment.name)
        return BreakerState.CLOSED if gate is None else gate.breaker.state

    def _gate(self, deployment: Deployment) -> _Gate:
        gate = self._gates.get(deployment.name)
        if gate is None:
            breaker = Breaker(
                failures=deployment.breaker_failures, cooldown=deployment.breaker_cooldown, clock=self._clock
            )
            gate = self._gates[deployment.name] = _Gate(deployment, breaker, self._observe)
        gate.configure(deployment)
        return gate
