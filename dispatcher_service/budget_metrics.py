"""What Prometheus and the log see of budgets and pacing. See metrics.py for the rules of names and labels.

Every soft threshold is told once per window: the ledger says by how much each settle moved an account, so that exactly
one of many dispatchers sees it pass. What is spent seldom comes to rest at 100 %: that is told at the first refusal.
"""

import logging
from collections.abc import Collection, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dispatcher_service import budget
from dispatcher_service.budget import BudgetWindow, Limit
from dispatcher_service.ledger.contract import Balances, Overrun, OverrunCause
from dispatcher_service.metrics import MAX_TENANT_LABELS, OTHER, PREFIX, children
from dispatcher_service.pacing_state import Integrator
from dispatcher_service.pricing import NANO_USD_PER_USD, NanoUsd
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

_STEP_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_MOST_TOLD = 10_000
STEPS = ("reserve", "mark_started", "settle", "release")
"""What a request asks of the ledger. Closed: a metric label."""


class BudgetMetrics:
    """Implements `ports.BudgetObserver` and `pacer.Observe`."""

    def __init__(self, registry: CollectorRegistry, *, tenants: Collection[str]) -> None:
        """`tenants` as for `metrics.Metrics`: gauges exist for those with a label of their own."""
        self._tenants = frozenset(list(tenants)[:MAX_TENANT_LABELS])
        self._with_share: frozenset[str] = frozenset()
        self._told: dict[tuple[str, BudgetWindow, int], None] = {}
        self._balances: dict[str, Balances] = {}
        self._limits: dict[str, tuple[Limit, ...]] = {}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        account = ("tenant", "period")
        self._spent = gauge("budget_spent_usd", "Spent in the current window, in US dollars.", *account)
        self._reserved = gauge("budget_reserved_usd", "Reserved in the current window, in US dollars.", *account)
        self._limit = gauge("budget_limit_usd", "The limit of a window, in US dollars.", *account)
        self._thresholds = counter(
            "budget_thresholds", "Windows in which spending passed 50, 80 or 100 % of a limit.", *account, "percent"
        )
        self._refusals = counter("budget_refusals", "Reservations that did not fit a limit.", *account)
        self._overruns = gauge(
            "ledger_overruns", "How often limits were passed since the ledger began, by cause.", "cause"
        )
        self._overrun_usd = gauge("ledger_overrun_usd", "By how much, in US dollars.", "cause")
        self._expired = counter("ledger_expired", "Reservations that this dispatcher found expired.")
        self._seconds = children(
            Histogram(
                f"{PREFIX}_ledger_seconds",
                "Steps of the ledger.",
                ("step",),
                buckets=_STEP_SECONDS,
                registry=registry,
            )
        )
        self._errors = counter("ledger_errors", "Steps of the ledger that failed.", "step")
        for step in STEPS:
            self._errors.labels(step)  # At zero from the start, so that rate() sees the first one.
        self._share = gauge("strong_call_share_target", "The share of strong calls that the tenant wants.", "tenant")
        target = ("tenant", "target")
        self._infeasible = gauge(
            "pacing_infeasible", "1 if all calls go weak and spending is still faster than the target.", *target
        )
        self._dropped = gauge(
            "pacing_dropped_calls",
            "Calls' worth of forced decisions that pacing does not pay back, since the pace began.",
            *target,
            "direction",
        )

    def balances(self, tenant_id: str, limits: tuple[Limit, ...], balances: Balances, spent: NanoUsd) -> None:
        """See `ports.BudgetObserver`."""
        if tenant_id in self._tenants:
            self._show(tenant_id, limits, balances)
        if not spent:
            return
        for limit in limits:
            balance = balances[budget.PERIODS.index(limit.period)]
            for percent in budget.thresholds_crossed(
                before=balance.spent - spent, after=balance.spent, limit=limit.amount
            ):
                self._tell(tenant_id, balance.window, percent)

    def exhausted(self, tenant_id: str, window: BudgetWindow) -> None:
        """See `ports.BudgetObserver`."""
        self._refusals.labels(self._label(tenant_id), window.period.value).inc()
        self._tell(tenant_id, window, 100)

    def overrun(self, tenant_id: str, cause: OverrunCause, amount: NanoUsd) -> None:
        """See `ports.BudgetObserver`. Counted by the ledger: here it is logged."""
        logger.warning(
            "a call took a tenant above a limit",
            extra=fields(tenant=tenant_id, cause=cause.value, above_usd=budget.format_usd(amount)),
        )

    def overruns(self, totals: Mapping[OverrunCause, Overrun]) -> None:
        """See `ports.BudgetObserver`."""
        for cause, overrun in totals.items():
            self._overruns.labels(cause.value).set(overrun.count)
            self._overrun_usd.labels(cause.value).set(overrun.amount / NANO_USD_PER_USD)

    def shares(self, wanted: Mapping[str, float]) -> None:
        """See `ports.BudgetObserver`."""
        shown = self._tenants & wanted.keys()
        for tenant_id in self._with_share - shown:
            self._share.remove(tenant_id)
        for tenant_id in shown:
            self._share.labels(tenant_id).set(wanted[tenant_id])
        self._with_share = shown

    def expired(self, count: int) -> None:
        """See `ports.BudgetObserver`."""
        self._expired.inc(count)

    def ledger_called(self, step: str, seconds: float, *, failed: bool) -> None:
        """See `ports.BudgetObserver`."""
        self._seconds(step).observe(seconds)
        if failed:
            self._errors.labels(step).inc()

    def paced(self, tenant_id: str, integrators: Mapping[str, Integrator]) -> None:
        """See `pacer.Observe`."""
        if tenant_id not in self._tenants:
            return
        for kind, integrator in integrators.items():
            self._infeasible.labels(tenant_id, kind).set(integrator.infeasible)
            self._dropped.labels(tenant_id, kind, "strong").set(integrator.dropped_strong)
            self._dropped.labels(tenant_id, kind, "weak").set(integrator.dropped_weak)

    def _show(self, tenant_id: str, limits: tuple[Limit, ...], balances: Balances) -> None:
        """Two of these come with every call, and a scrape with every few thousand: balances are read by that."""
        known = tenant_id in self._balances
        self._balances[tenant_id] = balances
        if not known:
            for number, balance in enumerate(balances):
                period = balance.window.period.value
                self._spent.labels(tenant_id, period).set_function(partial(self._spent_usd, tenant_id, number))
                self._reserved.labels(tenant_id, period).set_function(partial(self._reserved_usd, tenant_id, number))
        if self._limits.get(tenant_id) is not limits:
            self._limits[tenant_id] = limits
            for limit in limits:
                self._limit.labels(tenant_id, limit.period.value).set(limit.amount / NANO_USD_PER_USD)

    def _spent_usd(self, tenant_id: str, number: int) -> float:
        return self._balances[tenant_id][number].spent / NANO_USD_PER_USD

    def _reserved_usd(self, tenant_id: str, number: int) -> float:
        return self._balances[tenant_id][number].reserved / NANO_USD_PER_USD

    def _tell(self, tenant_id: str, window: BudgetWindow, percent: int) -> None:
        key = (tenant_id, window, percent)
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._thresholds.labels(self._label(tenant_id), window.period.value, str(percent)).inc()
        logger.warning(
            "a tenant passed a soft threshold of a limit",
            extra=fields(tenant=tenant_id, period=window.period.value, percent=percent, window_end=window.end),
        )

    def _label(self, tenant_id: str) -> str:
        return tenant_id if tenant_id in self._tenants else OTHER
