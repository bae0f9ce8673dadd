"""Traces with OpenTelemetry, sent over OTLP/HTTP. Needs the extra `otel`.

Endpoint, headers, sampler and batching are OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and its kin).
What spans say is in `trace_attributes`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from dispatcher_service import trace_attributes
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.errors import PointsmanError
from dispatcher_service.outcome import Outcome, Prediction, Ranking, Verdict
from dispatcher_service.ports import Judge, Scorer, Upstream
from dispatcher_service.routing import ModelPair
from pointsman.runtime.boundary import Ended

_CLIENT_FAULTS = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED",
     "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "CANCELLED"}
)  # fmt: skip
"""Statuses that do not make a server's span an error (OpenTelemetry's conventions for gRPC)."""


class OtelTracing:
    """Implements `tracing.Tracing`."""

    def __init__(self, *, service_name: str, version: str) -> None:
        resource = Resource.create({"service.name": service_name, "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pointsman.dispatcher", version)

    @contextlib.contextmanager
    def call(self, method: str, context: Any) -> Iterator[Ended]:
        """See `tracing.Tracing.call`."""
        caller = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(caller),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def ended(status: str) -> None:
                span.set_attribute("rpc.response.status_code", status)
                if status != "OK":
                    span.set_attribute("error.type", status)
                    if status not in _CLIENT_FAULTS:
                        span.set_status(StatusCode.ERROR)

            yield ended

    def scorer(self, inner: Scorer) -> Scorer:
        """See `tracing.Tracing.scorer`."""
        return _TracedScorer(inner, self._tracer)

    def judge(self, inner: Judge) -> Judge:
        """See `tracing.Tracing.judge`."""
        return _TracedJudge(inner, self._tracer)

    def upstream(self, inner: Upstream) -> Upstream:
        """See `tracing.Tracing.upstream`."""
        return _TracedUpstream(inner, self._tracer)

    def observe(self, outcome: Outcome) -> None:
        """See `tracing.Tracing.observe`."""
        span = trace.get_current_span()
        # An upstream call that is drained after its caller has gone ends later than the span.
        if span.is_recording():
            span.set_attributes(trace_attributes.of_outcome(outcome))

    def headers(self) -> Mapping[str, str]:
        """See `tracing.Tracing.headers`."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def trace_id(self) -> str:
        """See `tracing.Tracing.trace_id`."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""

    async def close(self) -> None:
        """See `tracing.Tracing.close`. Waits up to OTEL_EXPORTER_OTLP_TIMEOUT for a collector that is away."""
        await asyncio.to_thread(self._provider.shutdown)


class _TracedScorer:
    """Implements `ports.Scorer`."""

    def __init__(self, inner: Scorer, tracer: trace.Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction | None:
        with _scorer_span(self._tracer, "Score") as span:
            prediction = await self._inner.score(
                chat, tenant_id=tenant_id, pair=pair, every_model=every_model, scorer=scorer, timeout=timeout
            )
            if prediction is None:
                _fail(span, "no_prediction")
            else:
                span.set_attributes(trace_attributes.of_prediction(prediction))
        return prediction


class _TracedJudge:
    """Implements `ports.Judge`."""

    def __init__(self, inner: Judge, tracer: trace.Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict | None:
        with _scorer_span(self._tracer, "ScoreAnswer") as span:
            verdict = await self._inner.score_answer(chat, answer, scorer=scorer, timeout=timeout)
            if verdict is None:
                _fail(span, "no_verdict")
            else:
                span.set_attributes(trace_attributes.of_verdict(verdict))
        return verdict

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking | None:
        with _scorer_span(self._tracer, "RankAnswers") as span:
            ranking = await self._inner.rank_answers(chat, answers, scorer=scorer, timeout=timeout)
            if ranking is None:
                _fail(span, "no_ranking")
            else:
                span.set_attributes(trace_attributes.of_ranking(ranking))
        return ranking


class _TracedUpstream:
    """Implements `ports.Upstream`."""

    def __init__(self, inner: Upstream, tracer: trace.Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def complete(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> Completion:
        with _client_span(
            self._tracer, f"chat {deployment.upstream_model}", trace_attributes.of_call(deployment, chat, max_tokens)
        ) as span:
            completion = await self._inner.complete(deployment, chat, max_tokens=max_tokens, timeout=timeout)
            reasons = [choice.finish_reason for choice in completion.choices]
            span.set_attributes(trace_attributes.of_answer(reasons, completion.usage, completion.origin))
        return completion

    async def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        started = time.monotonic()
        attributes = {**trace_attributes.of_call(deployment, chat, max_tokens), "gen_ai.request.stream": True}
        span = self._tracer.start_span(f"chat {deployment.upstream_model}", kind=SpanKind.CLIENT, attributes=attributes)
        first = True
        events = self._inner.stream(deployment, chat, max_tokens=max_tokens, timeout=timeout)
        try:
            async with contextlib.aclosing(events):
                while True:
                    # Current around each read only: a generator that yields inside would leave it to its consumer.
                    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                        event = await anext(events, None)
                    if event is None:
                        return
                    if first:
                        first = False
                        span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - started)
                    if isinstance(event, End):
                        span.set_attributes(
                            trace_attributes.of_answer(list(event.finish_reasons), event.usage, event.origin)
                        )
                    yield event
        except BaseException as error:
            _fail(span, _error_type(error))
            raise
        finally:
            span.end()


@contextlib.contextmanager
def _client_span(
    tracer: trace.Tracer, name: str, attributes: Mapping[str, trace_attributes.Attribute]
) -> Iterator[Span]:
    """A current span that ends with the block; an error's type is written into it, and nothing else of it."""
    with tracer.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            _fail(span, _error_type(error))
            raise


def _scorer_span(tracer: trace.Tracer, method: str) -> contextlib.AbstractContextManager[Span]:
    """The span of a call of the scorer."""
    name = f"pointsman.scorer.v1.ScorerService/{method}"
    return _client_span(tracer, name, {"rpc.system.name": "grpc", "rpc.method": name})


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    if error_type != "CANCELLED":
        span.set_status(StatusCode.ERROR)


def _error_type(error: BaseException) -> str:
    if isinstance(error, PointsmanError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else type(error).__name__
