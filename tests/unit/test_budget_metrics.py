"""Budgets in metrics and log: closed label sets, thresholds told once per window, accounts that do not go stale."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from dispatcher_service import budget
from dispatcher_service.budget import Limit, Period
from dispatcher_service.budget_metrics import BudgetMetrics
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.identity import OPEN
from dispatcher_service.ledger.contract import Balance, Balances, Overrun, OverrunCause, Reservation
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.metrics import MAX_TENANT_LABELS, OTHER
from dispatcher_service.pacing_state import Integrator
from dispatcher_service.scorer_targets import ScorerTarget
from dispatcher_service.upkeep import Upkeep
from tests.ledgers import NOON, ManualClock, attempt, charge, granted
from tests.unit.test_dispatch import policy
from tests.unit.test_dispatcher_metrics import observed

DAY = Limit(Period.DAY, 1_000)
LABELS = {
    "budget_spent_usd": {"tenant", "period"},
    "budget_reserved_usd": {"tenant", "period"},
    "budget_limit_usd": {"tenant", "period"},
    "budget_thresholds_total": {"tenant", "period", "percent"},
    "budget_refusals_total": {"tenant", "period"},
    "ledger_overruns": {"cause"},
    "ledger_overrun_usd": {"cause"},
    "ledger_expired_total": set(),
    "ledger_seconds_count": {"step"},
    "ledger_errors_total": {"step"},
    "pacing_infeasible": {"tenant", "target"},
    "pacing_dropped_calls": {"tenant", "target", "direction"},
}


class Seen:
    """Metrics of tenants, and what they hold."""

    def __init__(self, *tenants: str) -> None:
        self.registry = CollectorRegistry()
        self.metrics = BudgetMetrics(self.registry, tenants=tenants)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pointsman_dispatcher_{name}", labels)


def accounts(spent: int, reserved: int = 0, at: float = NOON) -> Balances:
    hour, day, month = (Balance(window, spent, reserved) for window in budget.windows_at(at))
    return hour, day, month


def test_every_metric_has_its_labels_and_no_other() -> None:
    seen = Seen("acme")
    seen.metrics.balances("acme", (DAY,), accounts(600), 600)
    seen.metrics.exhausted("acme", budget.window_at(Period.DAY, NOON))
    seen.metrics.overruns({cause: Overrun(1, 5) for cause in OverrunCause})
    seen.metrics.expired(1)
    seen.metrics.ledger_called("reserve", 0.001, failed=True)
    seen.metrics.paced("acme", {"share": Integrator(level=0.5)})
    assert observed(seen.registry) == LABELS


def test_each_threshold_is_told_once_per_window(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen("acme")
    with caplog.at_level(logging.WARNING):
        for before, after in [(0, 499), (499, 500), (500, 790), (790, 1_000), (700, 850)]:  # the last: a correction
            seen.metrics.balances("acme", (DAY,), accounts(after), after - before)
        seen.metrics.balances("acme", (DAY,), accounts(900, at=NOON + 86_400), 900)
    told = {
        percent: seen.value("budget_thresholds_total", tenant="acme", period="day", percent=percent)
        for percent in ("50", "80", "100")
    }
    assert told == {"50": 2, "80": 2, "100": 1}
    assert len(caplog.records) == 5


def test_the_first_refusal_of_a_window_is_its_hundred_percent() -> None:
    seen = Seen("acme")
    for _ in range(3):
        seen.metrics.exhausted("acme", budget.window_at(Period.DAY, NOON))
    assert seen.value("budget_thresholds_total", tenant="acme", period="day", percent="100") == 1
    assert seen.value("budget_refusals_total", tenant="acme", period="day") == 3


def test_tenants_beyond_the_label_limit_share_one_label_and_have_no_gauges() -> None:
    seen = Seen(*(f"t{index}" for index in range(MAX_TENANT_LABELS + 1)))
    last = f"t{MAX_TENANT_LABELS}"
    seen.metrics.balances(last, (DAY,), accounts(600), 600)
    seen.metrics.exhausted(last, budget.window_at(Period.DAY, NOON))
    assert seen.value("budget_spent_usd", tenant=last, period="day") is None
    assert seen.value("budget_refusals_total", tenant=OTHER, period="day") == 1


async def test_upkeep_expires_what_was_left_behind_and_shows_windows_that_ended_as_empty() -> None:
    clock, seen = ManualClock(), Seen("acme")
    ledger = MemoryLedger(clock)
    limited = policy(tenant_id="acme", limits=(Limit(Period.DAY, 10**9),))
    catalogue = Catalogue(
        scorer=ScorerTarget(address="", timeout=1), models={}, deployments={}, tenants={"acme": limited}, auth=OPEN
    )
    upkeep = Upkeep(ledger, catalogue=lambda: catalogue, observe=seen.metrics)
    settled: Reservation = await granted(ledger, attempt("a", 500_000_000))
    await ledger.settle(settled, charge(400_000_000))
    await granted(ledger, attempt("b", 500_000_000))
    await upkeep.once()
    assert seen.value("budget_spent_usd", tenant="acme", period="day") == 0.4
    assert seen.value("budget_reserved_usd", tenant="acme", period="day") == 0.5
    assert seen.value("budget_limit_usd", tenant="acme", period="day") == 1.0
    clock.now += 86_400
    await upkeep.once()
    assert seen.value("ledger_expired_total") == 1
    assert seen.value("budget_spent_usd", tenant="acme", period="day") == 0
    assert seen.value("budget_reserved_usd", tenant="acme", period="day") == 0
