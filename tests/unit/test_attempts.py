"""The loop over deployments inside the use case: who answers, what the decision says of it, and when nobody does."""

import dataclasses

import pytest

from dispatcher_service.booking import Book
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import Catalogue, Deployment, FixedAlpha, Model, RetryPolicy
from dispatcher_service.chat import Message, Role, Text, ToolCall
from dispatcher_service.dispatch import Dispatcher, Finished, Started
from dispatcher_service.drains import Drains
from dispatcher_service.errors import (
    BudgetExhausted,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from dispatcher_service.failover import AttemptResult
from dispatcher_service.gates import Gates
from dispatcher_service.identity import OPEN
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.outcome import Outcome
from dispatcher_service.pacer import LedgerPacer
from dispatcher_service.routing import Reason, Tier
from dispatcher_service.scorer_targets import ScorerTarget
from tests.fakes import FakeJudge, FakeObserver, FakeScorer, FakeUpstream
from tests.unit.test_dispatch import STRONG_PRICE, WEAK_PRICE, policy, request
from tests.unit.test_gates import Seen


def broken(name: str) -> UpstreamError:
    return UpstreamUnavailable(name, "broke", may_be_billed=False)


class Bench:
    """A strong model with two deployments and a spare one, a weak one with one."""

    def __init__(self, *failing: UpstreamError, retries: RetryPolicy | None = None, **changes: object) -> None:
        self.upstream = FakeUpstream(failing={error.deployment: error for error in failing})
        self.seen = Seen()
        self.outcomes: list[Outcome] = []
        self.now = 0.0
        self.slept: list[float] = []
        deployments = {"big": ("big-1", "big-2"), "spare": ("spare-1",), "small": ("small-1",)}
        catalogue = Catalogue(
            scorer=ScorerTarget(address="unused", timeout=0.2),
            models={
                "big": Model(name="big", prices=(STRONG_PRICE,), part_tokens={}, fallbacks=("spare",)),
                "spare": Model(name="spare", prices=(WEAK_PRICE,), part_tokens={}),
                "small": Model(name="small", prices=(WEAK_PRICE,), part_tokens={}),
            },
            deployments={
                model: tuple(
                    Deployment(name=name, model=model, base_url="http://unused", upstream_model=model) for name in names
                )
                for model, names in deployments.items()
            },
            tenants={"t": policy(**{"dial": FixedAlpha(0.5), "fallback_to_other_tier": True} | changes)},
            auth=OPEN,
            retries=retries or RetryPolicy(tries=1),
        )
        ledger = MemoryLedger(lambda: 1e9)
        self.dispatcher = Dispatcher(
            catalogue=lambda: catalogue,
            scorer=FakeScorer(0.9),
            judge=FakeJudge(),
            book=Book(ledger, observe=FakeObserver(), clock=lambda: self.now, wall_clock=lambda: 1e9, drain=1),
            pacer=LedgerPacer(ledger, clock=lambda: self.now, wall_clock=lambda: 1e9, observe=lambda *_: None),
            upstream=self.upstream,
            gates=Gates(clock=lambda: self.now, observe=self.seen),
            drains=Drains(observe=lambda _: None),
            record=self.outcomes.append,
            clock=lambda: self.now,
            wall_clock=lambda: 1e9,
            sleep=self._sleep,
            draw=lambda: 0.5,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


BIG = (broken("big-1"), broken("big-2"))


async def test_another_deployment_of_the_model_answers_and_the_decision_stays() -> None:
    bench = Bench(broken("big-1"))
    answer = await bench.dispatcher.complete(request())
    assert bench.upstream.deployments == ["big-1", "big-2"]
    assert (answer.choice.model, answer.choice.decision.reason) == ("big", Reason.AT_OR_ABOVE_ALPHA)
    assert bench.outcomes[0].deployment is not None
    assert bench.outcomes[0].deployment.name == "big-2"
    assert bench.seen.ended == [AttemptResult.UNAVAILABLE, AttemptResult.OK]


async def test_a_fallback_model_of_the_same_tier_answers_and_is_billed_at_its_own_price() -> None:
    bench = Bench(*BIG)
    answer = await bench.dispatcher.complete(request())
    assert (answer.choice.model, answer.choice.decision.tier) == ("spare", Tier.STRONG)
    assert answer.choice.decision.reason is Reason.FALLBACK
    assert (answer.choice.instead_of, answer.bill.attempts) == ("big", 3)
    # FakeUpstream reports 1000 input and 100 output tokens.
    assert answer.bill.cost == 1000 * 1 + 100 * 2


async def test_a_fallback_that_the_tenant_does_not_allow_never_sees_its_prompt() -> None:
    bench = Bench(*BIG, allowed_models=frozenset({"big", "small"}))
    assert (await bench.dispatcher.complete(request())).choice.model == "small"
    assert bench.upstream.deployments == ["big-1", "big-2", "small-1"]


async def test_the_other_tier_answers_last_where_the_policy_allows_it() -> None:
    failing = (*BIG, broken("spare-1"))
    answer = await Bench(*failing).dispatcher.complete(request())
    assert (answer.choice.model, answer.choice.decision.tier) == ("small", Tier.WEAK)
    with pytest.raises(UpstreamUnavailable, match="spare-1"):
        await Bench(*failing, fallback_to_other_tier=False).dispatcher.complete(request())


async def test_a_stand_in_without_money_is_passed_over_and_the_caller_told_of_the_failure() -> None:
    # The weak model's worst case: some 300 prompt tokens at 1 and 100 answer tokens at 2 nano-USD; the strong one's ten
    # times that.
    limits = (Limit(Period.HOUR, 1_000),)
    chat = dataclasses.replace(request().chat, max_tokens=100)
    weak: dict[str, object] = {"dial": FixedAlpha(0.95), "limits": limits, "on_exhausted": OnExhausted.REJECT}
    bench = Bench(broken("small-1"), **weak)  # type: ignore[arg-type]
    with pytest.raises(UpstreamUnavailable, match="small-1"):
        await bench.dispatcher.complete(request(chat=chat))
    assert bench.upstream.deployments == ["small-1"]
    rich = Bench(broken("small-1"), **weak | {"limits": (Limit(Period.HOUR, 10_000),)})  # type: ignore[arg-type]
    assert (await rich.dispatcher.complete(request(chat=chat))).choice.model == "big"


async def test_the_chosen_model_without_money_is_the_callers_to_know() -> None:
    chat = dataclasses.replace(request().chat, max_tokens=100)
    poor = Bench(limits=(Limit(Period.HOUR, 1_000),), on_exhausted=OnExhausted.REJECT)
    with pytest.raises(BudgetExhausted):
        await poor.dispatcher.complete(request(chat=chat))


async def test_in_a_tool_loop_only_the_models_own_deployments_are_tried() -> None:
    bench = Bench(*BIG)
    question = request().chat.messages[0]
    calls = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c", "f", "{}"),))
    result = Message(Role.TOOL, (Text("4"),), tool_call_id="c")
    chat = dataclasses.replace(request().chat, messages=(question, calls, result))
    with pytest.raises(UpstreamUnavailable, match="big-2"):
        await bench.dispatcher.complete(request(chat=chat))
    assert bench.upstream.deployments == ["big-1", "big-2"]


async def test_a_stream_fails_over_before_its_first_piece_and_starts_with_the_model_that_answers() -> None:
    bench = Bench(*BIG)
    events = [event async for event in bench.dispatcher.stream(request())]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert (events[0].choice.model, events[-1].choice.model) == ("spare", "spare")
    assert len([event for event in events if isinstance(event, Started)]) == 1


async def test_a_fault_of_the_request_itself_is_tried_nowhere_else() -> None:
    bench = Bench(UpstreamRejected("big-1", "no such parameter"))
    with pytest.raises(UpstreamRejected):
        await bench.dispatcher.complete(request())
    assert bench.upstream.deployments == ["big-1"]


async def test_a_retry_waits_as_long_as_the_upstream_asked_within_the_callers_deadline() -> None:
    alone: dict[str, object] = {"retries": RetryPolicy(tries=2), "fallback_to_other_tier": False}
    failing = (UpstreamRateLimited("big-1", 3.0), broken("big-2"), broken("spare-1"))
    bench = Bench(*failing, **alone)  # type: ignore[arg-type]
    with pytest.raises(UpstreamError):
        await bench.dispatcher.complete(request(timeout=4.0))
    # big-2 and spare-1 come back first, after our own backoff; then big-1, when its three seconds are over.
    assert bench.upstream.deployments == ["big-1", "big-2", "big-2", "spare-1", "spare-1", "big-1"]
    assert bench.now == pytest.approx(3.0)
    hurried = Bench(*failing, **alone)  # type: ignore[arg-type]
    with pytest.raises(UpstreamError):
        await hurried.dispatcher.complete(request(timeout=2.0))
    assert hurried.now < 2.0


async def test_when_all_are_left_alone_the_caller_is_told_for_how_long() -> None:
    bench = Bench(*BIG, broken("spare-1"), broken("small-1"))
    ended: list[UpstreamError] = []
    for _ in range(6):
        with pytest.raises(UpstreamUnavailable) as caught:
            await bench.dispatcher.complete(request())
        ended.append(caught.value)
    assert len(bench.upstream.deployments) == 5 * 4, "after five failures in a row nobody is called"
    assert ("left alone" in str(ended[-1]), ended[-1].retry_after) == (True, 10.0)


async def test_a_stream_that_nobody_reads_further_frees_its_place() -> None:
    bench = Bench()
    events = bench.dispatcher.stream(request())
    await anext(events)
    await events.aclose()
    assert (bench.seen.began, bench.seen.ended) == (1, [AttemptResult.CANCELLED])


# The prompt is at most 14 bytes, 256 tokens of template and 16 around the message; the request bounds its answer.
SMALL = dataclasses.replace(request().chat, max_tokens=100)
STRONG_WORST, WEAK_WORST = 286 * 10 + 100 * 20, 286 * 1 + 100 * 2


def costly(name: str) -> UpstreamError:
    """It broke after it may have worked: billed at the estimate, which is 4 tokens of prompt and none of an answer."""
    return UpstreamUnavailable(name, "broke", may_be_billed=True)


async def test_a_retry_asks_the_ledger_again_and_finds_less() -> None:
    """There is room for one strong attempt: what the first one cost is missing at the second."""
    bench = Bench(costly("big-1"), limits=(Limit(Period.DAY, STRONG_WORST),))
    answer = await bench.dispatcher.complete(request(chat=SMALL))
    assert bench.upstream.deployments == ["big-1", "small-1"]
    assert (answer.choice.model, answer.choice.decision.reason) == ("small", Reason.BUDGET_DEGRADED)
    # The bill holds what the failed attempt cost, and says so.
    assert answer.bill.cost == 4 * 10 + 1000 * 1 + 100 * 2
    assert [(one.model, one.cost) for one in bench.outcomes[0].attempts] == [("big", 40), ("small", 1200)]


async def test_a_retry_without_room_is_refused_where_the_policy_says_so() -> None:
    bench = Bench(costly("big-1"), limits=(Limit(Period.DAY, STRONG_WORST),), on_exhausted=OnExhausted.REJECT)
    with pytest.raises(BudgetExhausted) as caught:
        await bench.dispatcher.complete(request(chat=SMALL))
    assert bench.upstream.deployments == ["big-1"]
    assert caught.value.cost == 40, "what was spent before is told"


async def test_a_strong_fallback_without_room_leaves_the_weak_models_own_failure() -> None:
    bench = Bench(broken("small-1"), limits=(Limit(Period.DAY, WEAK_WORST),), dial=FixedAlpha(1.0))
    with pytest.raises(UpstreamUnavailable, match="small-1"):
        await bench.dispatcher.complete(request(chat=SMALL))
    assert bench.upstream.deployments == ["small-1"]
