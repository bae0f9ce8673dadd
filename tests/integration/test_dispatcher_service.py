"""Dispatcher, scorer and upstream as real processes and a real HTTP server: what a caller sees."""

import asyncio
import json
import math
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from dispatcher_service.routing import Candidates
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2
from pointsman.runtime.status import decode
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from tests.dispatchers import STRONG, WEAK, Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import SCORER_PORTS, ServiceProcess
from training import streams

PROMPTS = [
    "Prove that there are infinitely many primes.",
    "hi",
    "Translate 'good morning' into French.",
    "def f(x):\n    return x + 1\n# What does f(f(2)) return?",
    "A train travels 120 km in 1.5 hours. What is its average speed?",
    "日本の首都はどこですか？",
    "Which of these is a noble gas? A. Oxygen B. Neon C. Iron D. Sulfur\nAnswer:",
    "Write a limerick about a lighthouse keeper who is afraid of the dark.",
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def scorer() -> Iterator[ServiceProcess]:
    with ServiceProcess("scorer_service", env=SCORER_PORTS) as process:
        yield process.wait_until_serving()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dispatcher")


@pytest.fixture(scope="module")
def dispatcher(directory: Path, scorer: ServiceProcess, upstream: OpenAIServer) -> Iterator[ServiceProcess]:
    with start_dispatcher(directory, scorer=scorer.grpc, upstream=upstream.base_url) as process:
        yield process.wait_until_serving()


@pytest.fixture
async def caller(dispatcher: ServiceProcess) -> AsyncIterator[Caller]:
    async with Caller(dispatcher.grpc) as caller:
        yield caller


async def test_a_decision_at_above_and_below_alpha(caller: Caller) -> None:
    for prompt in PROMPTS:
        p = (await caller.route(prompt)).win_probability
        at, above, below = [
            (await caller.complete(prompt, alpha=alpha)).decision
            for alpha in (p, math.nextafter(p, 0), math.nextafter(p, 1))
        ]
        assert (at.model, at.reason) == (STRONG, decision_pb2.REASON_AT_OR_ABOVE_ALPHA)
        assert (above.model, above.reason) == (STRONG, decision_pb2.REASON_AT_OR_ABOVE_ALPHA)
        assert (below.model, below.reason) == (WEAK, decision_pb2.REASON_BELOW_ALPHA)


async def test_the_win_probability_is_the_scorers(caller: Caller, scorer: ServiceProcess) -> None:
    async with grpc.aio.insecure_channel(scorer.grpc) as channel:
        stub = scorer_pb2_grpc.ScorerServiceStub(channel)
        for prompt in PROMPTS:
            turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=prompt)
            request = scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]))
            response = await stub.Score(request, timeout=10)
            decision = await caller.route(prompt)
            assert decision.win_probability == pytest.approx(response.win_probability, abs=1e-6)
            assert decision.scorer_version == response.scorer_version
            assert not decision.pair_mismatch


async def test_an_unpaced_shares_alpha_is_the_scorers_quantile(
    dispatcher: ServiceProcess, scorer: ServiceProcess
) -> None:
    async with grpc.aio.insecure_channel(scorer.grpc) as channel:
        listed = await scorer_pb2_grpc.ScorerServiceStub(channel).ListScorers(
            scorer_pb2.ListScorersRequest(), timeout=10
        )
    async with Caller(dispatcher.grpc, "unpaced") as caller:
        decision = await caller.route("hi")
    assert decision.alpha_source == decision_pb2.ALPHA_SOURCE_SHARE
    # Share .3 on 201 levels: the level .7 is number 140.
    assert decision.alpha == pytest.approx(listed.scorers[0].score_quantiles[140], abs=1e-9)


async def test_route_and_complete_and_stream_decide_alike(dispatcher: ServiceProcess) -> None:
    for tenant in ("default", "fixed", "unpaced", "mismatched"):
        async with Caller(dispatcher.grpc, tenant) as caller:
            for prompt in PROMPTS:
                # An answered call moves a paced alpha: each is compared with the route before it.
                assert await caller.route(prompt) == (await caller.stream(prompt))[0].started.decision
                routed = await caller.route(prompt)
                completed = (await caller.complete(prompt)).decision
                for field in ("tier", "model", "reason", "alpha", "alpha_source", "win_probability", "pair_mismatch"):
                    assert getattr(completed, field) == getattr(routed, field), field


