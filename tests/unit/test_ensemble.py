"""An ensemble: whose answer is given, what every call costs, and what becomes of those that are late."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping

import pytest

from dispatcher_service.answer import Delta, End, ToolCallDelta
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.dispatch import Finished, Started
from dispatcher_service.errors import BudgetExhausted, UpstreamUnavailable
from dispatcher_service.outcome import Choice, StageResult
from dispatcher_service.pricing import UsageSource
from dispatcher_service.routing import Reason, Tier
from dispatcher_service.strategies import fusing
from dispatcher_service.strategy_policies import EnsemblePolicy, StrategyName
from tests.fakes import FakeJudge
from tests.strategies import COSTS, Bench, Models, question

SMALL, MEDIUM, LARGE = "I am small.", "I am medium.", "I am large."
RANKED = {SMALL: 0.3, MEDIUM: 0.8, LARGE: 0.4}


def ensemble(scores: Mapping[str, float | None] | None = None, **changes: object) -> Bench:
    """A bench whose tenant asks its models at once; `changes` are of the policy, or of the bench."""
    own = {key: changes.pop(key) for key in [*changes] if key in EnsemblePolicy.__dataclass_fields__}
    return Bench(
        judge=FakeJudge(RANKED if scores is None else scores),
        strategy=StrategyName.ENSEMBLE,
        ensemble=EnsemblePolicy(**own),  # type: ignore[arg-type]
        **changes,  # type: ignore[arg-type]
    )


def told(choice: Choice) -> list[tuple[str, StageResult, float | None, bool]]:
    return [(stage.model, stage.result, stage.win_rate, stage.given) for stage in choice.stages]


class Slow(Models):
    """`slow` models write half an answer and then never end."""

    slow: frozenset[str] = frozenset()
    waiting: asyncio.Event

    async def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        if deployment.model in self.slow:
            self.asked.append(deployment.model)
            yield Delta(content="x" * 400)
            self.waiting.set()
            await asyncio.Event().wait()
        async for piece in super().stream(deployment, chat, max_tokens=max_tokens, timeout=timeout):
            yield piece


def slow(*models: str) -> Slow:
    upstream = Slow()
    upstream.slow, upstream.waiting = frozenset(models), asyncio.Event()
    return upstream


async def test_the_answer_that_ranks_first_is_given_and_every_call_is_billed() -> None:
    bench = ensemble()
    answer = await bench.dispatcher.complete(question())
    assert answer.completion.choices[0].content == MEDIUM
    assert (answer.choice.model, answer.choice.decision.tier) == ("medium", Tier.MIDDLE)
    assert (answer.choice.decision.reason, answer.choice.judged_by) == (Reason.BEST_RANKED, ("judge", "v9"))
    assert told(answer.choice) == [
        ("small", StageResult.RANKED, 0.3, False),
        ("medium", StageResult.RANKED, 0.8, True),
        ("large", StageResult.RANKED, 0.4, False),
    ]
    assert answer.bill.cost == sum(COSTS.values()) == await bench.spent()
    assert [stage.cost for stage in answer.choice.stages] == list(COSTS.values())


async def test_of_equally_good_answers_the_cheapest_is_given() -> None:
    answer = await ensemble({}).dispatcher.complete(question())
    assert answer.choice.model == "small"


async def test_without_a_ranking_the_strongest_model_that_answered_is_given() -> None:
    failing = Models({"large": UpstreamUnavailable("large-1", "refused", may_be_billed=False)})
    bench = ensemble({MEDIUM: None}, upstream=failing)
    answer = await bench.dispatcher.complete(question())
    assert (answer.choice.model, answer.choice.decision.reason) == ("medium", Reason.UNRANKED)
    assert [result for _, result, _, _ in told(answer.choice)] == [
        StageResult.UNCHECKED,
        StageResult.UNCHECKED,
        StageResult.FAILED,
    ]
    assert answer.bill.cost == COSTS["small"] + COSTS["medium"] == await bench.spent()


async def test_answers_that_call_tools_are_not_compared() -> None:
    call = Delta(tool_calls=(ToolCallDelta(0, "c", "look_up", "{}"),))
    bench = ensemble(upstream=Models({"small": [call]}))
    answer = await bench.dispatcher.complete(question())
    assert (answer.choice.model, answer.choice.decision.reason) == ("large", Reason.UNRANKED)
    assert bench.judge.asked == []


async def test_a_blank_answer_takes_no_part() -> None:
    bench = ensemble(upstream=Models({"large": " "}))
    answer = await bench.dispatcher.complete(question())
    assert bench.judge.asked == [SMALL, MEDIUM]
    assert answer.choice.stages[2].result is StageResult.REJECTED
    assert answer.choice.stages[2].acceptance == 0.0
    both = ensemble(upstream=Models({"large": " ", "medium": ""}))
    assert (await both.dispatcher.complete(question())).choice.model == "small"


async def test_a_model_that_is_late_is_cancelled_and_billed_for_what_it_delivered() -> None:
    bench = ensemble(upstream=slow("large"), deadline=0.05)
    answer = await bench.dispatcher.complete(question())
    assert answer.choice.model == "medium"
    late = answer.choice.stages[2]
    # 400 bytes are estimated as 100 tokens at 200 nano-USD, and the prompt as one at 100.
    assert (late.result, late.cost, late.cost_source) == (StageResult.CANCELLED, 20_100, UsageSource.ESTIMATED)
    assert answer.bill.cost == COSTS["small"] + COSTS["medium"] + 20_100 == await bench.spent()


async def test_after_the_deadline_the_first_answer_is_waited_for() -> None:
    upstream = slow("small", "large")
    gate = asyncio.Event()

    class Later(Slow):
        async def stream(
            self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
        ) -> AsyncGenerator[Delta | End, None]:
            if deployment.model == "medium":
                await gate.wait()
            async for piece in super().stream(deployment, chat, max_tokens=max_tokens, timeout=timeout):
                yield piece

    later = Later()
    later.slow, later.waiting = upstream.slow, upstream.waiting
    bench = ensemble(upstream=later, deadline=0.01)
    task = asyncio.create_task(bench.dispatcher.complete(question()))
    await asyncio.sleep(0.05)
    assert not task.done()
    gate.set()
    answer = await task
    assert (answer.choice.model, answer.choice.decision.reason) == ("medium", Reason.UNRANKED)


async def test_models_without_money_are_left_out() -> None:
    # Worst cases are about 2,000, 20,000 and 200,000 thousand-token nano-USD: room for the first two.
    bench = ensemble(limits=(Limit(Period.HOUR, 30_000_000),), models={})
    answer = await bench.dispatcher.complete(question())
    assert answer.bill.attempts == 3, "all fit"
    poor = ensemble(limits=(Limit(Period.HOUR, 60_000),))
    answer = await poor.dispatcher.complete(question())
    assert [result for _, result, _, _ in told(answer.choice)] == [
        StageResult.RANKED,
        StageResult.RANKED,
        StageResult.NO_MONEY,
    ]
    assert answer.bill.cost == COSTS["small"] + COSTS["medium"] == await poor.spent()


async def test_a_tenant_that_rejects_asks_all_or_none() -> None:
    bench = ensemble(limits=(Limit(Period.HOUR, 60_000),), on_exhausted=OnExhausted.REJECT)
    with pytest.raises(BudgetExhausted):
        await bench.dispatcher.complete(question())
    assert bench.upstream.asked == []
    assert await bench.spent() == 0, "what was put aside is given back"
    choice = bench.outcomes[0].choice
    assert choice is not None
    assert {stage.result for stage in choice.stages} == {StageResult.NO_MONEY}


async def test_if_every_model_fails_so_does_the_request() -> None:
    failing = {model: UpstreamUnavailable(f"{model}-1", "refused", may_be_billed=False) for model in COSTS}
    bench = ensemble(upstream=Models(failing))
    with pytest.raises(UpstreamUnavailable, match="large-1"):
        await bench.dispatcher.complete(question())
    assert await bench.spent() == 0


async def test_a_caller_who_goes_away_pays_for_what_came() -> None:
    upstream = slow("large")
    bench = ensemble(upstream=upstream)
    task = asyncio.create_task(bench.dispatcher.complete(question()))
    await upstream.waiting.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome = bench.outcomes[0]
    assert outcome.bill is not None
    assert outcome.choice is not None
    assert outcome.bill.cost == COSTS["small"] + COSTS["medium"] + 20_100 == await bench.spent()
    assert outcome.choice.stages[2].result is StageResult.CANCELLED


@pytest.mark.parametrize("immediate", [False, True])
async def test_a_caller_who_goes_away_before_the_calls_begin_pays_nothing(immediate: bool) -> None:
    bench = ensemble()
    bench.ledger.immediate = immediate
    task = asyncio.create_task(bench.dispatcher.complete(question()))
    reserved = bench.ledger.reserve
    seen = 0

    async def reserve(attempt: object) -> object:
        nonlocal seen
        seen += 1
        answer = await reserved(attempt)  # type: ignore[arg-type]
        if seen == 3:
            task.cancel()
        return answer

    bench.ledger.reserve = reserve  # type: ignore[method-assign, assignment]
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.book.close(1.0)
    assert (bench.upstream.asked, await bench.spent()) == ([], 0)


async def test_a_stream_brings_the_best_answer_once_it_is_known() -> None:
    bench = ensemble()
    events = [event async for event in bench.dispatcher.stream(question())]
    started, piece, finished = events
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert (started.choice.model, piece) == ("medium", Delta(content=MEDIUM))
    assert finished.bill.cost == sum(COSTS.values())


async def test_the_best_answers_are_fused_by_a_model_of_the_tenant() -> None:
    bench = ensemble({**RANKED, "fused": 0.0}, fuse_with="large")
    answer = await bench.dispatcher.complete(question("Who are you?"))
    assert (answer.choice.model, answer.choice.decision.reason) == ("large", Reason.FUSED)
    assert told(answer.choice)[-1] == ("large", StageResult.FUSED, None, True)
    assert answer.bill.cost == sum(COSTS.values()) + COSTS["large"] == await bench.spent()
    asked = bench.upstream.chats[-1]
    assert asked.messages[0].text == "Who are you?"
    assert asked.messages[-1].text.endswith(f"Answer 1:\n{MEDIUM}\n\nAnswer 2:\n{LARGE}\n\nAnswer 3:\n{SMALL}")
    assert asked.text_bytes == len("Who are you?") + len(asked.messages[-1].text)


async def test_without_money_for_fusing_the_best_answer_is_given() -> None:
    # Room for what the three calls cost and no more than small's worst case beside it.
    bench = ensemble(limits=(Limit(Period.HOUR, 260_000 + 12_000 + 3_000),), fuse_with="large")
    answer = await bench.dispatcher.complete(question())
    assert (answer.choice.model, answer.choice.decision.reason) == ("medium", Reason.BEST_RANKED)
    assert answer.bill.cost == sum(COSTS.values()) == await bench.spent()


async def test_a_fusing_that_breaks_off_is_a_stage_with_what_it_cost_and_the_best_answer_is_given() -> None:
    bench = ensemble(fuse_with="large")
    broken = ["half of it", UpstreamUnavailable("large-1", "broke off", may_be_billed=True)]
    # Its own answer is whole; the one that it is to fuse is not.
    bench.upstream.after = {"large": lambda: setattr(bench.upstream, "answers", {"large": broken})}
    answer = await bench.dispatcher.complete(question())
    assert (answer.choice.model, answer.choice.decision.reason) == ("medium", Reason.BEST_RANKED)
    assert told(answer.choice)[-1] == ("large", StageResult.FAILED, None, False)
    assert answer.bill.cost == sum(stage.cost for stage in answer.choice.stages) == await bench.spent()
    assert answer.bill.cost > sum(COSTS.values())


def test_no_more_than_three_answers_are_fused() -> None:
    chat = fusing.question(question().chat, ["one", "two", "three", "four"])
    assert "Answer 3:\nthree" in chat.messages[-1].text
    assert "four" not in chat.messages[-1].text


async def test_a_preview_names_the_strongest_model_and_asks_none() -> None:
    bench = ensemble()
    choice = await bench.dispatcher.route(question())
    assert (choice.model, choice.decision.reason, bench.upstream.asked) == ("large", Reason.ENSEMBLE, [])


async def test_several_choices_are_ranked_by_their_first() -> None:
    bench = ensemble(upstream=Models({"small": [Delta(content=SMALL), Delta(index=1, content="more")]}))
    for model, text in (("medium", MEDIUM), ("large", LARGE)):
        bench.upstream.answers = {
            **bench.upstream.answers,
            model: [Delta(content=text), Delta(index=1, content="more")],
        }
    chat = dataclasses.replace(question().chat, n=2)
    answer = await bench.dispatcher.complete(question(chat=chat))
    assert [choice.content for choice in answer.completion.choices] == [MEDIUM, "more"]
    assert bench.judge.asked == [SMALL, MEDIUM, LARGE]
