"""Prometheus metrics of the scorer. Every label set is closed: methods, statuses and causes here, scorers at start."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scorer_service.artifact import ScorerArtifact
from scorer_service.errors import ALL_ERRORS

METHODS: Final = ("Score", "BatchScore", "ScoreAnswer", "RankAnswers", "ListScorers")
STATUSES: Final = ("OK", "CANCELLED", "INTERNAL", *sorted({error.status for error in ALL_ERRORS}))
REASONS: Final = ("INTERNAL", *sorted({error.reason for error in ALL_ERRORS}))
SKIP_CAUSES: Final = ("cancelled", "expired")
TENTHS: Final = tuple(str(tenth) for tenth in range(1, 11))

_PREFIX: Final = "pointsman_scorer"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
# Tie-half probabilities crowd in a narrow band (.54 to .60 on MMLU): coarser buckets would show one bar.
_PROBABILITIES = tuple(round(0.02 * step, 2) for step in range(1, 51))


class Metrics:
    """The service's metrics in one registry. Its methods never raise for any outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", text, labels, buckets=buckets, registry=registry)

        requests = counter("requests", "Calls by gRPC method and status.", "method", "status")
        errors = counter("errors", "Calls that failed, by reason.", "reason")
        request_seconds = histogram("request_seconds", "Whole calls.", _SECONDS, "method")
        self._conversations = counter("conversations", "Conversations received, scored or not.")
        self._scored = counter("scored", "Conversations scored.", "scorer")
        self._truncated = counter("truncated", "Conversations longer than the window.", "scorer")
        self._pair_mismatch = counter("pair_mismatch", "Conversations scored for another pair than asked.", "scorer")
        self._skipped = counter("skipped", "Pieces of work nobody waited for any more.", "scorer", "cause")
        self._tokenization = histogram("tokenization_seconds", "Tokenising one batch.", _SECONDS, "scorer")
        self._queue = histogram("queue_seconds", "One conversation's wait for the worker.", _SECONDS, "scorer")
        self._inference = histogram("inference_seconds", "ONNX Runtime on one batch.", _SECONDS, "scorer")
        self._batch = histogram("batch_conversations", "Conversations scored together.", _SIZES, "scorer")
        self._tokens = histogram("tokens", "Tokens read of one conversation.", _TOKENS, "scorer")
        self._win_probability = histogram("win_probability", "Answers given.", _PROBABILITIES, "scorer")
        self._answers = counter("answers", "Model answers received, judged or not.")
        self._judged = counter("judged", "Model answers scored, and comparisons of two of them.", "scorer")
        self._acceptance = histogram("acceptance_probability", "Verdicts given.", _PROBABILITIES, "scorer")
        self._tenths = counter(
            "reference_tenth",
            "Answers by the tenth of the reference prompts' answers that they fall into, lowest first: a tenth of all "
            "each, as long as traffic is like the reference.",
            "scorer",
            "tenth",
        )
        self._depth = gauge("queue_conversations", "Conversations waiting for the worker.", "scorer")
        self._info = gauge(
            "artifact_info", "Always 1; the labels say what is served.", "scorer", "version", "router_kind"
        )
        self._golden = gauge(
            "golden_max_deviation", "Largest difference to a golden win probability, at start.", "scorer"
        )
        # Looked up once: `labels` takes a lock and builds a tuple each time. And at zero from the start, so that rate()
        # sees the first one.
        self._by_status = {
            (method, status): requests.labels(method, status) for method in METHODS for status in STATUSES
        }
        self._by_method = {method: request_seconds.labels(method) for method in METHODS}
        self._by_reason = {reason: errors.labels(reason) for reason in REASONS}

    def call_ended(self, method: str, status: str, seconds: float) -> None:
        """A call ended. See `pointsman.runtime.boundary.Observe`."""
        self._by_status[method, status].inc()
        self._by_method[method].observe(seconds)

    def call_failed(self, reason: str) -> None:
        """A call failed for this ErrorInfo reason."""
        self._by_reason[reason].inc()

    def received(self, conversations: int) -> None:
        """A call brought this many conversations."""
        self._conversations.inc(conversations)

    def answers_received(self, answers: int) -> None:
        """A call brought this many answers to judge."""
        self._answers.inc(answers)

    def loaded(self, name: str, artifact: ScorerArtifact, golden_deviation: float) -> "ScorerMetrics":
        """A scorer that predicts is ready; returns its part of the metrics."""
        self._ready(name, artifact, golden_deviation)
        return ScorerMetrics(self, name, _tenths(artifact.manifest.score_quantiles))

    def judge_loaded(self, name: str, artifact: ScorerArtifact, golden_deviation: float) -> "JudgeMetrics":
        """A scorer that judges answers is ready; returns its part of the metrics."""
        self._ready(name, artifact, golden_deviation)
        return JudgeMetrics(self, name)

    def _ready(self, name: str, artifact: ScorerArtifact, golden_deviation: float) -> None:
        self._info.labels(name, artifact.version, artifact.manifest.router_kind).set(1)
        self._golden.labels(name).set(golden_deviation)


