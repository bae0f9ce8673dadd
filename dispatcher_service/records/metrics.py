"""What Prometheus sees of conversations, records and shadows. The rules of `metrics` hold: closed label sets."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from dispatcher_service import pricing
from dispatcher_service.metrics import PREFIX, tenant_labels
from dispatcher_service.outcome import Outcome
from dispatcher_service.pricing import NANO_USD_PER_USD
from dispatcher_service.records.shadows import ShadowChoice
from dispatcher_service.scorers import MAIN

PLACES = ("queue", "log", "lookup", "text", "shadow")
"""Where records can be lost. Closed: a metric label."""

OPINIONS = ("rating", "preference")
"""Kinds of feedback. Closed: a metric label."""

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class RecordMetrics:
    """All of them for one dispatcher. Methods never raise."""

    def __init__(self, registry: CollectorRegistry, *, tenants: Collection[str]) -> None:
        """`tenants` as in `metrics.Metrics`."""
        self._tenant = tenant_labels(tenants)
        self._store = Histogram(
            f"{PREFIX}_conversation_store_seconds",
            "Recalling and remembering conversations, by result; after `failed` a turn is decided by itself.",
            ["operation", "result"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._lost = Counter(
            f"{PREFIX}_records_lost", "Decision records that were lost, by where.", ["where"], registry=registry
        )
        for where in PLACES:
            self._lost.labels(where)  # from the start, so that a first loss is a rise from 0
        self._shadows = Counter(
            f"{PREFIX}_shadow_decisions",
            "What shadow settings would have chosen.",
            ["tenant", "shadow", "tier"],
            registry=registry,
        )
        self._shadow_cost = Counter(
            f"{PREFIX}_shadow_cost_usd",
            "What the same tokens would have cost where the shadow would have sent them, in US dollars.",
            ["tenant", "shadow"],
            registry=registry,
        )

        self._feedback = Counter(
            f"{PREFIX}_feedback",
            "Feedback by the scorer that serves the tenant now, and its kind; a repeated one counts again.",
            ["scorer", "kind"],
            registry=registry,
        )
        self._opinion = Counter(
            f"{PREFIX}_feedback_opinion",
            "Sum of what that feedback says of the answer: a rating as it is, 1 where the answer was preferred to "
            "another, one half for a tie, 0 where the other was.",
            ["scorer", "kind"],
            registry=registry,
        )
        for kind in OPINIONS:  # from the start, as above; a canary's begin with its first feedback
            self._feedback.labels(MAIN, kind)
            self._opinion.labels(MAIN, kind)

    def opinion(self, scorer: str, kind: str, value: float) -> None:
        """See `servicer.Told`."""
        self._feedback.labels(scorer, kind).inc()
        self._opinion.labels(scorer, kind).inc(value)

    def conversation_store(self, operation: str, result: str, seconds: float) -> None:
        """See `conversations.Observe`."""
        self._store.labels(operation, result).observe(seconds)

    def lost(self, where: str, count: int) -> None:
        """See `recorder.Lost`."""
        self._lost.labels(where).inc(count)

    def shadowed(self, outcome: Outcome, shadow: ShadowChoice) -> None:
        """See `recorder.Shadowed`."""
        tenant = self._tenant(outcome.request.tenant_id)
        self._shadows.labels(tenant, shadow.kind.value, shadow.decision.tier.value).inc()
        if outcome.bill is not None and outcome.choice is not None:
            alike = outcome.choice.decision.rung == shadow.decision.rung
            price = outcome.prices[shadow.decision.rung]
            cost = outcome.bill.cost if alike else pricing.cost(price, outcome.bill.usage)
            self._shadow_cost.labels(tenant, shadow.kind.value).inc(cost / NANO_USD_PER_USD)
