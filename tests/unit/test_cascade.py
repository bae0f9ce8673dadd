"""A cascade: which answers are given, what each stage costs, and what becomes of a request that goes wrong."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping

import pytest

from dispatcher_service.answer import Completion, Delta, ToolCallDelta
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import Deployment, OnDisconnect
from dispatcher_service.chat import Chat, Message, PlainFormat, Role, Text, ToolCall
from dispatcher_service.dispatch import Broken, Finished, Started, StreamEvent
from dispatcher_service.errors import (
    BudgetExhausted,
    UpstreamRejected,
    UpstreamUnavailable,
)
from dispatcher_service.outcome import Choice, StageResult
from dispatcher_service.routing import NEVER_STRONG, AlphaSource, Ladder, Reason, Tier
from dispatcher_service.stickiness import Sticky, first
from dispatcher_service.strategies import Replaced
from dispatcher_service.strategy_policies import CascadePolicy, OnNoScore, StrategyName
from tests.fakes import FakeJudge
from tests.strategies import COSTS, MODELS, Bench, Models, question

SMALL, MEDIUM = "I am small.", "I am medium."
HELD = first(Ladder(MODELS), 1, "medium")


def cascade(scores: Mapping[str, float | None] | None = None, **changes: object) -> Bench:
    """A bench whose tenant cascades at the thresholds .7 and .6; `changes` are of the policy, or of the bench."""
    own = {key: changes.pop(key) for key in [*changes] if key in CascadePolicy.__dataclass_fields__}
    policy = CascadePolicy(**{"thresholds": (0.7, 0.6)} | own)  # type: ignore[arg-type]
    return Bench(
        judge=FakeJudge(scores or {}),
        strategy=StrategyName.CASCADE,
        cascade=policy,
        **changes,  # type: ignore[arg-type]
    )


def told(choice: Choice) -> list[tuple[str, StageResult, float | None, bool]]:
    return [(stage.model, stage.result, stage.acceptance, stage.given) for stage in choice.stages]


def unavailable(model: str, *, billed: bool = False) -> UpstreamUnavailable:
    return UpstreamUnavailable(f"{model}-1", "refused", may_be_billed=billed)


async def test_the_first_answer_that_reaches_its_threshold_is_given() -> None:
    bench = cascade({SMALL: 0.69, MEDIUM: 0.6})
    answer = await bench.dispatcher.complete(question())
    assert answer.completion.choices[0].content == MEDIUM
    assert bench.upstream.asked == ["small", "medium"]
    assert (answer.choice.model, answer.choice.decision.tier) == ("medium", Tier.MIDDLE)
    assert (answer.choice.decision.reason, answer.choice.strategy) == (Reason.ACCEPTED, StrategyName.CASCADE)
    assert told(answer.choice) == [
        ("small", StageResult.REJECTED, 0.69, False),
        ("medium", StageResult.ACCEPTED, 0.6, True),
    ]
    assert [stage.threshold for stage in answer.choice.stages] == [0.7, 0.6]
    assert answer.choice.judged_by == ("judge", "v9")


async def test_every_call_is_billed_and_the_ledger_equals_their_sum() -> None:
    bench = cascade({SMALL: 0.1, MEDIUM: 0.1})
    answer = await bench.dispatcher.complete(question())
    assert [stage.cost for stage in answer.choice.stages] == [COSTS["small"], COSTS["medium"], COSTS["large"]]
    assert answer.bill.cost == sum(COSTS.values()) == await bench.spent()
    assert (answer.bill.attempts, answer.bill.tokens) == (3, 3 * 1100)
    assert answer.bill.all_strong_cost == COSTS["large"]
    outcome = bench.outcomes[0]
    assert sum(attempt.cost for attempt in outcome.attempts) == answer.bill.cost
    assert outcome.choice is not None
    assert outcome.choice.stages == answer.choice.stages


async def test_the_last_models_answer_is_given_unchecked() -> None:
    bench = cascade({SMALL: 0.1, MEDIUM: 0.1})
    answer = await bench.dispatcher.complete(question())
    assert answer.choice.decision.reason is Reason.LAST_STAGE
    assert told(answer.choice)[-1] == ("large", StageResult.UNCHECKED, None, True)
    assert bench.judge.asked == [SMALL, MEDIUM]
    assert bench.scorer.calls == [], "without an alpha nobody needs a win probability"


@pytest.mark.parametrize(
    ("win_probability", "model", "reason", "alpha"),
    [
        (0.39, "small", Reason.BELOW_ALPHA, 0.4),
        (0.8, "large", Reason.AT_OR_ABOVE_ALPHA, 0.8),
    ],
)
async def test_what_is_clearly_easy_or_hard_is_not_checked(
    win_probability: float, model: str, reason: Reason, alpha: float
) -> None:
    bench = cascade({SMALL: 0.0}, easy_alpha=0.4, hard_alpha=0.8, win_probability=win_probability)
    answer = await bench.dispatcher.complete(question())
    decision = answer.choice.decision
    assert (answer.choice.model, decision.reason, decision.alpha) == (model, reason, alpha)
    assert (decision.win_probability, answer.choice.alpha_source) == (win_probability, AlphaSource.FIXED)
    assert (bench.upstream.asked, bench.judge.asked, answer.choice.stages) == ([model], [], ())


@pytest.mark.parametrize("win_probability", [0.4, 0.79, None])
async def test_what_lies_between_and_what_is_not_predicted_cascades(win_probability: float | None) -> None:
    bench = cascade({SMALL: 0.9}, easy_alpha=0.4, hard_alpha=0.8, win_probability=win_probability)
    answer = await bench.dispatcher.complete(question())
    assert answer.choice.decision.reason is Reason.ACCEPTED
    assert answer.choice.decision.win_probability == win_probability
    assert bench.judge.asked == [SMALL]


async def test_without_money_for_the_next_stage_the_answer_that_is_paid_for_is_given() -> None:
    # The worst case of small is about 1,000 × 2 and of medium 1,000 × 20 nano-USD for the answer alone.
    bench = cascade({SMALL: 0.2}, limits=(Limit(Period.HOUR, 10_000),), on_exhausted=OnExhausted.REJECT)
    answer = await bench.dispatcher.complete(question())
    assert answer.completion.choices[0].content == SMALL
    assert answer.choice.decision.reason is Reason.ANSWER_AT_HAND
    assert told(answer.choice) == [
        ("small", StageResult.REJECTED, 0.2, True),
        ("medium", StageResult.NO_MONEY, None, False),
    ]
    assert answer.bill.cost == COSTS["small"] == await bench.spent()


async def test_without_money_for_the_first_stage_there_is_no_answer() -> None:
    bench = cascade(limits=(Limit(Period.HOUR, 10),))
    with pytest.raises(BudgetExhausted):
        await bench.dispatcher.complete(question())
    assert bench.upstream.asked == []
    choice = bench.outcomes[0].choice
    assert choice is not None
    assert told(choice) == [("small", StageResult.NO_MONEY, None, False)]


async def test_a_stage_that_fails_gives_way_to_the_next() -> None:
    bench = cascade(upstream=Models({"small": unavailable("small")}), scores={MEDIUM: 0.9})
    answer = await bench.dispatcher.complete(question())
    assert answer.choice.model == "medium"
    assert told(answer.choice)[0] == ("small", StageResult.FAILED, None, False)


async def test_if_a_later_stage_fails_the_most_acceptable_answer_at_hand_is_given() -> None:
    upstream = Models({"large": unavailable("large", billed=True)})
    bench = cascade({SMALL: 0.5, MEDIUM: 0.3}, upstream=upstream)
    answer = await bench.dispatcher.complete(question())
    assert answer.completion.choices[0].content == SMALL
    assert told(answer.choice) == [
        ("small", StageResult.REJECTED, 0.5, True),
        ("medium", StageResult.REJECTED, 0.3, False),
        ("large", StageResult.FAILED, None, False),
    ]
    # The call that failed may be billed: it counts at its estimate, of one prompt token at 100 nano-USD.
    assert answer.choice.stages[2].cost == 100
    assert answer.bill.cost == COSTS["small"] + COSTS["medium"] + 100 == await bench.spent()
    # The answer's own usage, not the failed call's.
    assert answer.bill.usage.input_tokens == 1000


async def test_if_every_stage_fails_so_does_the_request() -> None:
    bench = cascade(upstream=Models({model: unavailable(model) for model in COSTS}))
    with pytest.raises(UpstreamUnavailable, match="large-1"):
        await bench.dispatcher.complete(question())
    assert bench.upstream.asked == ["small", "medium", "large"]


async def test_a_request_that_is_itself_at_fault_is_not_tried_on_dearer_models() -> None:
    bench = cascade(upstream=Models({"small": UpstreamRejected("small-1", "too long")}))
    with pytest.raises(UpstreamRejected):
        await bench.dispatcher.complete(question())
    assert bench.upstream.asked == ["small"]


@pytest.mark.parametrize(("policy", "model"), [(OnNoScore.ACCEPT, "small"), (OnNoScore.GO_ON, "large")])
async def test_without_a_score_the_policy_decides(policy: OnNoScore, model: str) -> None:
    bench = cascade({SMALL: None, MEDIUM: None}, on_no_score=policy)
    answer = await bench.dispatcher.complete(question())
    assert answer.choice.model == model
    assert answer.choice.stages[0].result is StageResult.NO_SCORE
    assert answer.choice.judged_by is None


async def test_an_answer_that_calls_tools_is_accepted_without_a_score() -> None:
    call = Delta(tool_calls=(ToolCallDelta(0, "c", "look_up", "{}"),))
    bench = cascade(upstream=Models({"small": [call]}))
    answer = await bench.dispatcher.complete(question())
    assert told(answer.choice) == [("small", StageResult.UNCHECKED, None, True)]
    assert (answer.choice.decision.reason, bench.judge.asked) == (Reason.ACCEPTED, [])


async def test_of_several_choices_the_worst_decides() -> None:
    pieces = [Delta(content="good"), Delta(index=1, content="bad")]
    bench = cascade({"good": 0.9, "bad": 0.2}, upstream=Models({"small": pieces}))
    chat = dataclasses.replace(question().chat, n=2)
    answer = await bench.dispatcher.complete(question(chat=chat))
    assert told(answer.choice)[0] == ("small", StageResult.REJECTED, 0.2, False)


async def test_a_blank_answer_is_rejected_without_asking_anybody() -> None:
    bench = cascade({MEDIUM: 0.9}, upstream=Models({"small": " \n"}))
    answer = await bench.dispatcher.complete(question())
    assert told(answer.choice)[0] == ("small", StageResult.REJECTED, 0.0, False)
    assert bench.judge.asked == [MEDIUM]


async def test_a_refusal_is_judged_by_its_text() -> None:
    bench = cascade({"I cannot.": 0.8}, upstream=Models({"small": [Delta(refusal="I cannot.")]}))
    assert (await bench.dispatcher.complete(question())).choice.model == "small"


async def test_an_answer_that_is_not_the_json_that_was_asked_for_is_rejected() -> None:
    bench = cascade({'{"a": 1}': 0.9}, upstream=Models({"small": '{"a": ', "medium": '{"a": 1}'}))
    chat = dataclasses.replace(question().chat, response_format=PlainFormat.JSON_OBJECT)
    answer = await bench.dispatcher.complete(question(chat=chat))
    assert told(answer.choice) == [
        ("small", StageResult.REJECTED, 0.0, False),
        ("medium", StageResult.ACCEPTED, 0.9, True),
    ]


async def test_a_tool_loop_stays_with_its_model_unchecked() -> None:
    calls = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c", "f", "{}"),))
    result = Message(Role.TOOL, (Text("4"),), tool_call_id="c")
    chat = dataclasses.replace(question().chat, messages=(*question().chat.messages, calls, result))
    bench = cascade()
    answer = await bench.dispatcher.complete(question(chat=chat, held=HELD))
    assert (answer.choice.model, answer.choice.decision.reason) == ("medium", Reason.TOOL_LOOP)
    assert (bench.upstream.asked, bench.judge.asked) == (["medium"], [])


async def test_a_sticky_conversation_begins_no_lower_than_it_was() -> None:
    bench = cascade({MEDIUM: 0.9}, sticky=Sticky.STRONG)
    answer = await bench.dispatcher.complete(question(held=HELD))
    assert told(answer.choice) == [("medium", StageResult.ACCEPTED, 0.9, True)]


async def test_a_requests_own_alpha_routes_it() -> None:
    bench = cascade(win_probability=0.5)
    answer = await bench.dispatcher.complete(question(alpha=0.1))
    assert (bench.upstream.asked, answer.choice.alpha_source) == (["large"], AlphaSource.OVERRIDE)


async def test_a_preview_names_the_first_model_and_asks_none() -> None:
    bench = cascade()
    choice = await bench.dispatcher.route(question())
    assert (choice.model, choice.decision.reason) == ("small", Reason.CASCADE)
    assert (bench.upstream.asked, bench.outcomes) == ([], [])


async def test_when_little_of_the_deadline_is_left_what_is_at_hand_is_given() -> None:
    upstream = Models()
    bench = cascade({SMALL: 0.1}, upstream=upstream, min_seconds=2.0)
    upstream.after = {"small": lambda: setattr(bench, "now", 8.5)}
    answer = await bench.dispatcher.complete(question(timeout=10.0))
    assert told(answer.choice) == [
        ("small", StageResult.REJECTED, 0.1, True),
        ("medium", StageResult.NO_TIME, None, False),
    ]
    assert upstream.asked == ["small"]


async def test_a_later_stage_keeps_time_back_for_the_way_home() -> None:
    bench = cascade({SMALL: 0.1, MEDIUM: 0.9})
    await bench.dispatcher.complete(question(timeout=10.0))
    assert bench.upstream.timeouts == [10.0, pytest.approx(9.9)]


async def test_a_caller_who_goes_away_in_the_second_stage_has_paid_for_both() -> None:
    begun = asyncio.Event()

    class Slow(Models):
        async def complete(
            self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
        ) -> Completion:
            if deployment.model == "medium":
                begun.set()
                await asyncio.sleep(60)
            return await super().complete(deployment, chat, max_tokens=max_tokens, timeout=timeout)

    bench = cascade({SMALL: 0.1}, upstream=Slow())
    task = asyncio.create_task(bench.dispatcher.complete(question()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome = bench.outcomes[0]
    assert outcome.choice is not None
    assert outcome.bill is not None
    assert told(outcome.choice) == [
        ("small", StageResult.REJECTED, 0.1, False),
        ("medium", StageResult.CANCELLED, None, False),
    ]
    # Of medium one prompt token at 10 nano-USD is estimated.
    assert outcome.bill.cost == COSTS["small"] + 10 == await bench.spent()


async def test_a_draining_model_ends_the_cascade_of_a_caller_who_left() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    class Slow(Models):
        async def complete(
            self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
        ) -> Completion:
            begun.set()
            await gate.wait()
            return await super().complete(deployment, chat, max_tokens=max_tokens, timeout=timeout)

    bench = cascade(upstream=Slow(), models={"small": {"on_disconnect": OnDisconnect.DRAIN}})
    task = asyncio.create_task(bench.dispatcher.complete(question()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await bench.drains.close(5.0)
    outcome = bench.outcomes[0]
    assert outcome.bill is not None
    assert (bench.upstream.asked, bench.judge.asked, outcome.status) == (["small"], [], "CANCELLED")
    assert outcome.bill.cost == COSTS["small"] == await bench.spent(), "as the upstream reported it"


async def events_of(bench: Bench, *, accept_replacement: bool = False) -> list[StreamEvent]:
    return [event async for event in bench.dispatcher.stream(question(accept_replacement=accept_replacement))]


def written(events: list[StreamEvent]) -> str:
    """What a reader of the stream is left with."""
    text = ""
    for event in events:
        if isinstance(event, Replaced):
            text = ""
        elif isinstance(event, Delta):
            text += event.content
    return text


async def test_a_stream_waits_for_the_verdict_and_then_brings_the_pieces_as_they_came() -> None:
    upstream = Models({"small": ["no"], "medium": ["I am", " medium."]})
    bench = cascade({"no": 0.1, MEDIUM: 0.9}, upstream=upstream)
    started, one, two, finished = await events_of(bench)
    assert isinstance(started, Started)
    assert (started.choice.model, started.choice.decision.reason) == ("medium", Reason.ACCEPTED)
    assert [one, two] == [Delta(content="I am"), Delta(content=" medium.")]
    assert isinstance(finished, Finished)
    assert finished.bill.cost == COSTS["small"] + COSTS["medium"] == await bench.spent()
    assert finished.choice.stages[1].given


async def test_a_stream_that_accepts_replacement_comes_at_once_and_is_replaced() -> None:
    bench = cascade({SMALL: 0.1, MEDIUM: 0.9})
    events = await events_of(bench, accept_replacement=True)
    assert [type(event) for event in events] == [Started, Delta, Replaced, Delta, Finished]
    started, first_piece, replaced, second_piece, _ = events
    assert isinstance(started, Started)
    assert isinstance(replaced, Replaced)
    assert (started.choice.model, replaced.choice.model) == ("small", "medium")
    assert (first_piece, second_piece) == (Delta(content=SMALL), Delta(content=MEDIUM))
    assert [stage.result for stage in replaced.choice.stages] == [StageResult.REJECTED]
    assert written(events) == MEDIUM


async def test_a_stream_that_is_accepted_at_once_is_not_replaced() -> None:
    events = await events_of(cascade({SMALL: 0.9}), accept_replacement=True)
    assert [type(event) for event in events] == [Started, Delta, Finished]


@pytest.mark.parametrize("accept_replacement", [False, True])
@pytest.mark.parametrize("after_a_piece", [False, True])
async def test_a_later_stage_that_breaks_off_leaves_the_answer_at_hand(
    accept_replacement: bool, after_a_piece: bool
) -> None:
    broken: list[object] = [unavailable("medium"), unavailable("large")]
    pieces: dict[str, object] = {
        "medium": ["half", broken[0]] if after_a_piece else broken[0],
        "large": ["half", broken[1]] if after_a_piece else broken[1],
    }
    bench = cascade({SMALL: 0.1}, upstream=Models(pieces))
    events = await events_of(bench, accept_replacement=accept_replacement)
    last = events[-1]
    assert isinstance(last, Finished)
    assert (written(events), last.choice.decision.reason) == (SMALL, Reason.ANSWER_AT_HAND)
    replaced = [event for event in events if isinstance(event, Replaced)]
    assert len(replaced) == (3 if accept_replacement and after_a_piece else 0)
    assert last.bill.cost == await bench.spent()


async def test_a_stream_without_any_answer_is_broken() -> None:
    upstream = Models({model: ["half", unavailable(model)] for model in COSTS})
    bench = cascade(upstream=upstream)
    stream = bench.dispatcher.stream(question(accept_replacement=True))
    events = [await anext(stream) for _ in range(7)]
    assert [type(event) for event in events] == [Started, Delta, Replaced, Delta, Replaced, Delta, Broken]
    assert isinstance(events[-1], Broken)
    assert events[-1].bill is None, "none of the calls was billed"
    with pytest.raises(UpstreamUnavailable, match="large-1"):
        await anext(stream)


async def test_a_reader_who_goes_away_mid_stream_leaves_no_stage_untold() -> None:
    bench = cascade({SMALL: 0.1})
    async with contextlib.aclosing(bench.dispatcher.stream(question(accept_replacement=True))) as events:
        async for event in events:
            if isinstance(event, Replaced):
                break
    outcome = bench.outcomes[0]
    assert outcome.choice is not None
    assert outcome.bill is not None
    assert [stage.result for stage in outcome.choice.stages] == [StageResult.REJECTED, StageResult.CANCELLED]
    assert outcome.bill.cost == await bench.spent()
    assert sum(stage.cost for stage in outcome.choice.stages) == outcome.bill.cost


def test_a_policy_without_alphas_looks_at_no_prompt() -> None:
    assert not CascadePolicy(thresholds=(0.5,)).looks_ahead
    assert CascadePolicy(thresholds=(0.5,), hard_alpha=0.9).looks_ahead
    assert not CascadePolicy(thresholds=(0.5,), hard_alpha=NEVER_STRONG).looks_ahead
