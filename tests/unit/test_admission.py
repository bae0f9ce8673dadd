"""What one tenant may ask for: per minute, at once, and in tokens. No tenant uses up another's."""

import asyncio
import time
from dataclasses import dataclass, field, replace

import pytest

from dispatcher_service.admission import Admission, Rate, TokenRates
from dispatcher_service.catalogue import Catalogue, RateLimits
from dispatcher_service.errors import RateLimited, UpstreamUnavailable
from dispatcher_service.line import Line
from dispatcher_service.outcome import Choice
from dispatcher_service.overload import Overload
from dispatcher_service.rates import Rates
from tests.fakes import FakeUpstream
from tests.unit.test_dispatch import Bench as Dispatch
from tests.unit.test_dispatch import request
from tests.unit.test_overload import Context

# FakeUpstream reports 1000 input and 100 output tokens; the prompt of `request` has 14 bytes, which is 4 tokens.
USED, ESTIMATE = 1100, 4


@dataclass
class Bench:
    """The door and the token layer for tenants `t` and `other` with the same rates."""

    rates: RateLimits
    upstream: FakeUpstream = field(default_factory=FakeUpstream)
    refusals: list[Rate] = field(default_factory=list)

    def __post_init__(self) -> None:
        dispatch = Dispatch(upstream=self.upstream)
        policy = replace(dispatch.catalogue.tenants["t"], rates=self.rates)
        self.catalogue: Catalogue = replace(
            dispatch.catalogue, tenants={"t": policy, "other": replace(policy, tenant_id="other")}
        )
        dispatch.catalogue = self.catalogue
        counted = Rates(None, failed=lambda: None)
        overload = Overload(
            max_calls=100, max_backlog=1, line=Line(time.monotonic), lag=lambda: 0.0, refused=lambda _: None
        )
        self.door = Admission(
            overload=overload, rates=counted, catalogue=lambda: self.catalogue, refused=self.refusals.append
        )
        self.layer = TokenRates(
            dispatch.rebuilt(), rates=counted, catalogue=lambda: self.catalogue, refused=self.refusals.append
        )

    async def enter(self, tenant_id: str = "t") -> None:
        async with self.door.call(tenant_id, Context()):
            pass

    async def refused(self, tenant_id: str = "t") -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.enter(tenant_id)
        return caught.value


async def test_requests_beyond_the_rate_are_refused_until_the_window_moves_on() -> None:
    bench = Bench(RateLimits(requests_per_minute=3))
    for _ in range(3):
        await bench.enter()
    error = await bench.refused()
    assert (error.rate, error.limit) == ("requests_per_minute", 3)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 60
    await bench.enter("other")
    assert bench.refusals == [Rate.REQUESTS]


async def test_calls_at_once_are_bounded_by_tenant_and_give_their_room_back() -> None:
    bench = Bench(RateLimits(max_concurrent_requests=1))
    async with bench.door.call("t", Context()):
        assert (await bench.refused()).rate == "max_concurrent_requests"
        await bench.enter("other")
    await bench.enter()


async def test_without_rates_nothing_is_refused() -> None:
    bench = Bench(RateLimits())
    for _ in range(200):
        await bench.enter()
    assert not bench.refusals


async def test_the_tokens_that_were_used_count_and_not_the_estimate() -> None:
    bench = Bench(RateLimits(tokens_per_minute=2 * USED + ESTIMATE))
    await bench.layer.complete(request())
    _ = [event async for event in bench.layer.stream(request())]
    await bench.layer.complete(request())  # takes the last four, and uses more: it had begun
    with pytest.raises(RateLimited) as caught:
        await bench.layer.complete(request())
    assert caught.value.rate == "tokens_per_minute"
    await bench.layer.complete(request(tenant_id="other"))


async def test_a_call_that_fails_without_cost_gives_its_tokens_back() -> None:
    error = UpstreamUnavailable("big-1", "refused the connection", may_be_billed=False)
    bench = Bench(RateLimits(tokens_per_minute=ESTIMATE), FakeUpstream(error=error))
    for _ in range(5):
        with pytest.raises(UpstreamUnavailable):
            await bench.layer.complete(request())


async def test_a_stream_that_is_given_up_keeps_its_estimate() -> None:
    bench = Bench(RateLimits(tokens_per_minute=ESTIMATE))
    stream = bench.layer.stream(request())
    await anext(stream)
    await stream.aclose()
    with pytest.raises(RateLimited):
        await bench.layer.complete(request())


async def test_a_route_takes_no_tokens() -> None:
    bench = Bench(RateLimits(tokens_per_minute=1))
    assert isinstance(await bench.layer.route(request()), Choice)


async def test_many_at_once_are_counted_one_by_one() -> None:
    bench = Bench(RateLimits(requests_per_minute=10))
    results = await asyncio.gather(*(bench.enter() for _ in range(50)), return_exceptions=True)
    assert sum(result is None for result in results) == 10
    assert all(result is None or isinstance(result, RateLimited) for result in results)
