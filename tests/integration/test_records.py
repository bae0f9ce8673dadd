"""Conversations and records over two real dispatchers that share a ledger, on SQLite and on Valkey."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dispatcher_service.records.decision_log_otlp import OtlpLines
from pointsman.client import DispatcherClient, PointsmanCallError, Preference
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2, records_pb2
from pointsman.runtime.status import decode
from tests.dispatchers import STRONG, WEAK, Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.processes import SCORER_PORTS, ServiceProcess, eventually, run_to_end
from tests.valkey import ValkeyServer
from training import data as training_data
from training.cli import DEFAULT_ARTIFACT

TENANTS = {
    "default": 'log_text = true\nshadow = { alpha = 0.0, scorer = "candidate" }\nsticky = "strong"',
    "fixed": 'usd_per_day = 0.01\non_exhausted = "degrade"\nallow_alpha_override = true',
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def scorer() -> Iterator[ServiceProcess]:
    artifacts = f"default={DEFAULT_ARTIFACT},candidate={DEFAULT_ARTIFACT}"
    with ServiceProcess("scorer_service", env={**SCORER_PORTS, "SCORER_ARTIFACTS": artifacts}) as process:
        yield process.wait_until_serving()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ledger")
    if request.param == "sqlite":
        yield f"sqlite:{folder / 'ledger.db'}"
        return
    server = ValkeyServer(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.kill()


@pytest.fixture(scope="module")
def log(ledger: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decision log, which both replicas append to."""
    return tmp_path_factory.mktemp("log") / "decisions.jsonl"


@pytest.fixture(scope="module")
def replicas(
    ledger: str, log: Path, scorer: ServiceProcess, upstream: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ServiceProcess]]:
    processes = [
        start_dispatcher(
            tmp_path_factory.mktemp("replica"),
            scorer=scorer.grpc,
            upstream=upstream.base_url,
            tenants=TENANTS,
            environment={"DISPATCHER_LEDGER": ledger, "DISPATCHER_DECISION_LOG": str(log)},
        )
        for _ in range(2)
    ]
    with processes[0] as one, processes[1] as two:
        yield [one.wait_until_serving(), two.wait_until_serving()]


