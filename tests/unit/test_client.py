"""The clients over real gRPC on loopback: what they send, what they return, and what each failure becomes."""
# ruff: noqa: N802 - gRPC names its methods

import asyncio
import enum
import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from pointsman import _translation
from pointsman.client import (
    AlphaSource,
    AnswerRanking,
    AnswerScore,
    CostSource,
    Decision,
    DispatcherClient,
    FinishReason,
    LeftOut,
    Message,
    PointsmanCallError,
    Reason,
    Role,
    Score,
    ScorerClient,
    Stage,
    StageResult,
    Strategy,
    SyncDispatcherClient,
    Tier,
    Usage,
    UsageSource,
    Violation,
)
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2, dispatcher_pb2_grpc
from pointsman.runtime.status import RichStatus
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc

PENDING = decision_pb2.Decision(
    tier=decision_pb2.TIER_STRONG,
    model="large",
    reason=decision_pb2.REASON_AT_OR_ABOVE_ALPHA,
    alpha=0.25,
    alpha_source=decision_pb2.ALPHA_SOURCE_SHARE,
    win_probability=0.625,
    scorer="default",
    scorer_version="abc",
    cost_source=decision_pb2.COST_SOURCE_PENDING,
)
BILLED = decision_pb2.Decision()
BILLED.CopyFrom(PENDING)
BILLED.cost_nano_usd = 2_000
BILLED.other_tier_cost_nano_usd = 300
BILLED.cost_source = decision_pb2.COST_SOURCE_REPORTED
USAGE = chat_pb2.Usage(
    input_tokens=7,
    cached_input_tokens=5,
    output_tokens=3,
    reasoning_tokens=1,
    source=chat_pb2.USAGE_SOURCE_REPORTED,
)


REPLACED = decision_pb2.Decision(
    model="larger",
    reason=decision_pb2.REASON_CASCADE,
    strategy=decision_pb2.STRATEGY_CASCADE,
    stages=[
        decision_pb2.Stage(
            model="large",
            result=decision_pb2.STAGE_RESULT_REJECTED,
            acceptance_probability=0.25,
            threshold=0.5,
            cost_nano_usd=7,
            cost_source=decision_pb2.COST_SOURCE_REPORTED,
        )
    ],
)