class WorkMetrics:
    """What the metrics of every scorer have: its queue, its batches and their times. A `batching.Observer`."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._truncated = metrics._truncated.labels(name)
        self._skipped = {cause: metrics._skipped.labels(name, cause) for cause in SKIP_CAUSES}
        self._tokenization = metrics._tokenization.labels(name)
        self._queue = metrics._queue.labels(name)
        self._inference = metrics._inference.labels(name)
        self._batch = metrics._batch.labels(name)
        self._tokens = metrics._tokens.labels(name)
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


class ScorerMetrics(WorkMetrics):
    """The metrics of one scorer that predicts."""

    def __init__(self, metrics: Metrics, name: str, edges: Sequence[float]) -> None:
        """`edges` are the nine win probabilities between the tenths of the reference prompts' answers."""
        super().__init__(metrics, name)
        self._scored = metrics._scored.labels(name)
        self._pair_mismatch = metrics._pair_mismatch.labels(name)
        self._win_probability = metrics._win_probability.labels(name)
        self._edges = edges
        self._tenths = [metrics._tenths.labels(name, tenth) for tenth in TENTHS]

    def scored(
        self, *, win_probability: float, tokens: int, truncated: bool, mismatch: bool, queue_seconds: float
    ) -> None:
        """A conversation was answered."""
        self._scored.inc()
        self._win_probability.observe(win_probability)
        self._tenths[bisect_right(self._edges, win_probability)].inc()
        self._tokens.observe(tokens)
        self._queue.observe(queue_seconds)
        if truncated:
            self._truncated.inc()
        if mismatch:
            self._pair_mismatch.inc()


class JudgeMetrics(WorkMetrics):
    """The metrics of one scorer that judges answers."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        super().__init__(metrics, name)
        self._judged = metrics._judged.labels(name)
        self._acceptance = metrics._acceptance.labels(name)

    def judged(self, *, tokens: int, truncated: bool, queue_seconds: float) -> None:
        """An answer was scored, or two were compared."""
        self._judged.inc()
        self._tokens.observe(tokens)
        self._queue.observe(queue_seconds)
        if truncated:
            self._truncated.inc()

    def accepted(self, acceptance_probability: float) -> None:
        """An answer's score was given."""
        self._acceptance.observe(acceptance_probability)


def _tenths(quantiles: Sequence[float]) -> Sequence[float]:
    """The inner deciles of evenly spaced quantiles, linear between the given ones."""
    edges = []
    for tenth in range(1, 10):
        position = tenth / 10 * (len(quantiles) - 1)
        below = min(int(position), len(quantiles) - 2)
        edges.append(quantiles[below] + (position - below) * (quantiles[below + 1] - quantiles[below]))
    return edges
