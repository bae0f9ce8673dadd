"""Traces of a real dispatcher at a real OTLP receiver: one span per call, one per scorer call, one per attempt."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pointsman.dispatcher.v1 import dispatcher_pb2
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from tests.dispatchers import STRONG, WEAK, Caller, chat, start_dispatcher
from tests.fakes import QUANTILES
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.otlp_receiver import OtlpReceiver, attributes, otlp_receiver
from tests.processes import ServiceProcess, eventually

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
CALL = "pointsman.dispatcher.v1.DispatcherService/Complete"
STREAM = "pointsman.dispatcher.v1.DispatcherService/StreamComplete"
SCORE = "pointsman.scorer.v1.ScorerService/Score"


class Scorer(scorer_pb2_grpc.ScorerServiceServicer):
    """Scores .4 and keeps the metadata of its calls."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []

    async def Score(self, request: object, context: Any) -> scorer_pb2.ScoreResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        return scorer_pb2.ScoreResponse(win_probability=0.4, scorer="fake", scorer_version="v1")

    async def BatchScore(self, request: object, context: Any) -> scorer_pb2.BatchScoreResponse:  # noqa: N802
        raise NotImplementedError

    async def ScoreAnswer(self, request: object, context: Any) -> scorer_pb2.ScoreAnswerResponse:  # noqa: N802
        return scorer_pb2.ScoreAnswerResponse(acceptance_probability=0.75, scorer="judge", scorer_version="j1")

    async def RankAnswers(self, request: Any, context: Any) -> scorer_pb2.RankAnswersResponse:  # noqa: N802
        ranked = [scorer_pb2.RankedAnswer(mean_win_probability=0.5) for _ in request.answers]
        return scorer_pb2.RankAnswersResponse(answers=ranked, scorer="ranker", scorer_version="r1")

    async def ListScorers(self, request: object, context: Any) -> scorer_pb2.ListScorersResponse:  # noqa: N802
        return scorer_pb2.ListScorersResponse(
            scorers=[scorer_pb2.Scorer(name="fake", version="v1", score_quantiles=QUANTILES)]
        )


