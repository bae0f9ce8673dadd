"""What Prometheus sees of the configuration: whether the file is in force, and how many overlays are."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from dispatcher_service.metrics import PREFIX


class PolicyMetrics:
    """Implements `policies.Observe`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Gauge(
            f"{PREFIX}_config_refused",
            "1 if the configuration file was refused when it was last read: an older one is in force.",
            registry=registry,
        )
        self._loads = Counter(
            f"{PREFIX}_config_loads", "Times that the configuration file was read.", ("result",), registry=registry
        )
        self._overlays = Gauge(
            f"{PREFIX}_policy_overlays",
            "Tenants whose policy was changed at run time; ignored ones do not fit the configuration file.",
            ("state",),
            registry=registry,
        )
        self._overrides = Gauge(
            f"{PREFIX}_policy_overrides",
            "Overrides in force: tenants, or everyone, turned to one tier, or a model off.",
            registry=registry,
        )
        for result in ("ok", "refused"):
            self._loads.labels(result)

    def watch_overrides(self, count: Callable[[], int]) -> None:
        """Show how many are in force. It is asked when the metrics are read: time alone ends them."""
        self._overrides.set_function(count)

    def config_loaded(self, *, good: bool) -> None:
        """See `policies.Observe`."""
        self._refused.set(not good)
        self._loads.labels("ok" if good else "refused").inc()

    def overlays_in_force(self, *, applied: int, ignored: int) -> None:
        """See `policies.Observe`."""
        self._overlays.labels("applied").set(applied)
        self._overlays.labels("ignored").set(ignored)
