"""The use case and the money: every attempt is booked first, and every way of ending it leaves the right amount."""

import asyncio
import dataclasses
from typing import Any

import pytest

from dispatcher_service import booking
from dispatcher_service.booking import Book
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import OnLedgerFailure, StrongCallShare
from dispatcher_service.chat import Chat, Message, Request, Role, Text, ToolCall
from dispatcher_service.errors import BudgetExhausted, LedgerUnavailable, UpstreamRejected, UpstreamUnavailable
from dispatcher_service.ledger.contract import Attempt, Charge, Refusal, Reservation, Settled
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.pacing_targets import pacing_policy
from dispatcher_service.routing import AlphaSource, Reason, Tier
from tests.fakes import FakeObserver, FakeScorer, FakeUpstream
from tests.unit.test_dispatch import STRONG_COST, WEAK_COST, Bench, policy, request

# By hand: 14 bytes, 256 of the template and 16 around the message are at most 286 prompt tokens; the answer 1000.
STRONG_WORST, WEAK_WORST = 286 * 10 + 1000 * 20, 286 * 1 + 1000 * 2


def limited(usd: int, **changes: object) -> dict[str, Any]:
    """A tenant with a limit per day, in nano-USD."""
    return {"limits": (Limit(Period.DAY, usd),), **changes}


async def account(bench: Bench) -> tuple[int, int]:
    """Spent and reserved today."""
    await bench.book.close(1)
    day = (await bench.ledger.balances("t"))[1]
    return day.spent, day.reserved


async def test_a_call_is_spent_in_the_book_whether_there_is_a_limit_or_not() -> None:
    for changes in (dict[str, Any](), limited(10**9)):
        bench = Bench(FakeScorer(0.9), **changes)
        await bench.dispatcher.complete(request())
        assert await account(bench) == (STRONG_COST, 0)


async def test_the_worst_case_is_put_aside_before_the_model_is_called() -> None:
    bench = Bench(FakeScorer(0.9), **limited(10**9))
    seen: list[tuple[int, int]] = []
    complete = bench.upstream.complete

    async def spy(*arguments: object, **more: object) -> object:
        seen.append(await account_now(bench))
        return await complete(*arguments, **more)  # type: ignore[arg-type]

    bench.upstream.complete = spy  # type: ignore[method-assign, assignment]
    await bench.dispatcher.complete(request())
    assert seen == [(0, STRONG_WORST)]


async def account_now(bench: Bench) -> tuple[int, int]:
    day = (await bench.ledger.balances("t"))[1]
    return day.spent, day.reserved


async def test_a_request_without_max_tokens_is_sent_with_the_models_bound() -> None:
    bench = Bench(FakeScorer(0.9))
    await bench.dispatcher.complete(request())
    await bench.dispatcher.complete(request(chat=dataclasses.replace(request().chat, max_tokens=7)))
    assert bench.upstream.limits == [1000, 7]


async def test_a_limit_without_room_for_strong_degrades_to_weak_and_says_so() -> None:
    bench = Bench(FakeScorer(0.9), **limited(STRONG_WORST - 1))
    answer = await bench.dispatcher.complete(request())
    decision = answer.choice.decision
    assert (answer.choice.model, decision.reason, decision.alpha) == ("small", Reason.BUDGET_DEGRADED, 0.5)
    assert answer.choice.price_version != (await Bench(FakeScorer(0.9)).dispatcher.route(request())).price_version
    assert await account(bench) == (WEAK_COST, 0)


async def test_a_limit_with_room_for_exactly_the_worst_case_grants_it() -> None:
    bench = Bench(FakeScorer(0.9), **limited(STRONG_WORST))
    assert (await bench.dispatcher.complete(request())).choice.model == "big"


async def test_without_room_for_weak_the_error_says_which_limit_what_is_left_and_when_it_ends() -> None:
    bench = Bench(FakeScorer(0.9), **limited(WEAK_WORST - 1))
    with pytest.raises(BudgetExhausted) as caught:
        await bench.dispatcher.complete(request())
    error = caught.value
    # 1e9 seconds since the epoch is 2001-09-09 01:46:40 UTC.
    assert (error.period, error.window_end, error.retry_after) == ("day", 1_000_080_000, 80_000.0)
    assert (error.limit, error.left, error.needed) == ("0.000002285", "0.000002285", "0.000002286")
    assert bench.upstream.models == []
    assert bench.outcomes[0].error_reason == "BUDGET_EXHAUSTED"
    assert ("exhausted", Period.DAY) in bench.observer.events