STRATEGIES = f"""
[tenants.cascading]
strong_model = "{STRONG}"
weak_model = "{WEAK}"
strategy = "cascade"
cascade = {{ thresholds = [0.5] }}

[tenants.asking]
strong_model = "{STRONG}"
weak_model = "{WEAK}"
strategy = "ensemble"
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
async def scorer() -> AsyncIterator[tuple[str, Scorer]]:
    servicer, server = Scorer(), grpc.aio.server()
    scorer_pb2_grpc.add_ScorerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", servicer
    await server.stop(None)


@pytest.fixture
def dispatcher(
    scorer: tuple[str, Scorer], upstream: OpenAIServer, receiver: OtlpReceiver, tmp_path: Path
) -> Iterator[ServiceProcess]:
    environment = {"DISPATCHER_TRACING": "otlp", **receiver.environment()}
    with start_dispatcher(
        tmp_path, scorer=scorer[0], upstream=upstream.base_url, environment=environment, more=STRATEGIES
    ) as process:
        yield process.wait_until_serving()


def _spans(receiver: OtlpReceiver, count: int) -> list[Span]:
    for _ in eventually():
        if len(receiver.spans) >= count:
            break
    assert len(receiver.spans) == count, [span.name for span in receiver.spans]
    return receiver.spans


def _named(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_call_is_one_trace_from_the_caller_to_scorer_and_upstream(
    dispatcher: ServiceProcess, scorer: tuple[str, Scorer], upstream: OpenAIServer, receiver: OtlpReceiver
) -> None:
    async with Caller(dispatcher.grpc) as caller:
        request = dispatcher_pb2.CompleteRequest(chat=chat("hello"), request_id="traced", conversation_id="c-1")
        metadata = (*caller.metadata, ("traceparent", CALLER))
        answer = await caller.stub.Complete(request, metadata=metadata, timeout=10)
    spans = _spans(receiver, 3)
    call, score, attempt = _named(spans, CALL), _named(spans, SCORE), _named(spans, f"chat {WEAK}")
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert call.parent_span_id.hex() == CALLER.split("-")[2]
    assert score.parent_span_id == attempt.parent_span_id == call.span_id
    assert (call.kind, score.kind, attempt.kind) == (
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_CLIENT,
        Span.SPAN_KIND_CLIENT,
    )
    # What was sent along names the very span of the call that sent it.
    assert scorer[1].metadata[0]["traceparent"] == f"00-{TRACE_ID}-{score.span_id.hex()}-01"
    assert upstream.headers[-1]["traceparent"] == f"00-{TRACE_ID}-{attempt.span_id.hex()}-01"

    found = attributes(call.attributes)
    assert found["rpc.response.status_code"] == "OK"
    assert found["gen_ai.conversation.id"] == "c-1"
    assert found["pointsman.request_id"] == "traced"
    assert (found["pointsman.tier"], found["pointsman.reason"]) == ("weak", "below_alpha")
    assert found["pointsman.win_probability"] == pytest.approx(0.4)
    assert found["pointsman.cost_nano_usd"] == answer.decision.cost_nano_usd
    said = attributes(attempt.attributes)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == WEAK
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    # The upstream reports 20 input tokens, 5 of them cached, and 8 output tokens, 3 of them reasoning.
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.cache_read.input_tokens"]) == (20, 5)
    assert (said["gen_ai.usage.output_tokens"], said["gen_ai.usage.reasoning.output_tokens"]) == (8, 3)
    assert (said["pointsman.deployment"], said["server.address"]) == ("weak-1", "127.0.0.1")
    assert receiver.resources[0]["service.name"] == "pointsman-dispatcher"


async def test_verdicts_and_rankings_have_spans_of_their_own(
    dispatcher: ServiceProcess, receiver: OtlpReceiver
) -> None:
    service = "pointsman.scorer.v1.ScorerService"
    async with Caller(dispatcher.grpc, "cascading") as caller:
        await caller.complete("hello")
    spans = _spans(receiver, 3)
    call, verdict = _named(spans, CALL), _named(spans, f"{service}/ScoreAnswer")
    assert verdict.parent_span_id == call.span_id
    assert attributes(verdict.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{service}/ScoreAnswer",
        "pointsman.acceptance_probability": 0.75,
        "pointsman.scorer": "judge",
        "pointsman.scorer_version": "j1",
    }
    found = attributes(call.attributes)
    assert (found["pointsman.strategy"], found["pointsman.reason"]) == ("cascade", "accepted")
    async with Caller(dispatcher.grpc, "asking") as caller:
        await caller.complete("hello")
    spans = _spans(receiver, 7)
    ranking = _named(spans, f"{service}/RankAnswers")
    assert attributes(ranking.attributes)["pointsman.scorer"] == "ranker"
    assert {f"chat {STRONG}", f"chat {WEAK}"} <= {span.name for span in spans}


async def test_every_attempt_has_a_span_that_says_how_it_failed(
    dispatcher: ServiceProcess, receiver: OtlpReceiver
) -> None:
    async with Caller(dispatcher.grpc) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.complete("status 500")
    spans = _spans(receiver, 4)
    attempts = [span for span in spans if span.name == f"chat {WEAK}"]
    assert [attributes(span.attributes)["error.type"] for span in attempts] == ["UPSTREAM_UNAVAILABLE"] * 2
    assert [span.status.code for span in attempts] == [Status.STATUS_CODE_ERROR] * 2
    call = _named(spans, CALL)
    assert attributes(call.attributes)["rpc.response.status_code"] == "UNAVAILABLE"
    assert call.status.code == Status.STATUS_CODE_ERROR
    assert all(not span.events for span in spans)  # an exception's event would hold its words


async def test_a_stream_has_its_time_to_the_first_chunk_and_ends_when_the_caller_goes(
    dispatcher: ServiceProcess, receiver: OtlpReceiver
) -> None:
    async with Caller(dispatcher.grpc) as caller:
        await caller.stream("hello", alpha=0.0)
        call = caller.stub.StreamComplete(
            dispatcher_pb2.StreamCompleteRequest(chat=chat("drip"), alpha=0.0), metadata=caller.metadata, timeout=10
        )
        await call.read()
        call.cancel()
        spans = _spans(receiver, 6)
    whole, broken = [attributes(span.attributes) for span in spans if span.name == f"chat {STRONG}"]
    assert whole["gen_ai.request.stream"] is True
    assert whole["gen_ai.response.time_to_first_chunk"] > 0
    assert broken["error.type"] == "CANCELLED"
    assert [attributes(span.attributes)["rpc.response.status_code"] for span in spans if span.name == STREAM] == [
        "OK",
        "CANCELLED",
    ]


async def test_the_record_of_a_call_names_its_trace(
    dispatcher: ServiceProcess, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    async with Caller(dispatcher.grpc) as caller:
        await caller.complete("hello")
    call = _named(_spans(receiver, 3), CALL)
    for _ in eventually():
        if f'"trace_id": "{call.trace_id.hex()}"' in (tmp_path / "decisions.jsonl").read_text():
            break
