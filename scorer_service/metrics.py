"""Prometheus metrics of the scorer. Every label set is closed: methods, statuses and causes here, scorers at start."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scorer_service.artifact import ScorerArtifact

METHODS: Final = ("Score", "BatchScore", "ListScorers")
STATUSES: Final = (
    "OK",
    "CANCELLED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
)
SKIP_CAUSES: Final = ("cancelled", "expired")

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
# Tie-half probabilities crowd in a narrow band (.54 to .60 on MMLU): coarser buckets would show one bar.
_PROBABILITIES = tuple(round(0.02 * step, 2) for step in range(1, 51))


class Metrics:
    """The service's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "pointsman_scorer_requests", "Calls that ended.", ["method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "pointsman_scorer_request_seconds", "Whole calls.", ["method"], registry=registry, buckets=_SECONDS
        )
        self._conversations = Counter(
            "pointsman_scorer_conversations", "Conversations received, scored or not.", registry=registry
        )
        scorer = ["scorer"]
        self._scored = Counter("pointsman_scorer_scored", "Conversations scored.", scorer, registry=registry)
        self._truncated = Counter(
            "pointsman_scorer_truncated", "Conversations longer than the window.", scorer, registry=registry
        )
        self._pair_mismatch = Counter(
            "pointsman_scorer_pair_mismatch",
            "Conversations scored for another pair than asked.",
            scorer,
            registry=registry,
        )
        self._skipped = Counter(
            "pointsman_scorer_skipped", "Conversations nobody waited for.", ["scorer", "cause"], registry=registry
        )
        self._tokenization = Histogram(
            "pointsman_scorer_tokenization_seconds",
            "Tokenising one batch.",
            scorer,
            registry=registry,
            buckets=_SECONDS,
        )
        self._queue = Histogram(
            "pointsman_scorer_queue_seconds", "One conversation's wait.", scorer, registry=registry, buckets=_SECONDS
        )
        self._inference = Histogram(
            "pointsman_scorer_inference_seconds",
            "ONNX Runtime on one batch.",
            scorer,
            registry=registry,
            buckets=_SECONDS,
        )
        self._batch = Histogram(
            "pointsman_scorer_batch_conversations", "Scored together.", scorer, registry=registry, buckets=_SIZES
        )
        self._tokens = Histogram(
            "pointsman_scorer_tokens", "Tokens read of one conversation.", scorer, registry=registry, buckets=_TOKENS
        )
        self._win_probability = Histogram(
            "pointsman_scorer_win_probability", "Answers given.", scorer, registry=registry, buckets=_PROBABILITIES
        )
        self._depth = Gauge("pointsman_scorer_queue_conversations", "Conversations waiting.", scorer, registry=registry)
        self._info = Gauge(
            "pointsman_scorer_artifact_info",
            "Always 1; the labels say what is served.",
            ["scorer", "version", "router_kind"],
            registry=registry,
        )
        self._golden = Gauge(
            "pointsman_scorer_golden_max_deviation",
            "Largest difference to a golden win probability, at start.",
            scorer,
            registry=registry,
        )
        for method in METHODS:
            self._request_seconds.labels(method)
            for status in STATUSES:
                self._requests.labels(method, status)  # At zero from the start, so that rate() sees the first one.

    def request(self, method: str, status: str, seconds: float) -> None:
        """A call ended: see `Boundary`."""
        self._requests.labels(method, status).inc()
        self._request_seconds.labels(method).observe(seconds)

    def received(self, conversations: int) -> None:
        """A call brought this many conversations."""
        self._conversations.inc(conversations)

    def loaded(self, name: str, artifact: ScorerArtifact, golden_deviation: float) -> "ScorerMetrics":
        """A scorer is ready; returns its part of the metrics."""
        self._info.labels(name, artifact.version, artifact.manifest.router_kind).set(1)
        self._golden.labels(name).set(golden_deviation)
        return ScorerMetrics(self, name)


class ScorerMetrics:
    """The metrics of one scorer; implements `batching.Observer`."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        # Looked up once: `labels` takes a lock and builds a tuple each time.
        self._scored = metrics._scored.labels(name)
        self._truncated = metrics._truncated.labels(name)
        self._pair_mismatch = metrics._pair_mismatch.labels(name)
        self._skipped = {cause: metrics._skipped.labels(name, cause) for cause in SKIP_CAUSES}
        self._tokenization = metrics._tokenization.labels(name)
        self._queue = metrics._queue.labels(name)
        self._inference = metrics._inference.labels(name)
        self._batch = metrics._batch.labels(name)
        self._tokens = metrics._tokens.labels(name)
        self._win_probability = metrics._win_probability.labels(name)
        self._depth = metrics._depth.labels(name)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the queue's depth at each scrape."""
        self._depth.set_function(depth)

    def batch(self, size: int) -> None:
        """See `batching.Observer`."""
        self._batch.observe(size)

    def skipped(self, cause: str) -> None:
        """See `batching.Observer`."""
        self._skipped[cause].inc()

    def ran(self, *, tokenization_seconds: float, inference_seconds: float) -> None:
        """A batch was tokenised and run."""
        self._tokenization.observe(tokenization_seconds)
        self._inference.observe(inference_seconds)

    def scored(
        self, *, win_probability: float, tokens: int, truncated: bool, mismatch: bool, queue_seconds: float
    ) -> None:
        """A conversation was answered."""
        self._scored.inc()
        self._win_probability.observe(win_probability)
        self._tokens.observe(tokens)
        self._queue.observe(queue_seconds)
        if truncated:
            self._truncated.inc()
        if mismatch:
            self._pair_mismatch.inc()
