"""What Prometheus sees of the dispatcher. Names begin with `pointsman_dispatcher_`; units are base units.

Label sets are closed: `tenant` holds at most `MAX_TENANT_LABELS` configured tenants and `other` for the rest; reasons
and statuses never stand in one metric with a tenant; no histogram has a tenant. Money leaves the integers only here,
for graphs: a float counter holds micro-dollars exactly up to billions of dollars, and the ledger holds the truth.
"""

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dispatcher_service import comparing
from dispatcher_service.auth import Method, Result
from dispatcher_service.breaker import BreakerState
from dispatcher_service.failover import AttemptResult
from dispatcher_service.outcome import Attempted, Choice, Outcome
from dispatcher_service.pricing import NANO_USD_PER_USD, UsageSource
from dispatcher_service.strategy_policies import StrategyName

_BREAKER_STATES = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}

MAX_TENANT_LABELS = 200
OTHER = "other"
PREFIX = "pointsman_dispatcher"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
# Tie-half probabilities crowd between .4 and .7: the buckets are finer there.
_PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.525, 0.55, 0.575, 0.6, 0.625, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
_ACCEPTANCES = tuple(step / 20 for step in range(1, 21))


def tenant_labels(tenants: Collection[str]) -> Callable[[str], str]:
    """The label of a tenant: the first of the configured ones, in the file's order, have one of their own."""
    own = frozenset(list(tenants)[:MAX_TENANT_LABELS])
    return lambda tenant_id: tenant_id if tenant_id in own else OTHER


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def children(metric: _Metric) -> Callable[..., _Metric]:
    """`metric.labels`, which finds a child that it has given before without validating its labels again.

    A request looks up some thirty of them. Label sets are closed, so that what is remembered is bounded; not for
    metrics whose children are removed.
    """
    return functools.cache(metric.labels)