async def test_cost_follows_from_the_reported_usage(caller: Caller) -> None:
    answer = await caller.complete("hello", alpha=0.0)
    # The upstream reports 15 + 5 input and 5 + 3 output tokens: at $10 and $30 per million, then at $0.60.
    assert answer.decision.cost_nano_usd == 20 * 10_000 + 8 * 30_000
    assert answer.decision.other_tier_cost_nano_usd == 28 * 600
    assert answer.decision.cost_source == decision_pb2.COST_SOURCE_REPORTED
    assert (answer.usage.input_tokens, answer.usage.cached_input_tokens) == (15, 5)
    assert answer.choices[0].content == f"{STRONG} says: hello"
    assert answer.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP


async def test_a_stream_is_the_decision_then_the_text_then_the_cost(caller: Caller) -> None:
    first, *deltas, last = await caller.stream("tell me more", alpha=1.0, request_id="r-7")
    assert first.started.request_id == "r-7"
    assert first.started.decision.model == WEAK
    assert first.started.decision.cost_source == decision_pb2.COST_SOURCE_PENDING
    assert "".join(delta.delta.content for delta in deltas) == f"{WEAK} says: tell me more"
    assert last.finished.decision.cost_nano_usd == 28 * 600
    assert last.finished.usage.reasoning_tokens == 3


async def test_missing_usage_is_billed_at_an_estimate_that_says_so(caller: Caller) -> None:
    for decision in (
        (await caller.complete("no usage", alpha=0.0)).decision,
        (await caller.stream("no usage", alpha=0.0))[-1].finished.decision,
    ):
        assert decision.cost_source == decision_pb2.COST_SOURCE_ESTIMATED
        # 8 bytes of prompt are 2 tokens; "gpt-4-1106-preview says: no usage" are 33 bytes, 9 tokens.
        assert decision.cost_nano_usd == 2 * 10_000 + 9 * 30_000


async def test_another_pair_is_routed_and_marked(dispatcher: ServiceProcess) -> None:
    async with Caller(dispatcher.grpc, "mismatched") as caller:
        assert (await caller.route("hi")).pair_mismatch
        await caller.complete("hi")
    assert any("another model pair" in entry["event"] for entry in map(_json, dispatcher.stderr))
    assert _sample(dispatcher, "pointsman_dispatcher_pair_mismatch", tenant="mismatched") == 1


