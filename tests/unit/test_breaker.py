"""The circuit breaker, on a clock that the test turns."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.breaker import Breaker, BreakerState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, *, retry_after: float = 0.0) -> Breaker:
    breaker = Breaker(failures=3, cooldown=10, clock=clock)
    for _ in range(3):
        assert breaker.allow()
        breaker.failed(retry_after=retry_after)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_a_success_between_starts_anew() -> None:
    breaker = Breaker(failures=3, cooldown=10, clock=Clock())
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        assert breaker.allow()
        outcome()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed()
    assert (breaker.state, breaker.allow(), breaker.retry_after) == (BreakerState.OPEN, False, 10.0)


def test_after_the_cooldown_one_call_tries_and_the_others_wait_for_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.state is BreakerState.HALF_OPEN
    assert [breaker.allow(), breaker.allow()] == [True, False]
    breaker.succeeded()
    assert (breaker.state, breaker.allow(), breaker.retry_after) == (BreakerState.CLOSED, True, 0.0)


def test_a_failed_try_opens_it_again_for_a_whole_cooldown() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 12
    assert breaker.allow()
    breaker.failed()
    clock.now += 9.9
    assert not breaker.allow()
    clock.now += 0.1
    assert breaker.allow()


def test_a_try_that_told_nothing_leaves_the_next_call_to_try() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.allow()
    breaker.abandoned()
    assert (breaker.state, breaker.allow()) == (BreakerState.HALF_OPEN, True)


def test_it_stays_open_as_long_as_the_deployment_asked_for() -> None:
    clock = Clock()
    breaker = opened(clock, retry_after=60)
    clock.now += 59
    assert (breaker.allow(), breaker.retry_after) == (False, 1.0)


@given(st.lists(st.tuples(st.sampled_from(["failed", "succeeded", "abandoned"]), st.floats(0, 30)), max_size=60))
def test_whatever_happens_a_call_passes_again_within_a_cooldown(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    breaker = Breaker(failures=2, cooldown=10, clock=clock)
    for outcome, pause in events:
        if breaker.allow():
            getattr(breaker, outcome)()
        assert 0 <= breaker.retry_after <= 10 + 1e-9  # floats of the clock
        clock.now += pause
    clock.now += breaker.retry_after + 1e-9
    assert breaker.allow()
