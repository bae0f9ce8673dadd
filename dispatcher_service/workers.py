"""Several dispatchers behind one port: what the parent has to know of them. It imports no gRPC and no adapter."""

from collections.abc import Mapping

from dispatcher_service.settings import PREFIX, Settings
from pointsman.runtime.starting import StartError
from pointsman.runtime.workers import supervisor
from pointsman.runtime.workers.merging import GaugeRule
from pointsman.runtime.workers.supervisor import Workers

_SUM, _MAX, _MIN, _LATEST = GaugeRule.SUM, GaugeRule.MAX, GaugeRule.MIN, GaugeRule.LATEST
GAUGES: Mapping[str, GaugeRule] = {
    "pointsman_build_info": _MAX,
    # Work at hand: each worker has a part.
    "pointsman_dispatcher_requests_in_flight": _SUM,
    "pointsman_dispatcher_calls_waiting": _SUM,
    "pointsman_dispatcher_upstream_in_flight": _SUM,
    "pointsman_dispatcher_tasks": _SUM,
    # The worst worker is the one to look at.
    "pointsman_dispatcher_breaker_state": _MAX,
    "pointsman_dispatcher_scorer_breaker_state": _MAX,
    "pointsman_dispatcher_event_loop_lag_seconds": _MAX,
    "pointsman_dispatcher_config_refused": _MAX,
    "pointsman_dispatcher_pair_mismatch": _MAX,
    "pointsman_dispatcher_models_not_compared": _MAX,
    "pointsman_dispatcher_policy_overlays": _MAX,
    "pointsman_dispatcher_policy_overrides": _MAX,
    "pointsman_dispatcher_certificate_reload_failing": _MAX,
    "pointsman_dispatcher_certificate_expiry_seconds": _MIN,
    # Views of what all share, in the ledger or the file: the newest is right, and spending falls when a window ends.
    "pointsman_dispatcher_alpha": _LATEST,
    "pointsman_dispatcher_budget_spent_usd": _LATEST,
    "pointsman_dispatcher_budget_reserved_usd": _LATEST,
    "pointsman_dispatcher_budget_limit_usd": _LATEST,
    "pointsman_dispatcher_strong_call_share_target": _LATEST,
    "pointsman_dispatcher_pacing_infeasible": _LATEST,
    "pointsman_dispatcher_pacing_dropped_calls": _LATEST,
    # Counted by the ledger since it began.
    "pointsman_dispatcher_ledger_overruns": _MAX,
    "pointsman_dispatcher_ledger_overrun_usd": _MAX,
}
"""How the workers' gauges combine. A test holds it against what a dispatcher shows."""


async def supervise(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run `settings.workers` dispatchers; returns the exit code.

    Raises:
        StartError: they cannot be started.
    """
    if settings.ledger.startswith("memory:"):
        raise StartError(
            f"DISPATCHER_WORKERS={settings.workers}: with DISPATCHER_LEDGER=memory: every worker would have a book of "
            "its own, and each tenant its limit as many times; set sqlite:FILE or redis://…, or one worker"
        )
    return await supervisor.supervise(
        Workers(
            service="dispatcher",
            module="dispatcher_service.worker",
            count=settings.workers,
            listen=settings.listen,
            listen_variable=f"{PREFIX}_LISTEN",
            metrics_listen=settings.metrics_listen,
            drain_seconds=settings.drain,
            gauges=GAUGES,
        ),
        environ,
    )
