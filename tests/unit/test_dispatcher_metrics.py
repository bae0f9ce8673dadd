"""The label sets are closed, and the numbers are those of the outcome."""

import pytest
from prometheus_client import CollectorRegistry

from dispatcher_service.auth import Method, Result
from dispatcher_service.breaker import BreakerState
from dispatcher_service.errors import Unauthenticated
from dispatcher_service.failover import AttemptResult
from dispatcher_service.metrics import MAX_TENANT_LABELS, Metrics
from dispatcher_service.strategy_policies import CascadePolicy, StrategyName
from tests import strategies
from tests.fakes import FakeJudge, FakeScorer, FakeUpstream
from tests.unit.test_dispatch import STRONG_COST, WEAK_COST, Bench, request

LABELS = {
    "requests_total": {"method", "status"},
    "errors_total": {"reason"},
    "auth_total": {"method", "result"},
    "decisions_total": {"tenant", "tier"},
    "model_decisions_total": {"tenant", "model"},
    "strong_call_equivalents_total": {"tenant"},
    "models_not_compared": {"tenant"},
    "decision_reasons_total": {"reason", "tier"},
    "cost_usd_total": {"tenant", "model"},
    "all_strong_cost_usd_total": {"tenant"},
    "tokens_total": {"model", "token_class"},
    "usage_missing_total": {"model"},
    "alpha": {"tenant"},
    "alpha_sources_total": {"source"},
    "pair_mismatch": {"tenant"},
    "attempts_total": {"deployment", "result"},
    "upstream_in_flight": {"deployment"},
    "drains_total": {"result"},
    "breaker_state": {"deployment"},
    "tasks": set(),
    "requests_in_flight": {"method"},
    "win_probability_count": set(),
    "stages_total": {"strategy", "result"},
    "acceptance_probability_count": set(),
    "scorer_seconds_count": {"scorer", "result"},
    "scorer_breaker_state": {"scorer"},
    "upstream_seconds_count": {"model"},
    "time_to_first_token_seconds_count": {"model"},
    "overhead_seconds_count": {"method"},
}


def observed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Label names by metric, without buckets and sums."""
    return {
        sample.name.removeprefix("pointsman_dispatcher_"): set(sample.labels)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum", "_created"))
    }


async def test_every_metric_has_its_labels_and_no_other() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=["t"])
    metrics.call_ended("Complete", "OK", 0.1)
    metrics.call_failed("INVALID_REQUEST")
    metrics.authenticated(Method.API_KEY, Result.OK)
    metrics.scorer_called("main", "OK", 0.01)
    metrics.watch_scorers({"main": lambda: BreakerState.CLOSED})
    metrics.in_flight("Complete").inc()
    metrics.attempt_began("d")
    metrics.attempt_ended("d", AttemptResult.OK)
    metrics.drained("finished")
    metrics.watch_breakers({"d": lambda: BreakerState.OPEN})
    bench = Bench(upstream=FakeUpstream(usage=None))
    _ = [event async for event in bench.dispatcher.stream(request())]
    metrics.observe(bench.outcomes[0])
    cascade = strategies.Bench(strategy=StrategyName.CASCADE, cascade=CascadePolicy(thresholds=(0.7, 0.6)))
    await cascade.dispatcher.complete(strategies.question())
    metrics.observe(cascade.outcomes[0])
    assert observed(registry) == LABELS


async def test_cost_and_savings_are_in_dollars_by_tenant_and_model() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=["t"])
    for win_probability in (0.1, 0.9):
        bench = Bench(FakeScorer(win_probability))
        await bench.dispatcher.complete(request())
        metrics.observe(bench.outcomes[0])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pointsman_dispatcher_{name}", labels)

    assert value("cost_usd_total", tenant="t", model="small") == WEAK_COST / 1e9
    assert value("cost_usd_total", tenant="t", model="big") == STRONG_COST / 1e9
    assert value("all_strong_cost_usd_total", tenant="t") == 2 * STRONG_COST / 1e9
    assert value("tokens_total", model="big", token_class="output") == 100
    assert value("decisions_total", tenant="t", tier="strong") == 1
    assert value("decision_reasons_total", reason="below_alpha", tier="weak") == 1
    assert value("model_decisions_total", tenant="t", model="big") == 1
    assert value("strong_call_equivalents_total", tenant="t") == 1


async def test_stages_are_counted_by_strategy_and_what_became_of_them() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=["t"])
    judge = FakeJudge({"I am small.": 0.2, "I am medium.": 0.9})
    bench = strategies.Bench(judge=judge, strategy=StrategyName.CASCADE, cascade=CascadePolicy(thresholds=(0.7, 0.6)))
    await bench.dispatcher.complete(strategies.question())
    metrics.observe(bench.outcomes[0])
    for result in ("rejected", "accepted"):
        labels = {"strategy": "cascade", "result": result}
        assert registry.get_sample_value("pointsman_dispatcher_stages_total", labels) == 1
    assert registry.get_sample_value("pointsman_dispatcher_acceptance_probability_sum") == pytest.approx(1.1)


async def test_tenants_beyond_the_limit_share_one_label() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=[*(f"tenant-{n}" for n in range(MAX_TENANT_LABELS)), "t"])
    bench = Bench()
    await bench.dispatcher.complete(request())
    metrics.observe(bench.outcomes[0])
    assert registry.get_sample_value("pointsman_dispatcher_alpha", {"tenant": "other"}) == 0.5
    assert registry.get_sample_value("pointsman_dispatcher_alpha", {"tenant": "t"}) is None


async def test_a_request_that_was_never_decided_makes_no_tenant_series() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=["t"])
    bench = Bench()
    with pytest.raises(Unauthenticated):
        await bench.dispatcher.complete(request(tenant_id="scan-1"))
    metrics.observe(bench.outcomes[0])
    assert not any("tenant" in labels for labels in observed(registry).values())
