"""When the process takes no more calls: by calls under way, by the event loop's lag, by a call's own age."""

import asyncio
from dataclasses import dataclass, field

import pytest

from dispatcher_service.errors import Overloaded
from dispatcher_service.line import Line
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


class FixedLine(Line):
    """A line in which a newcomer would wait for `wait` seconds; whose turn it is decides the test."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.wait = 0.0

    def __len__(self) -> int:
        return int(self.wait > 0)

    def seconds(self) -> float:
        return self.wait

    async def turn(self) -> None:
        await asyncio.sleep(0)


@dataclass
class Bench:
    lag: float = 0.0
    max_calls: int = 2
    causes: list[Cause] = field(default_factory=list)
    line: FixedLine = field(default_factory=FixedLine)

    def __post_init__(self) -> None:
        self.overload = Overload(
            max_calls=self.max_calls,
            max_backlog=1.0,
            line=self.line,
            lag=lambda: self.lag,
            refused=self.causes.append,
        )

    async def enter(self, context: Context) -> None:
        async with self.overload.call(context):
            pass


async def test_calls_under_way_are_bounded_and_give_their_room_back() -> None:
    bench = Bench()
    async with bench.overload.call(Context()):
        assert bench.overload.takes()
        async with bench.overload.call(Context()):
            assert not bench.overload.takes()
            with pytest.raises(Overloaded) as caught:
                await bench.enter(Context())
            assert caught.value.retry_after is not None
        assert bench.overload.takes()
    assert bench.causes == [Cause.CALLS] * 2


async def test_a_call_that_fails_or_is_cancelled_in_line_gives_its_room_back() -> None:
    bench = Bench(max_calls=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with bench.overload.call(Context()):
                raise ZeroDivisionError
    waiting = asyncio.create_task(bench.enter(Context()))
    await asyncio.sleep(0)
    assert not bench.overload.takes()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert bench.overload.takes()


def test_an_event_loop_that_is_behind_takes_no_more_though_nothing_runs_yet() -> None:
    bench = Bench()
    bench.lag = 1.0
    assert bench.overload.takes()
    bench.lag = 1.1
    assert not bench.overload.takes()
    assert bench.causes == [Cause.LAG]


def test_a_line_that_was_once_too_long_is_kept_short_until_it_has_been_empty() -> None:
    bench = Bench()
    taken = []
    for wait in (0.9, 1.1, 0.9, 0.11, 0.09, 0.5, 0.0, 0.9):
        bench.line.wait = wait
        taken.append(bench.overload.takes())
    assert taken == [True, False, False, False, True, False, True, True]
    assert set(bench.causes) == {Cause.WAIT}


async def test_nobody_waits_for_longer_than_half_of_what_is_left_of_the_deadline() -> None:
    bench = Bench()
    bench.line.wait = 0.05
    with pytest.raises(Overloaded):
        await bench.enter(Context(left=0.09))
    # The line is short as it is: who is in a hurry shortens it for nobody.
    bench.line.wait = 0.9
    assert bench.overload.takes()
    await bench.enter(Context(left=1.81))
    with pytest.raises(Overloaded):
        await bench.enter(Context(left=1.79))
    assert not bench.overload.takes()
    assert set(bench.causes) == {Cause.WAIT}


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
async def test_a_call_that_has_waited_too_long_is_refused_where_its_age_is_known(
    context: Context, refused: bool
) -> None:
    bench = Bench()
    if refused:
        with pytest.raises(Overloaded):
            await bench.enter(context)
        assert bench.causes == [Cause.AGE]
    else:
        await bench.enter(context)
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
