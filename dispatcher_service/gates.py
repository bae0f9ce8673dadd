"""What stands before each deployment: its breaker and its limit of calls at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Gate:
    deployment: Deployment
    breaker: Breaker
    in_flight: int = 0


class Gates:
    """The gates of all deployments. Nothing in it awaits."""

    def __init__(self, *, clock: Callable[[], float], observe: Observe) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._observe = observe
        self._gates: dict[str, _Gate] = {}

    @contextmanager
    def calling(self, deployment: Deployment) -> Iterator[None]:
        """Surrounds one call. How the block ends tells the breaker how the deployment is.

        Raises:
            UpstreamSkipped: it must not be called now.
        """
        gate = self._gate(deployment)
        self._enter(gate)
        result = AttemptResult.CANCELLED
        try:
            yield
            result = AttemptResult.OK
        except UpstreamError as error:
            result = result_of(error)
            self._judge(gate, error)
            raise
        except BaseException:
            # The caller went away, or there is no money: that says nothing about the deployment.
            gate.breaker.abandoned()
            raise
        else:
            gate.breaker.succeeded()
        finally:
            gate.in_flight -= 1
            self._observe.attempt_ended(deployment.name, result)

    def state(self, deployment: Deployment) -> BreakerState:
        """The breaker's state now."""
        return self._gate(deployment).breaker.state

    def _enter(self, gate: _Gate) -> None:
        limit = gate.deployment.max_concurrency
        if limit is not None and gate.in_flight >= limit:
            self._observe.attempt_skipped(gate.deployment.name)
            what = f"has the {limit} calls at once that it may have"
            raise UpstreamSkipped(gate.deployment.name, what, asked_to_wait=BUSY_RETRY_AFTER)
        if not gate.breaker.allow():
            self._observe.attempt_skipped(gate.deployment.name)
            what = "left alone, because it failed several times in a row"
            raise UpstreamSkipped(gate.deployment.name, what, asked_to_wait=gate.breaker.retry_after)
        gate.in_flight += 1
        self._observe.attempt_began(gate.deployment.name)

    @staticmethod
    def _judge(gate: _Gate, error: UpstreamError) -> None:
        if isinstance(error, UpstreamRejected):
            gate.breaker.succeeded()
        elif error.out_of_time:
            # A caller without patience must not close a deployment to the others.
            gate.breaker.abandoned()
        else:
            gate.breaker.failed(retry_after=error.asked_to_wait)

    def _gate(self, deployment: Deployment) -> _Gate:
        gate = self._gates.get(deployment.name)
        if gate is None:
            breaker = Breaker(
                failures=deployment.breaker_failures, cooldown=deployment.breaker_cooldown, clock=self._clock
            )
            gate = self._gates[deployment.name] = _Gate(deployment, breaker)
        elif gate.deployment != deployment:
            # The file was loaded again: calls in flight and what is known of the deployment's health stay.
            gate.deployment = deployment
            gate.breaker.configure(failures=deployment.breaker_failures, cooldown=deployment.breaker_cooldown)
        return gate