class Metrics:
    """All metrics of one dispatcher. Its methods never raise for any outcome."""

    def __init__(self, registry: CollectorRegistry, *, tenants: Collection[str]) -> None:
        """`tenants` are the configured ones, in the file's order: the first 200 get a label of their own."""
        self._tenant = tenant_labels(tenants)

        def counter(name: str, text: str, *labels: str) -> Callable[..., Counter]:
            return children(Counter(f"{PREFIX}_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, *labels: str) -> Callable[..., Gauge]:
            return children(Gauge(f"{PREFIX}_{name}", text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Callable[..., Histogram]:
            return children(Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=registry))

        self._requests = counter("requests", "Calls by gRPC method and status.", "method", "status")
        self._errors = counter("errors", "Calls that failed, by reason.", "reason")
        self._auth = counter("auth", "Calls by kind of credential and what came of it.", "method", "result")
        self._decisions = counter("decisions", "Requests by tenant and the tier of the chosen model.", "tenant", "tier")
        self._models = counter(
            "model_decisions", "Requests by tenant and the model that was chosen.", "tenant", "model"
        )
        self._strong_calls = counter(
            "strong_call_equivalents",
            "Sum of x over requests: 1 at the strongest model, 0 at the cheapest, between them by cost. A share of "
            "strong calls is a share of these.",
            "tenant",
        )
        self._reasons = counter("decision_reasons", "Decisions by reason and tier.", "reason", "tier")
        self._stages = counter(
            "stages", "Models of cascades and ensembles, by what became of them.", "strategy", "result"
        )
        self._cost = counter("cost_usd", "What upstream calls cost, in US dollars.", "tenant", "model")
        self._all_strong = counter(
            "all_strong_cost_usd",
            "What the same tokens would have cost at the strong model, in US dollars: savings are this minus cost.",
            "tenant",
        )
        self._tokens = counter("tokens", "Tokens by model and class; classes are disjoint.", "model", "token_class")
        self._usage_missing = counter(
            "usage_missing", "Calls billed at an estimate, since the upstream reported no usage.", "model"
        )
        self._idempotency = counter(
            "idempotency", "What became of requests that callers named, by event (see idempotency.EVENTS).", "event"
        )
        self._alpha = gauge("alpha", "The tenant's latest cost threshold.", "tenant")
        self._alpha_sources = counter("alpha_sources", "Decisions by where their alpha came from.", "source")
        self._pair_mismatch = gauge(
            "pair_mismatch", "1 if the tenant's models are not the pair that its scorer was fitted on.", "tenant"
        )
        self._not_compared = gauge(
            "models_not_compared", "Models of the tenant that its scorer does not compare with the others.", "tenant"
        )
        self._attempts = counter("attempts", "Turns of a deployment, by how they ended.", "deployment", "result")
        self._drains = counter("drains", "Calls that went on after their caller had gone, by how they ended.", "result")
        self._upstream_in_flight = gauge("upstream_in_flight", "Upstream calls under way.", "deployment")
        self._breaker = gauge("breaker_state", "0: closed, calls pass; 1: half open; 2: open.", "deployment")
        self._tasks = Gauge(
            f"{PREFIX}_tasks", "Tasks of the event loop: what grows without load is a leak.", registry=registry
        )
        self._in_flight = gauge("requests_in_flight", "Calls being answered.", "method")
        self._probability = Histogram(
            f"{PREFIX}_win_probability", "Predicted win probabilities.", buckets=_PROBABILITIES, registry=registry
        )
        self._acceptance = Histogram(
            f"{PREFIX}_acceptance_probability",
            "Predicted of a cascade's answers.",
            buckets=_ACCEPTANCES,
            registry=registry,
        )
        self._scorer = histogram(
            "scorer_seconds", "Waiting for a scorer, by its name and the result.", _SHORT_SECONDS, "scorer", "result"
        )
        self._scorer_breaker = gauge("scorer_breaker_state", "As breaker_state, of a scorer.", "scorer")
        self._upstream = histogram("upstream_seconds", "Waiting for the upstream.", _SECONDS, "model")
        self._first_token = histogram(
            "time_to_first_token_seconds", "Upstream call to first content of streamed answers.", _SECONDS, "model"
        )
        self._overhead = histogram(
            "overhead_seconds",
            "Our own time: total minus upstream; of a stream with the time in which the caller read. Not of ensembles.",
            _SHORT_SECONDS,
            "method",
        )

    def call_ended(self, method: str, status: str, _seconds: float) -> None:
        """A gRPC call ended. See `pointsman.runtime.boundary.Observe`."""
        self._requests(method, status).inc()

    def call_failed(self, reason: str) -> None:
        """A gRPC call failed for this ErrorInfo reason."""
        self._errors(reason).inc()

    def call_refused(self, method: str, status: str, reason: str) -> None:
        """A gRPC call was refused before it reached its method."""
        self._requests(method, status).inc()
        self._errors(reason).inc()

    def authenticated(self, method: Method, result: Result) -> None:
        """See `auth.Observe`."""
        self._auth(method.value, result.value).inc()

    def scorer_called(self, scorer: str, result: str, seconds: float) -> None:
        """See `scorers.Observe`."""
        self._scorer(scorer, result).observe(seconds)

    def watch_scorers(self, states: Mapping[str, Callable[[], BreakerState]]) -> None:
        """As `watch_breakers`, for scorers by name."""
        for scorer, state in states.items():
            self._scorer_breaker(scorer).set_function(partial(_as_number, state))

    def request_named(self, event: str) -> None:
        """What became of a request that its caller named. See `idempotency.Idempotent`."""
        self._idempotency(event).inc()

    def attempt_began(self, deployment: str) -> None:
        """See `gates.Observe`."""
        self._upstream_in_flight(deployment).inc()

    def attempt_ended(self, deployment: str, result: AttemptResult) -> None:
        """See `gates.Observe`."""
        self._upstream_in_flight(deployment).dec()
        self._attempts(deployment, result.value).inc()

    def attempt_skipped(self, deployment: str) -> None:
        """See `gates.Observe`."""
        self._attempts(deployment, AttemptResult.SKIPPED.value).inc()

    def drained(self, result: str) -> None:
        """See `drains.Observe`."""
        self._drains(result).inc()

    def watch_breakers(self, states: Mapping[str, Callable[[], BreakerState]]) -> None:
        """Show these breakers' states, by deployment. They are read when the metrics are: time alone changes them."""
        for deployment, state in states.items():
            self._breaker(deployment).set_function(partial(_as_number, state))

    def watch_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Show how many tasks a loop has. They are counted when the metrics are read, on another thread."""
        self._tasks.set_function(lambda: float(len(asyncio.all_tasks(loop))))

    def in_flight(self, method: str) -> Gauge:
        """How many calls of a method are being answered."""
        return self._in_flight(method)

    def observe(self, outcome: Outcome) -> None:
        """See `outcome.Record`."""
        choice = outcome.choice
        if choice is None or choice.strategy is not StrategyName.ENSEMBLE:  # whose calls overlap
            self._overhead(outcome.method).observe(max(outcome.total_seconds - outcome.upstream_seconds, 0.0))
        if choice is None:
            return
        label = self._tenant(outcome.request.tenant_id)
        self._observe_choice(label, choice)
        for attempted in outcome.attempts:
            self._observe_attempt(label, attempted)
        if outcome.method == "StreamComplete" and outcome.first_token_seconds is not None:
            self._first_token(outcome.attempts[-1].model).observe(outcome.first_token_seconds)
        if outcome.bill is not None:
            self._all_strong(label).inc(outcome.bill.all_strong_cost / NANO_USD_PER_USD)

    def _observe_choice(self, tenant: str, choice: Choice) -> None:
        decision = choice.decision
        for stage in choice.stages:
            self._stages(choice.strategy.value, stage.result.value).inc()
            if stage.acceptance is not None:
                self._acceptance.observe(stage.acceptance)
        self._decisions(tenant, decision.tier.value).inc()
        self._models(tenant, choice.model).inc()
        self._strong_calls(tenant).inc(choice.estimate.fraction(decision.rung))
        self._reasons(decision.reason.value, decision.tier.value).inc()
        if choice.alpha_source is not None:
            self._alpha_sources(choice.alpha_source.value).inc()
        if decision.alpha is not None:
            self._alpha(tenant).set(decision.alpha)
        if choice.prediction is not None:
            self._probability.observe(choice.prediction.win_probability)
            self._pair_mismatch(tenant).set(choice.prediction.pair_mismatch)
            if choice.candidates is not None:
                self._not_compared(tenant).set(comparing.not_compared(choice.prediction, choice.ladder))

    def _observe_attempt(self, tenant: str, attempted: Attempted) -> None:
        self._upstream(attempted.model).observe(attempted.seconds)
        if attempted.usage is None:
            return
        self._cost(tenant, attempted.model).inc(attempted.cost / NANO_USD_PER_USD)
        for token_class, count in attempted.usage.by_class().items():
            tokens = self._tokens(attempted.model, token_class)
            if count:
                tokens.inc(count)
        if attempted.usage.source is UsageSource.ESTIMATED:
            self._usage_missing(attempted.model).inc()


def _as_number(state: Callable[[], BreakerState]) -> float:
    return _BREAKER_STATES[state()]