async def test_reject_refuses_at_once_although_weak_would_fit() -> None:
    bench = Bench(FakeScorer(0.9), **limited(STRONG_WORST - 1, on_exhausted=OnExhausted.REJECT))
    with pytest.raises(BudgetExhausted, match="per day"):
        await bench.dispatcher.complete(request())


async def test_borrow_goes_over_the_limit_by_the_overdraft_and_no_further() -> None:
    borrowing = limited(STRONG_WORST - 10, on_exhausted=OnExhausted.BORROW)
    assert await Bench(FakeScorer(0.9), **borrowing, overdraft=10).dispatcher.complete(request())
    with pytest.raises(BudgetExhausted):
        await Bench(FakeScorer(0.9), **borrowing, overdraft=9).dispatcher.complete(request())


async def test_in_a_tool_loop_no_money_is_an_error_and_never_another_model() -> None:
    bench = Bench(FakeScorer(0.9), **limited(STRONG_WORST - 1))
    with pytest.raises(BudgetExhausted):
        await bench.dispatcher.complete(in_tool_loop())
    assert bench.upstream.models == []


def in_tool_loop() -> Request:
    question = Message(Role.USER, (Text("2+2?"),))
    call = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c", "add", "{}"),))
    result = Message(Role.TOOL, (Text("4"),), tool_call_id="c")
    chat = Chat(messages=(question, call, result), text_bytes=10, max_tokens=1000)
    return request(chat=chat)


async def test_a_stream_reserves_before_it_starts_and_settles_before_it_finishes() -> None:
    bench = Bench(FakeScorer(0.9), **limited(STRONG_WORST - 1))
    seen = [(await account_now(bench), type(event).__name__) async for event in bench.dispatcher.stream(request())]
    assert seen[0] == ((0, WEAK_WORST), "Started")
    assert seen[-1] == ((WEAK_COST, 0), "Finished")


async def test_what_certainly_was_not_billed_is_released() -> None:
    rejected = UpstreamRejected("big-1", "no such parameter")
    bench = Bench(FakeScorer(0.9), FakeUpstream(error=rejected), **limited(10**9))
    with pytest.raises(UpstreamRejected):
        await bench.dispatcher.complete(request())
    assert await account(bench) == (0, 0)


async def test_what_may_have_been_billed_is_settled_at_the_estimate_and_never_at_zero() -> None:
    broken = UpstreamUnavailable("big-1", "broke off", may_be_billed=True)
    bench = Bench(FakeScorer(0.9), FakeUpstream(error=broken, error_after=1), **limited(10**9))
    with pytest.raises(UpstreamUnavailable):
        _ = [event async for event in bench.dispatcher.stream(request())]
    # 14 bytes of prompt and 5 of answer are estimated as 4 and 2 tokens.
    assert await account(bench) == (4 * 10 + 2 * 20, 0)
    attempted = bench.outcomes[0].attempts
    assert [(one.model, one.cost) for one in attempted] == [("big", 80)]


class Awkward(MemoryLedger):
    """A ledger that can be away, slow, or both, as one in another process."""

    immediate = False

    def __init__(self) -> None:
        super().__init__(lambda: 1e9)
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def _enter(self) -> None:
        await self.gate.wait()
        if self.away:
            raise LedgerUnavailable("gone fishing")

    async def reserve(self, attempt: Attempt) -> Reservation | Refusal:
        result = await super().reserve(attempt)
        await self._enter()  # The worst place: it was done, and the answer is late or lost.
        return result

    async def settle(self, reservation: Reservation, charge: Charge) -> Settled:
        await self._enter()
        return await super().settle(reservation, charge)


async def test_a_ledger_that_is_away_grants_nothing_by_default() -> None:
    ledger = Awkward()
    ledger.away = True
    bench = Bench(FakeScorer(0.9), ledger=ledger)
    with pytest.raises(LedgerUnavailable):
        await bench.dispatcher.complete(request())
    assert bench.upstream.models == []


@pytest.mark.parametrize(("stated", "model"), [(OnLedgerFailure.SERVE, "big"), (OnLedgerFailure.WEAK, "small")])
async def test_a_tenant_may_be_served_without_a_ledger_and_is_charged_once_it_is_back(
    stated: OnLedgerFailure, model: str
) -> None:
    ledger = Awkward()
    ledger.away = True
    bench = Bench(FakeScorer(0.9), ledger=ledger, on_ledger_failure=stated)
    serving = asyncio.ensure_future(bench.dispatcher.complete(request()))
    await asyncio.sleep(0.02)
    ledger.away = False
    answer = await serving
    assert answer.choice.model == model
    assert answer.choice.decision.reason is (
        Reason.LEDGER_UNAVAILABLE if model == "small" else Reason.AT_OR_ABOVE_ALPHA
    )
    spent, _ = await account(bench)
    assert spent == (WEAK_COST if model == "small" else STRONG_COST)