class DispatcherServicer(dispatcher_pb2_grpc.DispatcherServiceServicer):
    """Keeps what it is sent; the first message's text says what it does."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.tenants: list[Any] = []
        self.time_left: list[float] = []
        self.cancelled = asyncio.Event()
        self.busy = 0
        """How many calls are refused as busy before one is answered."""

    async def Complete(self, request: Any, context: Any) -> dispatcher_pb2.CompleteResponse:
        await self._note(request, context)
        return dispatcher_pb2.CompleteResponse(
            request_id=request.request_id or "made-here",
            decision=BILLED,
            choices=[chat_pb2.Choice(content="Because.", finish_reason=chat_pb2.FINISH_REASON_STOP)],
            usage=USAGE,
        )

    async def StreamComplete(self, request: Any, context: Any) -> AsyncIterator[Any]:
        response = dispatcher_pb2.StreamCompleteResponse
        prompt = await self._note(request, context)
        yield response(started=dispatcher_pb2.StreamStarted(request_id="made-here", decision=PENDING))
        yield response(delta=dispatcher_pb2.StreamDelta(content="Be"))
        if prompt == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        if prompt == "replace":
            yield response(replaced=dispatcher_pb2.StreamReplaced(decision=REPLACED))
        yield response(delta=dispatcher_pb2.StreamDelta(content="cause."))
        if prompt == "break off":
            yield response(
                failed=dispatcher_pb2.StreamFailed(reason="UPSTREAM_UNAVAILABLE", usage=USAGE, decision=BILLED)
            )
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", retry_after=1.5, cost=2_000)
        if prompt == "forget the finish":
            return
        yield response(
            finished=dispatcher_pb2.StreamFinished(
                finish_reasons=[chat_pb2.FINISH_REASON_LENGTH], usage=USAGE, decision=BILLED
            )
        )

    async def Route(self, request: Any, context: Any) -> dispatcher_pb2.RouteResponse:
        await self._note(request, context)
        return dispatcher_pb2.RouteResponse(
            decision=decision_pb2.Decision(
                tier=decision_pb2.TIER_WEAK,
                model="small",
                reason=decision_pb2.REASON_SCORER_UNAVAILABLE,
                cost_source=decision_pb2.COST_SOURCE_PENDING,
            )
        )

    async def _note(self, request: Any, context: Any) -> str:
        self.requests.append(request)
        self.tenants.append(dict(context.invocation_metadata()).get("x-pointsman-tenant"))
        self.time_left.append(context.time_remaining())
        prompt: str = request.chat.messages[0].content[0].text
        if self.busy:
            self.busy -= 1
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, "UPSTREAM_RATE_LIMITED", retry_after=0.05)
        if prompt == "refuse":
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        if prompt == "crash":
            await context.abort(grpc.StatusCode.UNKNOWN, "no details here")
        if prompt == "sleep":
            await asyncio.sleep(60)
        return prompt


class ScorerServicer(scorer_pb2_grpc.ScorerServiceServicer):
    """Scores a conversation by the number of its turns, in hundredths."""

    def __init__(self) -> None:
        self.requests: list[scorer_pb2.ScoreRequest] = []

    async def Score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        return self._score(request)

    async def BatchScore(self, request: scorer_pb2.BatchScoreRequest, context: Any) -> scorer_pb2.BatchScoreResponse:
        return scorer_pb2.BatchScoreResponse(responses=[self._score(each) for each in request.requests])

    async def ScoreAnswer(self, request: scorer_pb2.ScoreAnswerRequest, context: Any) -> scorer_pb2.ScoreAnswerResponse:
        return scorer_pb2.ScoreAnswerResponse(
            acceptance_probability=len(request.answer) / 100,
            scorer=request.scorer or "judge",
            scorer_version="def",
            conversation_truncated=len(request.conversation.turns) > 1,
            answer_truncated=True,
        )

    async def RankAnswers(self, request: scorer_pb2.RankAnswersRequest, context: Any) -> scorer_pb2.RankAnswersResponse:
        places = [
            scorer_pb2.RankedAnswer(mean_win_probability=len(answer) / 100, truncated=not place)
            for place, answer in enumerate(request.answers)
        ]
        return scorer_pb2.RankAnswersResponse(
            answers=places, best_index=1, scorer=request.scorer or "judge", scorer_version="def"
        )

    async def ListScorers(self, request: scorer_pb2.ListScorersRequest, context: Any) -> scorer_pb2.ListScorersResponse:
        described = scorer_pb2.Scorer(
            name="default",
            version="abc",
            router_kind="static",
            strong_model="large",
            weak_model="small",
            models=["large", "small"],
            limits=scorer_pb2.ScorerLimits(
                max_tokens=512, max_conversation_bytes=1024, max_batch_size=8, max_answer_bytes=2048, max_answers=4
            ),
            score_quantiles=[0.25, 0.5, 0.75],
            is_default=True,
            task=scorer_pb2.SCORER_TASK_PREDICT,
        )
        return scorer_pb2.ListScorersResponse(scorers=[described])

    def _score(self, request: scorer_pb2.ScoreRequest) -> scorer_pb2.ScoreResponse:
        self.requests.append(request)
        return scorer_pb2.ScoreResponse(
            win_probability=len(request.conversation.turns) / 100,
            calibrated=True,
            scorer="default",
            scorer_version="abc",
            pair_mismatch=bool(request.strong_model),
        )


async def _refuse(
    context: Any, code: grpc.StatusCode, reason: str, retry_after: float | None = None, cost: int = 0
) -> None:
    violations = (Violation("chat.messages[0]", "write something else"),) if reason == "INVALID_REQUEST" else ()
    status = RichStatus(
        code=code,
        message="not this one",
        reason=reason,
        violations=violations,
        retry_after=retry_after,
        metadata={"cost_nano_usd": str(cost)} if cost else {},
    )
    await context.abort_with_status(status.to_grpc())


@pytest.fixture
async def dispatcher() -> AsyncIterator[tuple[DispatcherServicer, str]]:
    servicer = DispatcherServicer()
    server = grpc.aio.server()
    dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def scorer() -> AsyncIterator[tuple[ScorerServicer, str]]:
    servicer = ScorerServicer()
    server = grpc.aio.server()
    scorer_pb2_grpc.add_ScorerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_answer_comes_with_its_decision_usage_and_cost(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client:
        answer = await client.complete("Why?")
    assert (answer.request_id, answer.content, answer.finish_reason) == ("made-here", "Because.", FinishReason.STOP)
    assert answer.usage == Usage(
        input_tokens=7,
        cached_input_tokens=5,
        cache_write_tokens=0,
        output_tokens=3,
        reasoning_tokens=1,
        source=UsageSource.REPORTED,
    )
    assert answer.decision == Decision(
        tier=Tier.STRONG,
        model="large",
        reason=Reason.AT_OR_ABOVE_ALPHA,
        alpha=0.25,
        alpha_source=AlphaSource.SHARE,
        win_probability=0.625,
        scorer="default",
        scorer_version="abc",
        pair_mismatch=False,
        cost_nano_usd=2_000,
        other_tier_cost_nano_usd=300,
        cost_source=CostSource.REPORTED,
    )


async def test_everything_a_caller_sets_reaches_the_service(dispatcher: tuple[DispatcherServicer, str]) -> None:
    servicer, address = dispatcher
    conversation = [Message(Role.DEVELOPER, "Be brief."), Message(Role.USER, "Why?", name="ada")]
    async with DispatcherClient(address, tenant="research", timeout=30) as client:
        answer = await client.complete(
            conversation,
            request_id="mine",
            alpha=0.0,
            labels={"team": "a"},
            conversation_id="c-1",
            timeout=9,
            max_tokens=48,
            stop=["END"],
            seed=0,
        )
    [request] = servicer.requests
    assert answer.request_id == "mine"
    assert request == dispatcher_pb2.CompleteRequest(
        chat=chat_pb2.Chat(
            messages=[
                chat_pb2.Message(role=chat_pb2.ROLE_DEVELOPER, content=[chat_pb2.ContentPart(text="Be brief.")]),
                chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Why?")], name="ada"),
            ],
            max_tokens=48,
            stop=["END"],
            seed=0,
        ),
        request_id="mine",
        alpha=0.0,
        labels={"team": "a"},
        conversation_id="c-1",
    )
    assert not request.chat.HasField("temperature")
    assert servicer.tenants == ["research"]
    assert servicer.time_left[0] == pytest.approx(9, abs=3)


async def test_without_a_tenant_no_tenant_is_sent_and_the_clients_deadline_holds(
    dispatcher: tuple[DispatcherServicer, str],
) -> None:
    servicer, address = dispatcher
    async with DispatcherClient(address, timeout=30) as client:
        await client.complete("Why?")
    assert servicer.tenants == [None]
    assert servicer.time_left[0] == pytest.approx(30, abs=3)
    assert not servicer.requests[0].HasField("alpha")


async def test_a_stream_gives_its_decision_first_and_its_cost_last(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client, client.stream_complete("Why?") as stream:
        assert (stream.request_id, stream.decision.model) == ("made-here", "large")
        assert (stream.decision.cost_source, stream.finish_reason) == (CostSource.PENDING, None)
        assert [text async for text in stream] == ["Be", "cause."]
        assert (stream.decision.cost_nano_usd, stream.decision.cost_source) == (2_000, CostSource.REPORTED)
        assert stream.finish_reason is FinishReason.LENGTH
        assert stream.usage is not None
        assert stream.usage.output_tokens == 3
        assert [text async for text in stream] == [], "a finished stream stays finished"


async def test_a_replaced_stream_begins_its_text_anew(dispatcher: tuple[DispatcherServicer, str]) -> None:
    servicer, address = dispatcher
    async with (
        DispatcherClient(address) as client,
        client.stream_complete("replace", accept_replacement=True) as stream,
    ):
        seen = [(text, stream.text, stream.replacements, stream.decision.model) async for text in stream]
    assert seen == [("Be", "Be", 0, "large"), ("cause.", "cause.", 1, "larger")]
    assert servicer.requests[0].accept_replacement
    async with DispatcherClient(address) as client, client.stream_complete("replace") as stream:
        events = [event.WhichOneof("event") async for event in stream.events()]
    assert events == ["delta", "replaced", "delta", "finished"]
    assert not servicer.requests[1].accept_replacement


async def test_leaving_a_stream_early_ends_the_call(dispatcher: tuple[DispatcherServicer, str]) -> None:
    servicer, address = dispatcher
    async with DispatcherClient(address) as client:
        async with client.stream_complete("hang") as stream:
            assert await anext(stream) == "Be"
        await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_a_stream_that_breaks_off_keeps_what_came_and_then_raises(
    dispatcher: tuple[DispatcherServicer, str],
) -> None:
    async with DispatcherClient(dispatcher[1]) as client, client.stream_complete("break off") as stream:
        assert [await anext(stream), await anext(stream)] == ["Be", "cause."]
        with pytest.raises(PointsmanCallError) as caught:
            await anext(stream)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
    assert (caught.value.retry_after, caught.value.cost_nano_usd) == (1.5, 2_000)
    assert stream.usage is not None
    assert (stream.decision.cost_nano_usd, stream.finish_reason) == (2_000, None)


async def test_a_stream_without_a_finish_is_an_error_and_not_an_end(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client, client.stream_complete("forget the finish") as stream:
        with pytest.raises(PointsmanCallError, match="ended without a finish"):
            [text async for text in stream]


async def test_a_stream_that_is_refused_raises_on_entering(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client:
        with pytest.raises(PointsmanCallError) as caught:
            async with client.stream_complete("refuse"):
                pytest.fail("a refused stream has no answer")
    assert caught.value.reason == "INVALID_REQUEST"


async def test_what_took_no_part_in_a_decision_is_none(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1], tenant="support") as client:
        decision = await client.route("Why?", alpha=0.5)
    assert (decision.tier, decision.reason) == (Tier.WEAK, Reason.SCORER_UNAVAILABLE)
    assert (decision.alpha, decision.win_probability, decision.alpha_source) == (None, None, AlphaSource.UNKNOWN)
    assert (dispatcher[0].requests[0].alpha, dispatcher[0].tenants) == (0.5, ["support"])


async def test_an_error_names_the_field_and_the_mend(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client:
        with pytest.raises(PointsmanCallError, match="not this one") as caught:
            await client.complete("refuse")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert error.violations == (Violation("chat.messages[0]", "write something else"),)
    assert error.retry_after is None
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


async def test_an_error_without_details_keeps_its_status_and_text(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client:
        with pytest.raises(PointsmanCallError) as caught:
            await client.complete("crash")
    error = caught.value
    assert (error.code, error.message, error.reason) == (grpc.StatusCode.UNKNOWN, "no details here", "")


async def test_a_call_past_its_deadline_ends_with_deadline_exceeded(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client:
        with pytest.raises(PointsmanCallError) as caught:
            await client.complete("sleep", timeout=0.2)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_busy_service_is_asked_again_after_its_delay(dispatcher: tuple[DispatcherServicer, str]) -> None:
    servicer, address = dispatcher
    async with DispatcherClient(address) as client:
        servicer.busy = 2
        assert (await client.complete("Why?")).content == "Because."
        servicer.busy = 1
        async with client.stream_complete("Why?") as stream:
            assert "".join([text async for text in stream]) == "Because."
        servicer.busy = 1
        assert (await client.route("Why?")).model == "small"
    assert len(servicer.requests) == 7


async def test_without_retries_or_after_the_last_one_the_error_is_the_callers(
    dispatcher: tuple[DispatcherServicer, str],
) -> None:
    servicer, address = dispatcher
    for retries, calls in ((0, 1), (2, 3)):
        servicer.busy, servicer.requests = 10, []
        async with DispatcherClient(address, retries=retries) as client:
            with pytest.raises(PointsmanCallError) as caught:
                await client.complete("Why?")
        assert (caught.value.reason, len(servicer.requests)) == ("UPSTREAM_RATE_LIMITED", calls)


async def test_one_channel_serves_many_callers(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1], tenant="one") as client:
        async with client.acting_as(tenant="two") as other:
            await other.complete("Why?")
        await client.complete("Why?")  # what leaving the other's context did not close
    assert dispatcher[0].tenants == ["two", "one"]


async def test_the_events_of_a_stream_are_everything_that_came(dispatcher: tuple[DispatcherServicer, str]) -> None:
    async with DispatcherClient(dispatcher[1]) as client, client.stream_complete("Why?") as stream:
        events = [event.WhichOneof("event") async for event in stream.events()]
    assert events == ["delta", "delta", "finished"]
    assert stream.finish_reason is FinishReason.LENGTH


def _sync(address: str) -> list[object]:
    """What the client without asyncio sees."""
    with SyncDispatcherClient(address, tenant="research") as client:
        answer = client.complete("Why?", request_id="mine")
        with client.stream_complete("Why?") as stream:
            text = "".join(stream)
        with client.stream_complete("Why?") as left_early:
            next(left_early)
        with client.stream_complete("Why?") as stream_of_events:
            events = [event.WhichOneof("event") for event in stream_of_events.events()]
        try:
            client.complete("refuse")
        except PointsmanCallError as error:
            reason = error.reason
        return [answer.content, text, stream.decision.cost_nano_usd, client.route("Why?").model, events, reason]


async def test_the_client_without_asyncio_sees_the_same(dispatcher: tuple[DispatcherServicer, str]) -> None:
    seen = await asyncio.to_thread(_sync, dispatcher[1])
    assert seen == ["Because.", "Because.", 2_000, "small", ["delta", "delta", "finished"], "INVALID_REQUEST"]
    assert set(dispatcher[0].tenants) == {"research"}


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(cls: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert methods(SyncDispatcherClient) == methods(DispatcherClient)


async def test_nobody_at_the_address_is_unavailable(unused_tcp_port: int) -> None:
    async with DispatcherClient(f"127.0.0.1:{unused_tcp_port}", timeout=5, retries=0) as client:
        with pytest.raises(PointsmanCallError) as caught:
            await client.complete("Why?")
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")


async def test_an_enum_value_of_a_newer_service_is_unknown_and_no_error() -> None:
    decision = _translation.decision(decision_pb2.Decision(reason=97))  # type: ignore[arg-type]
    assert decision.reason is Reason.UNKNOWN


@pytest.mark.parametrize(
    ("known", "proto"),
    [
        (Reason, decision_pb2.Reason),
        (Strategy, decision_pb2.Strategy),
        (StageResult, decision_pb2.StageResult),
        (LeftOut, decision_pb2.LeftOut),
        (AlphaSource, decision_pb2.AlphaSource),
        (CostSource, decision_pb2.CostSource),
        (Tier, decision_pb2.Tier),
    ],
)
def test_the_client_knows_every_value_of_the_contract(known: type[enum.StrEnum], proto: Any) -> None:
    prefix = proto.keys()[0].removesuffix("UNSPECIFIED")
    names = {name.removeprefix(prefix) for name in proto.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - no mapping
    assert {value.name for value in known} - {"UNKNOWN"} == names


def test_stages_say_what_was_scored_and_what_was_not() -> None:
    decision = _translation.decision(REPLACED)
    assert decision.stages == (
        Stage(
            model="large",
            result=StageResult.REJECTED,
            given=False,
            acceptance_probability=0.25,
            threshold=0.5,
            win_rate=None,
            cost_nano_usd=7,
            cost_source=CostSource.REPORTED,
        ),
    )
    assert decision.strategy is Strategy.CASCADE


@pytest.mark.parametrize(("tier", "expected"), [(Tier.STRONG, 2_000), (Tier.WEAK, 300)])
def test_the_all_strong_cost_is_the_strong_models_price_of_the_call(tier: Tier, expected: int) -> None:
    decision = Decision(
        tier=tier,
        model="m",
        reason=Reason.BELOW_ALPHA,
        alpha=None,
        alpha_source=AlphaSource.UNKNOWN,
        win_probability=None,
        scorer="",
        scorer_version="",
        pair_mismatch=False,
        cost_nano_usd=2_000,
        other_tier_cost_nano_usd=300,
        cost_source=CostSource.REPORTED,
    )
    assert decision.all_strong_cost_nano_usd == expected


async def test_a_score_comes_with_the_scorer_that_gave_it(scorer: tuple[ScorerServicer, str]) -> None:
    servicer, address = scorer
    async with ScorerClient(address) as client:
        score = await client.score(
            [Message(Role.DEVELOPER, "Be brief."), Message(Role.USER, "Why?")], scorer="default", strong_model="huge"
        )
    assert score == Score(
        win_probability=0.02,
        calibrated=True,
        scorer="default",
        scorer_version="abc",
        truncated=False,
        pair_mismatch=True,
    )
    [request] = servicer.requests
    assert [turn.role for turn in request.conversation.turns] == [scorer_pb2.ROLE_SYSTEM, scorer_pb2.ROLE_USER]
    assert (request.scorer, request.strong_model, request.weak_model) == ("default", "huge", "")


async def test_a_batch_is_answered_in_its_order(scorer: tuple[ScorerServicer, str]) -> None:
    turn = Message(Role.USER, "Why?")
    async with ScorerClient(scorer[1]) as client:
        scores = await client.batch_score([[turn, turn, turn], "Why?", [turn, turn]])
    assert [score.win_probability for score in scores] == [0.03, 0.01, 0.02]


async def test_an_answer_is_scored_and_answers_are_ranked(scorer: tuple[ScorerServicer, str]) -> None:
    async with ScorerClient(scorer[1]) as client:
        score = await client.score_answer([Message(Role.DEVELOPER, "Brief."), Message(Role.USER, "Why?")], "So.")
        ranking = await client.rank_answers("Why?", ["No.", "So be it."], scorer="mine")
    assert score == AnswerScore(
        acceptance_probability=0.03,
        scorer="judge",
        scorer_version="def",
        conversation_truncated=True,
        answer_truncated=True,
    )
    assert ranking == AnswerRanking(
        mean_win_probabilities=(0.03, 0.09),
        best_index=1,
        truncated=(True, False),
        conversation_truncated=False,
        scorer="mine",
        scorer_version="def",
    )


async def test_scorers_are_listed_with_limits_and_quantiles(scorer: tuple[ScorerServicer, str]) -> None:
    async with ScorerClient(scorer[1]) as client:
        [info] = await client.list_scorers()
    assert (info.name, info.router_kind, info.models, info.is_default) == (
        "default",
        "static",
        ("large", "small"),
        True,
    )
    assert (info.max_tokens, info.max_conversation_bytes, info.max_batch_size) == (512, 1024, 8)
    assert info.score_quantiles == (0.25, 0.5, 0.75)
