"""When the process takes no more calls: by calls under way, by the event loop's lag, by a call's own age."""

import asyncio
from dataclasses import dataclass, field

import pytest

from dispatcher_service.errors import Overloaded
from dispatcher_service.overload import TIMEOUT_KEY, Cause, LoopLag, Overload


@dataclass
class Context:
    """Of a call that gave `given` seconds, of which `left` remain."""

    left: float | None = None
    given: tuple[str, ...] = ()

    def time_remaining(self) -> float | None:
        return self.left

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((TIMEOUT_KEY, value) for value in self.given)


@dataclass
class Bench:
    lag: float = 0.0
    max_calls: int = 2
    causes: list[Cause] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.overload = Overload(
            max_calls=self.max_calls, max_backlog=1.0, lag=lambda: self.lag, refused=self.causes.append
        )


def test_calls_under_way_are_bounded_and_give_their_room_back() -> None:
    bench = Bench()
    with bench.overload.call(Context()):
        bench.overload.check()
        with bench.overload.call(Context()):
            for refused in (bench.overload.check, bench.overload.call(Context()).__enter__):
                with pytest.raises(Overloaded) as caught:
                    refused()
                assert caught.value.retry_after is not None
        bench.overload.check()
    assert bench.causes == [Cause.CALLS] * 2


def test_a_call_that_fails_gives_its_room_back() -> None:
    bench = Bench(max_calls=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bench.overload.call(Context()):
            raise ZeroDivisionError
    bench.overload.check()


def test_an_event_loop_that_is_behind_takes_no_more_though_nothing_runs_yet() -> None:
    bench = Bench()
    bench.lag = 1.0
    bench.overload.check()
    bench.lag = 1.1
    with pytest.raises(Overloaded):
        bench.overload.check()
    assert bench.causes == [Cause.LAG]


@pytest.mark.parametrize(
    ("context", "refused"),
    [
        (Context(left=28.9, given=("30",)), True),
        (Context(left=29.1, given=("30",)), False),
        (Context(left=29.0, given=()), False),
        (Context(left=None, given=("30",)), False),
        (Context(left=1.0, given=("soon",)), False),
        (Context(left=1.0, given=("nan",)), False),
        (Context(left=1.0, given=("30", "30")), False),
        (Context(left=30.0, given=("1",)), False),
        (Context(left=1.0, given=("inf",)), True),
    ],
)
def test_a_call_that_has_waited_too_long_is_refused_where_its_age_is_known(context: Context, refused: bool) -> None:
    bench = Bench()
    if refused:
        with pytest.raises(Overloaded), bench.overload.call(context):
            pass
        assert bench.causes == [Cause.AGE]
    else:
        with bench.overload.call(context):
            pass
        assert not bench.causes


async def test_the_lag_is_how_late_the_sample_is_and_is_forgotten_soon() -> None:
    now = 100.0
    lag = LoopLag(lambda: now)
    assert lag.seconds() == 0.0
    watching = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    # What is overdue counts before the sample is taken: whoever runs late in a long turn of the loop sees it.
    now += 2.05
    assert lag.seconds() == pytest.approx(2.0)
    while lag.seconds() > 0.5:  # each sample comes on time now, as far as this clock tells
        await asyncio.sleep(0.01)
        now = max(now, lag._due)
    assert lag.seconds() < 0.5
    watching.cancel()