async def test_no_more_is_served_without_a_ledger_than_can_be_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booking, "MOST_PENDING", 2)
    ledger = Awkward()
    ledger.away = True
    bench = Bench(FakeScorer(0.9), ledger=ledger, on_ledger_failure=OnLedgerFailure.SERVE)
    served = [asyncio.ensure_future(bench.dispatcher.complete(request())) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(LedgerUnavailable, match="2 charges wait"):
        await bench.dispatcher.complete(request())
    ledger.away = False
    await asyncio.gather(*served)
    spent, _ = await account(bench)  # what was reserved, with its answer lost, was not started, and will expire
    assert spent == 2 * STRONG_COST


async def test_weak_without_a_ledger_is_no_way_out_of_a_tool_loop() -> None:
    ledger = Awkward()
    ledger.away = True
    bench = Bench(FakeScorer(0.9), ledger=ledger, on_ledger_failure=OnLedgerFailure.WEAK)
    with pytest.raises(LedgerUnavailable):
        await bench.dispatcher.complete(in_tool_loop())


async def test_a_caller_who_goes_away_while_money_is_put_aside_leaves_nothing_reserved() -> None:
    ledger = Awkward()
    ledger.gate.clear()
    bench = Bench(FakeScorer(0.9), ledger=ledger)
    call = asyncio.ensure_future(bench.dispatcher.complete(request()))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await account_now(bench) == (0, STRONG_WORST)
    ledger.gate.set()
    assert await account(bench) == (0, 0)


async def test_settling_survives_the_caller_and_a_ledger_that_is_slow() -> None:
    ledger = Awkward()
    bench = Bench(FakeScorer(0.9), ledger=ledger)
    events = bench.dispatcher.stream(request())
    _ = [await anext(events) for _ in range(2)]
    ledger.gate.clear()
    closing = asyncio.ensure_future(events.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    ledger.gate.set()
    assert await account(bench) == (4 * 10 + 2 * 20, 0)


async def test_a_book_that_is_closed_while_the_ledger_is_away_does_not_hang() -> None:
    ledger = Awkward()
    book = Book(ledger, observe=FakeObserver(), clock=lambda: 0.0, wall_clock=lambda: 1e9, drain=0)
    booking = await book.reserve(policy(), "big", 100, timeout=1)
    ledger.away = True
    await book.release(booking)
    ledger.gate.clear()
    async with asyncio.timeout(5):
        await book.close(0.05)


async def test_a_share_is_paced_and_shown_as_such_and_route_decides_alike_and_moves_nothing() -> None:
    paced = pacing_policy(share=0.3, alpha=None, limits=())
    bench = Bench(FakeScorer(0.71), dial=StrongCallShare(0.3), pacing=paced)
    for _ in range(100):
        routed = await bench.dispatcher.route(request())
        assert routed == await bench.dispatcher.route(request())
        assert routed == (await bench.dispatcher.complete(request())).choice
        assert routed.alpha_source is AlphaSource.PACED
    tiers = [outcome.choice.decision.tier for outcome in bench.outcomes if outcome.choice]
    # All scores are alike, and so at one end of what the scorer's quantiles say: the integrator holds the share anyway.
    assert 20 <= tiers.count(Tier.STRONG) <= 100
    assert tiers.count(Tier.WEAK) > 0


async def test_forced_decisions_move_the_pace_and_a_degraded_call_counts_as_weak() -> None:
    paced = pacing_policy(share=0.5, alpha=None, limits=(), window_calls=100)
    strong = Bench(FakeScorer(0.9), pacing=paced, dial=StrongCallShare(0.5))
    before = (await strong.dispatcher.route(request())).decision.alpha
    for _ in range(10):
        await strong.dispatcher.complete(request(alpha=0.0))
    after = (await strong.dispatcher.route(request())).decision.alpha
    assert before is not None
    assert after is not None
    assert after > before

    degraded = Bench(FakeScorer(0.9), pacing=paced, dial=StrongCallShare(0.5), **limited(STRONG_WORST - 1))
    for _ in range(3):
        assert (await degraded.dispatcher.complete(request())).choice.decision.reason is Reason.BUDGET_DEGRADED
    lowered = (await degraded.dispatcher.route(request())).decision.alpha
    assert lowered is not None
    assert lowered < before