@pytest.mark.parametrize(
    ("prompt", "code", "reason", "retry_after"),
    [
        ("status 400", grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED", None),
        ("status 401", grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", 1.0),
        ("status 429", grpc.StatusCode.UNAVAILABLE, "UPSTREAM_RATE_LIMITED", 7.0),
        ("status 500", grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", 1.0),
        ("nonsense", grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", 1.0),
    ],
)
async def test_an_upstreams_error_has_its_status_and_details(
    caller: Caller, prompt: str, code: grpc.StatusCode, reason: str, retry_after: float | None
) -> None:
    for call in (caller.complete, caller.stream):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(prompt)
        status = decode(caught.value)
        assert status is not None
        assert (status.code, status.reason, status.retry_after) == (code, reason, retry_after)
    assert (await caller.complete("hello")).choices[0].content.endswith("says: hello")


async def test_the_callers_deadline_bounds_the_upstream(caller: Caller) -> None:
    request = dispatcher_pb2.CompleteRequest(chat=chat("hang"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.stub.Complete(request, metadata=caller.metadata, timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def _image() -> chat_pb2.Chat:
    bad = chat("see")
    bad.messages[0].content.add(image_url=chat_pb2.ImageUrl(url="https://example.com/a.png"))
    return bad


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (dispatcher_pb2.CompleteRequest(), "chat.messages"),
        (dispatcher_pb2.CompleteRequest(chat=chat_pb2.Chat(messages=[chat_pb2.Message()])), "chat.messages[0].role"),
        (dispatcher_pb2.CompleteRequest(chat=_image()), "chat.messages[0].content[1]"),
        (dispatcher_pb2.CompleteRequest(chat=chat("x"), alpha=1.5), "alpha"),
        (dispatcher_pb2.CompleteRequest(chat=chat("x"), alpha=math.nan), "alpha"),
        (dispatcher_pb2.CompleteRequest(chat=chat("x" * 10_000_000)), "chat.messages"),
    ],
    ids=["empty", "no role", "image", "alpha above 1", "alpha NaN", "10 MB"],
)
async def test_bad_input_names_its_field_and_the_next_answer_is_right(
    caller: Caller, request_: dispatcher_pb2.CompleteRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.stub.Complete(request_, metadata=caller.metadata, timeout=30)
    status = decode(caught.value)
    assert status is not None
    assert status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in status.violations] == [field]
    assert (await caller.complete("hello", alpha=0.0)).choices[0].content == f"{STRONG} says: hello"


async def test_an_override_that_the_policy_forbids_and_an_unknown_tenant_are_refused(
    dispatcher: ServiceProcess,
) -> None:
    for tenant, code in (
        ("fixed", grpc.StatusCode.PERMISSION_DENIED),
        ("nobody", grpc.StatusCode.UNAUTHENTICATED),
    ):
        async with Caller(dispatcher.grpc, tenant) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.complete("hello", alpha=0.5)
            assert caught.value.code() is code


async def test_a_caller_who_goes_away_is_billed_what_came(
    caller: Caller, directory: Path, upstream: OpenAIServer
) -> None:
    before = upstream.disconnects
    request = dispatcher_pb2.StreamCompleteRequest(chat=chat("drip"), request_id="gone", alpha=0.0)
    call = caller.stub.StreamComplete(request, metadata=caller.metadata, timeout=30)
    async for event in call:
        if event.HasField("delta"):
            break
    call.cancel()
    record = await _record(directory, "gone")
    assert record["status"] == "CANCELLED"
    assert record["decision"]["cost_source"] == "COST_SOURCE_ESTIMATED"
    assert int(record["decision"]["cost_nano_usd"]) > 0
    for _ in range(500):
        if upstream.disconnects > before:
            break
        await asyncio.sleep(0.01)
    assert upstream.disconnects == before + 1


async def test_the_decision_log_holds_the_request_and_none_of_its_text(caller: Caller, directory: Path) -> None:
    secret = "the canary sang at noon"
    answer = await caller.complete(secret, request_id="logged", labels={"team": "search"})
    record = await _record(directory, "logged")
    assert record["tenant_id"] == "default"
    assert record["labels"] == {"team": "search"}
    assert int(record["decision"]["cost_nano_usd"]) == answer.decision.cost_nano_usd
    assert record["decision"]["win_probability"] == answer.decision.win_probability
    assert secret not in (directory / "decisions.jsonl").read_text()


async def test_the_decision_log_replays_in_the_simulation(caller: Caller, directory: Path) -> None:
    before = (await caller.complete("hello", request_id="first")).decision
    forced = (await caller.complete("hello", alpha=0.0, request_id="second")).decision
    await _record(directory, "second")
    calls = streams.read_log(directory / "decisions.jsonl", tenant="default").calls
    free, overridden = calls[-2:]
    costs = sorted((before.cost_nano_usd, before.other_tier_cost_nano_usd))
    assert free.candidates == Candidates.pair(before.win_probability or 0.0)
    assert free.costs == tuple(costs)
    assert (overridden.candidates, overridden.forced) == (None, 1)
    assert overridden.costs[1] == forced.cost_nano_usd


async def test_health_and_reflection_answer(dispatcher: ServiceProcess) -> None:
    service = "pointsman.dispatcher.v1.DispatcherService"
    async with grpc.aio.insecure_channel(dispatcher.grpc) as channel:
        for name in ("", service):
            response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        listed = {found.name async for answer in stream for found in answer.list_services_response.service}
    assert service in listed


async def test_the_metrics_add_up_to_the_answers(dispatcher: ServiceProcess, caller: Caller) -> None:
    before = _sample(dispatcher, "pointsman_dispatcher_cost_usd_total", tenant="default", model=STRONG)
    spent = sum([(await caller.complete("hello", alpha=0.0)).decision.cost_nano_usd for _ in range(5)])
    after = _sample(dispatcher, "pointsman_dispatcher_cost_usd_total", tenant="default", model=STRONG)
    assert after - before == pytest.approx(spent / 1e9, abs=1e-12)


async def _record(directory: Path, request_id: str) -> Any:
    for _ in range(500):
        whole, _, _ = (directory / "decisions.jsonl").read_text().rpartition("\n")  # the last line may be in the making
        for line in whole.splitlines():
            record = json.loads(line)
            if record["request_id"] == request_id:
                return record
        await asyncio.sleep(0.01)
    raise AssertionError(f"no record of {request_id}")


def _sample(process: ServiceProcess, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        text = response.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def _json(line: str) -> dict[str, str]:
    return json.loads(line) if line.startswith("{") else {"event": line}