def _lines(log: Path) -> list[dict[str, Any]]:
    """The whole lines so far."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def _decision(caller: Caller, request_id: str) -> records_pb2.GetDecisionResponse:
    return await caller.records.GetDecision(
        records_pb2.GetDecisionRequest(request_id=request_id), metadata=caller.metadata, timeout=10
    )


async def _eventually_decided(caller: Caller, request_id: str) -> records_pb2.GetDecisionResponse:
    """Other replicas find a record when it has been written, a moment after the answer."""
    for _ in eventually():
        try:
            return await _decision(caller, request_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    raise AssertionError("eventually() has raised")


async def _complete(caller: Caller, messages: chat_pb2.Chat, **fields: object) -> dispatcher_pb2.CompleteResponse:
    request = dispatcher_pb2.CompleteRequest(chat=messages, **fields)  # type: ignore[arg-type]
    return await caller.stub.Complete(request, metadata=caller.metadata, timeout=10)


async def test_replicas_agree_on_a_conversation(replicas: list[ServiceProcess]) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        assert (await one.complete("hard", alpha=0.0, conversation_id="c-1")).decision.model == STRONG
        follows = (await two.complete("easy", alpha=1.0, conversation_id="c-1")).decision
        assert (follows.model, follows.reason) == (STRONG, decision_pb2.REASON_STICKY_CONVERSATION)
        assert not follows.HasField("alpha")
        assert (await two.route("easy", alpha=1.0, conversation_id="c-1")).model == STRONG
        assert (await two.complete("easy", alpha=1.0, conversation_id="c-2")).decision.model == WEAK
    async with Caller(replicas[1].grpc, "strict") as other:
        # The other tenant's conversation of the same name is another one.
        assert (await other.route("easy", conversation_id="c-1")).reason != decision_pb2.REASON_STICKY_CONVERSATION


async def test_a_tool_loop_goes_on_at_another_replica_without_a_conversation_id(
    replicas: list[ServiceProcess],
) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        called = await one.complete("call a tool", alpha=1.0)
        assert called.decision.model == WEAK
        loop = chat("call a tool")
        loop.messages.add(role=chat_pb2.ROLE_ASSISTANT, tool_calls=called.choices[0].tool_calls)
        loop.messages.add(
            role=chat_pb2.ROLE_TOOL,
            tool_call_id=called.choices[0].tool_calls[0].id,
            content=[chat_pb2.ContentPart(text="42")],
        )
        result = (await _complete(two, loop, alpha=0.0)).decision
        assert (result.model, result.reason) == (WEAK, decision_pb2.REASON_TOOL_LOOP)


async def test_a_hard_limit_stands_above_the_tool_loop_and_that_above_the_conversation(
    replicas: list[ServiceProcess],
) -> None:
    """$0.01 a day: a strong answer of 4,096 tokens may cost $0.12, a weak one $0.0025."""
    async with Caller(replicas[0].grpc, "fixed") as caller:
        first = chat("call a tool")
        first.max_tokens = 8
        called = await _complete(caller, first, alpha=0.0, conversation_id="c-limit")
        assert called.decision.model == STRONG
        loop = chat("call a tool")
        loop.messages.add(role=chat_pb2.ROLE_ASSISTANT, tool_calls=called.choices[0].tool_calls)
        loop.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id="call_0", content=[chat_pb2.ContentPart(text="42")])
        loop.max_tokens = 4096
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _complete(caller, loop, alpha=1.0, conversation_id="c-limit")
        status = decode(caught.value)
        assert status is not None
        assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")

        turn = chat("go on")
        turn.max_tokens = 4096
        degraded = (await _complete(caller, turn, alpha=1.0, conversation_id="c-limit")).decision
        assert (degraded.model, degraded.reason) == (WEAK, decision_pb2.REASON_BUDGET_DEGRADED)
        turn.max_tokens = 8
        again = (await _complete(caller, turn, alpha=1.0, conversation_id="c-limit")).decision
        assert (again.model, again.reason) == (STRONG, decision_pb2.REASON_STICKY_CONVERSATION)


async def test_any_replica_says_why_a_request_was_weak(replicas: list[ServiceProcess]) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        answer = await one.complete("why? write to ada@example.com", alpha=1.0, request_id="why-1")
        assert (await _decision(one, "why-1")).record.decision.model == WEAK  # at once, where it was answered
        found = await _eventually_decided(two, "why-1")
        for _ in eventually():
            if found.record.HasField("text"):
                break
            found = await _decision(two, "why-1")
    assert found.record.decision == answer.decision
    assert found.explanation.startswith(f"It went weak, to {WEAK}: the probability")
    assert "Another dial, in its shadow, would have gone strong" in found.explanation
    dial, other = found.record.shadows
    assert (dial.kind, dial.tier) == (decision_pb2.SHADOW_KIND_DIAL, decision_pb2.TIER_STRONG)
    assert (other.kind, other.scorer) == (decision_pb2.SHADOW_KIND_SCORER, "candidate")
    assert other.win_probability == pytest.approx(answer.decision.win_probability, abs=1e-6)  # the same artefact twice
    assert [message.text for message in found.record.text.messages] == ["why? write to [email]"]


async def test_feedback_is_kept_with_its_request_and_logged(replicas: list[ServiceProcess], log: Path) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        await one.complete("rate me", request_id="rated")
        await _eventually_decided(two, "rated")
        for opinion in ({"rating": 1.0}, {"preference": decision_pb2.PREFERENCE_OTHER}):
            await two.records.RecordFeedback(
                records_pb2.RecordFeedbackRequest(request_id="rated", **opinion),
                metadata=two.metadata,
                timeout=10,
            )
        assert (await _decision(one, "rated")).record.feedback.preference == decision_pb2.PREFERENCE_OTHER
    for _ in eventually():
        rated = [line for line in _lines(log) if line["request_id"] == "rated"]
        if len(rated) == 3:
            break
    assert [line["kind"] for line in rated] == ["RECORD_KIND_DECISION", *["RECORD_KIND_FEEDBACK"] * 2]
    assert (rated[1]["rating"], rated[2]["preference"]) == (1.0, "PREFERENCE_OTHER")


async def test_feedback_becomes_training_data(replicas: list[ServiceProcess], ledger: str, tmp_path: Path) -> None:
    async with Caller(replicas[0].grpc) as caller:
        for request_id, alpha in (("label-strong", 0.0), ("label-weak", 1.0)):
            await caller.complete(f"a lesson, {request_id}", request_id=request_id, alpha=alpha)
            await caller.records.RecordFeedback(
                records_pb2.RecordFeedbackRequest(request_id=request_id, preference=decision_pb2.PREFERENCE_CHOSEN),
                metadata=caller.metadata,
                timeout=10,
            )
            for _ in eventually():
                if (await _decision(caller, request_id)).record.HasField("text"):
                    break
    file = tmp_path / "decisions.jsonl"
    arguments = ["--tenant", "default", "--ledger", ledger, "--out", str(file)]
    exported = run_to_end("pointsman.cli", "decisions", "export", *arguments, env={})
    assert exported.code == 0, exported.stderr
    labelled = training_data.read(file).pair()
    found = dict(zip(labelled.prompts, labelled.labels, strict=True))
    assert found["a lesson, label-strong"] == 1.0
    assert found["a lesson, label-weak"] == 0.0


async def test_the_client_asks_rates_and_erases(replicas: list[ServiceProcess]) -> None:
    async with DispatcherClient(replicas[0].grpc, tenant="default") as client:
        answer = await client.complete("hello", conversation_id="c-7", alpha=1.0)
        explained = await client.get_decision(answer.request_id)
        assert explained.decision == answer.decision
        assert explained.text.startswith("It went weak")
        await client.record_feedback(answer.request_id, preference=Preference.TIE)
        with pytest.raises(PointsmanCallError, match="rating"):
            await client.record_feedback(answer.request_id)
        assert await client.erase_conversation("c-7") >= 1


async def test_another_tenant_finds_rates_and_erases_nothing(replicas: list[ServiceProcess]) -> None:
    async with Caller(replicas[0].grpc) as owner, Caller(replicas[0].grpc, "strict") as other:
        await owner.complete("mine", request_id="mine", conversation_id="mine", alpha=0.0)
        await _decision(owner, "mine")
        for call in (
            other.records.GetDecision(
                records_pb2.GetDecisionRequest(request_id="mine"), metadata=other.metadata, timeout=10
            ),
            other.records.RecordFeedback(
                records_pb2.RecordFeedbackRequest(request_id="mine", rating=0), metadata=other.metadata, timeout=10
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            status = decode(caught.value)
            assert status is not None
            assert (status.code, status.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        repeated = await other.complete("mine", request_id="mine")
        assert repeated.idempotency == dispatcher_pb2.IDEMPOTENCY_KEPT  # its own answer, and not the owner's again
        erased = await other.records.EraseConversation(
            records_pb2.EraseConversationRequest(conversation_id="mine"), metadata=other.metadata, timeout=10
        )
        assert erased.erased_items == 0
        assert (await owner.route("x", alpha=1.0, conversation_id="mine")).model == STRONG


async def test_an_erased_conversation_is_forgotten_on_every_replica(
    replicas: list[ServiceProcess], ledger: str
) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        await one.complete("forget me", request_id="forget", conversation_id="c-9", alpha=0.0)
        for _ in eventually():
            if (await _eventually_decided(two, "forget")).record.HasField("text"):
                break
        await two.records.EraseConversation(
            records_pb2.EraseConversationRequest(conversation_id="c-9"), metadata=two.metadata, timeout=10
        )
        assert not (await _decision(one, "forget")).record.HasField("text")
        assert (await one.route("x", alpha=1.0, conversation_id="c-9")).model == WEAK
        exported = run_to_end(
            "pointsman.cli", "decisions", "export", "--tenant", "default", "--ledger", ledger, "--with-text", env={}
        )
        assert exported.code == 0, exported.stderr
        records = [json.loads(line) for line in exported.stdout.splitlines()]
        assert "forget" not in {record["request_id"] for record in records}
        assert all(record["text"]["messages"] for record in records)
        await one.records.EraseTenant(records_pb2.EraseTenantRequest(), metadata=one.metadata, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await _decision(two, "forget")


async def test_an_erased_answer_is_not_repeated(replicas: list[ServiceProcess]) -> None:
    async with Caller(replicas[0].grpc) as one, Caller(replicas[1].grpc) as two:
        named = {"request_id": "repeat", "conversation_id": "c-repeat"}
        await one.complete("say it again", **named)
        assert (await two.complete("say it again", **named)).idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED
        await two.records.EraseConversation(
            records_pb2.EraseConversationRequest(conversation_id="c-repeat"), metadata=two.metadata, timeout=10
        )
        assert (await one.complete("say it again", **named)).idempotency != dispatcher_pb2.IDEMPOTENCY_REPLAYED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (records_pb2.RecordFeedbackRequest(request_id="x"), "rating"),
        (records_pb2.RecordFeedbackRequest(request_id="x", rating=1.5), "rating"),
        (records_pb2.RecordFeedbackRequest(rating=1), "request_id"),
        (records_pb2.GetDecisionRequest(), "request_id"),
        (records_pb2.EraseConversationRequest(), "conversation_id"),
        (records_pb2.EraseConversationRequest(conversation_id="x" * 129), "conversation_id"),
    ],
)
async def test_what_cannot_be_used_is_named(replicas: list[ServiceProcess], request_: object, field: str) -> None:
    async with Caller(replicas[0].grpc) as caller:
        method = getattr(caller.records, type(request_).__name__.removesuffix("Request"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request_, metadata=caller.metadata, timeout=10)
    status = decode(caught.value)
    assert status is not None
    assert (status.code, status.violations[0].field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


async def test_the_log_goes_to_an_otlp_receiver_too(
    scorer: ServiceProcess, upstream: OpenAIServer, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    starting = start_dispatcher(
        tmp_path,
        scorer=scorer.grpc,
        upstream=upstream.base_url,
        environment={"DISPATCHER_DECISION_LOG": "otlp", **receiver.environment()},
    )
    with starting as process:
        async with Caller(process.wait_until_serving().grpc) as caller:
            await caller.complete("hello", request_id="over-otlp")
        assert process.stop() == 0
    (line,) = map(json.loads, receiver.logs)
    assert (line["kind"], line["request_id"]) == ("RECORD_KIND_DECISION", "over-otlp")


def test_what_a_collector_does_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    lines = OtlpLines(service_name="test", version="0")
    with pytest.raises(OSError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        lines.write(["{}"])
    lines.close()
