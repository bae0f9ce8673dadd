"""When a client tries again: only where that can help, never sooner than it was told, never past the deadline."""

import grpc
import pytest

from pointsman._calls import PointsmanCallError
from pointsman._retries import wait_before_retry

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def wait(
    error: PointsmanCallError, *, tried: int = 1, time_left: float = 60.0, named: bool = False, draw: float = 0.5
) -> float | None:
    return wait_before_retry(error, tried=tried, retries=2, time_left=time_left, named=named, draw=lambda: draw)


def test_the_services_own_delay_is_honoured_and_spread_upwards() -> None:
    error = PointsmanCallError(UNAVAILABLE, "busy", reason="UPSTREAM_RATE_LIMITED", retry_after=2.0)
    assert wait(error, draw=0.0) == 2.0
    assert wait(error, draw=1.0) == pytest.approx(2.4)


def test_a_delay_beyond_the_deadline_gives_up_at_once() -> None:
    error = PointsmanCallError(UNAVAILABLE, "busy", reason="UPSTREAM_RATE_LIMITED", retry_after=7.0)
    assert wait(error, time_left=7.0) is None


def test_after_the_last_retry_it_gives_up() -> None:
    error = PointsmanCallError(UNAVAILABLE, "busy", reason="SCORER_UNAVAILABLE", retry_after=1.0)
    assert wait(error, tried=2) is not None
    assert wait(error, tried=3) is None


def test_what_the_service_gives_no_delay_for_is_not_tried_again() -> None:
    assert wait(PointsmanCallError(UNAVAILABLE, "no", reason="UPSTREAM_UNAVAILABLE"), named=True) is None


def test_a_request_that_was_never_sent_is_tried_again_with_growing_waits() -> None:
    error = PointsmanCallError(UNAVAILABLE, "failed to connect to all addresses; last error: …")
    assert [wait(error, tried=tried) for tried in (1, 2)] == [pytest.approx(0.05), pytest.approx(0.1)]


def test_a_request_that_was_lost_on_the_way_is_tried_again_only_under_its_name() -> None:
    lost = PointsmanCallError(UNAVAILABLE, "Socket closed")
    assert wait(lost) is None
    assert wait(lost, named=True) is not None


def test_a_request_that_is_being_answered_is_asked_for_again() -> None:
    error = PointsmanCallError(grpc.StatusCode.ABORTED, "running", reason="IN_FLIGHT", retry_after=1.0)
    assert wait(error, named=True) == pytest.approx(1.1)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL]
)
def test_other_failures_are_the_callers_to_judge(code: grpc.StatusCode) -> None:
    assert wait(PointsmanCallError(code, "no", reason="X", retry_after=1.0), named=True) is None
