"""The metrics of records and conversations: closed label sets, and what a shadow would have cost."""

from prometheus_client import CollectorRegistry

from dispatcher_service.catalogue import FixedAlpha, Shadow
from dispatcher_service.metrics import MAX_TENANT_LABELS
from dispatcher_service.records import shadows
from dispatcher_service.records.metrics import PLACES, RecordMetrics
from tests.fakes import FakeScorer
from tests.unit.test_dispatch import STRONG_COST, WEAK_COST, Bench, policy, request
from tests.unit.test_dispatcher_metrics import observed

LABELS = {
    "conversation_store_seconds_count": {"operation", "result"},
    "records_lost_total": {"where"},
    "shadow_decisions_total": {"tenant", "shadow", "tier"},
    "shadow_cost_usd_total": {"tenant", "shadow"},
    "feedback_total": {"scorer", "kind"},
    "feedback_opinion_total": {"scorer", "kind"},
}


async def _shadowed(metrics: RecordMetrics, win_probability: float, shadow_alpha: float) -> None:
    bench = Bench(FakeScorer(win_probability))
    choice = (await bench.dispatcher.complete(request())).choice
    assert choice.prediction is not None
    shadow = shadows.by_dial(policy(shadow=Shadow(dial=FixedAlpha(shadow_alpha), scorer="")), choice)
    assert shadow is not None
    metrics.shadowed(bench.outcomes[0], shadow)


async def test_every_metric_has_its_labels_and_no_other() -> None:
    registry = CollectorRegistry()
    metrics = RecordMetrics(registry, tenants=["t"])
    metrics.conversation_store("recall", "ok", 0.001)
    metrics.lost("queue", 2)
    metrics.opinion("main", "rating", 0.5)
    await _shadowed(metrics, 0.4, 0.3)
    assert observed(registry) == LABELS
    lost = {
        where: registry.get_sample_value("pointsman_dispatcher_records_lost_total", {"where": where})
        for where in PLACES
    }
    assert lost == {"queue": 2, "log": 0, "lookup": 0, "text": 0, "shadow": 0}


async def test_a_shadows_cost_is_that_of_the_tier_it_would_have_chosen() -> None:
    registry = CollectorRegistry()
    metrics = RecordMetrics(registry, tenants=["t"])
    await _shadowed(metrics, 0.9, 0.95)  # went strong, would have gone weak
    await _shadowed(metrics, 0.9, 0.5)  # went strong, and would have
    cost = registry.get_sample_value("pointsman_dispatcher_shadow_cost_usd_total", {"tenant": "t", "shadow": "dial"})
    assert cost == (WEAK_COST + STRONG_COST) / 1e9


async def test_tenants_beyond_the_limit_share_one_label() -> None:
    registry = CollectorRegistry()
    metrics = RecordMetrics(registry, tenants=[*(f"tenant-{n}" for n in range(MAX_TENANT_LABELS)), "t"])
    await _shadowed(metrics, 0.4, 0.3)
    labels = {"tenant": "other", "shadow": "dial", "tier": "strong"}
    assert registry.get_sample_value("pointsman_dispatcher_shadow_decisions_total", labels) == 1
