"""What stands before a deployment: it opens, closes and counts by how calls end."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from dispatcher_service.breaker import BreakerState
from dispatcher_service.catalogue import Deployment
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRejected,
    UpstreamSkipped,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.failover import AttemptResult
from dispatcher_service.gates import Gates

TARGET = Deployment(
    name="a", model="m", base_url="http://unused", upstream_model="m", max_concurrency=2, breaker_failures=2
)
BROKEN = UpstreamUnavailable("a", "broke", may_be_billed=False)


@dataclass
class Seen:
    began: int = 0
    skipped: int = 0
    ended: list[AttemptResult] = field(default_factory=list)

    def attempt_began(self, deployment: str) -> None:
        self.began += 1

    def attempt_ended(self, deployment: str, result: AttemptResult) -> None:
        self.ended.append(result)

    def attempt_skipped(self, deployment: str) -> None:
        self.skipped += 1


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def gates(seen: Seen) -> Gates:
    return Gates(clock=lambda: 0.0, observe=seen)


def fail(gates: Gates, error: BaseException, target: Deployment = TARGET) -> None:
    with pytest.raises(type(error)), gates.calling(target):
        raise error


def test_failures_in_a_row_close_the_gate_and_the_error_says_for_how_long(gates: Gates, seen: Seen) -> None:
    fail(gates, BROKEN)
    fail(gates, BROKEN)
    with pytest.raises(UpstreamSkipped, match="left alone") as caught, gates.calling(TARGET):
        pytest.fail("it was called")
    assert (caught.value.asked_to_wait, caught.value.may_be_billed) == (10.0, False)
    assert (seen.began, seen.skipped, seen.ended) == (2, 1, [AttemptResult.UNAVAILABLE] * 2)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRejected("a", "no such parameter"),
        UpstreamTimeout("a", "no answer in time", may_be_billed=True, out_of_time=True),
        asyncio.CancelledError(),
        RuntimeError("no money"),
    ],
    ids=["the request's fault", "an impatient caller", "the caller went away", "our own error"],
)
def test_what_is_not_the_deployments_fault_never_closes_it(gates: Gates, error: BaseException) -> None:
    for _ in range(5):
        fail(gates, error)
    assert gates.state(TARGET) is BreakerState.CLOSED


def test_no_more_calls_at_once_than_it_may_have(gates: Gates, seen: Seen) -> None:
    third = gates.calling(TARGET)
    with gates.calling(TARGET), gates.calling(TARGET), pytest.raises(UpstreamSkipped, match="2 calls at once"), third:
        pytest.fail("it was called")
    with gates.calling(TARGET):
        pass
    assert (seen.began, len(seen.ended), seen.skipped) == (3, 3, 1)


def test_a_deployment_that_is_configured_anew_keeps_its_health_and_its_calls(gates: Gates) -> None:
    fail(gates, BROKEN)
    fail(gates, BROKEN)
    assert gates.state(replace(TARGET, max_concurrency=None)) is BreakerState.OPEN
    other = replace(TARGET, name="b", max_concurrency=1)
    with gates.calling(other):
        raised = replace(other, max_concurrency=2)
        with gates.calling(raised), pytest.raises(UpstreamError), gates.calling(raised):
            pytest.fail("it was called")
