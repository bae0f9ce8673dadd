"""The room of admission: its parts put together, and what Prometheus sees of them.

Label sets are closed: causes are those of `overload.Cause` and `admission.Rate`. No tenant stands beside them.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import cast

import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Gauge

from dispatcher_service.admission import Admission, Rate, TokenRates
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.layers import Dispatching
from dispatcher_service.line import Line
from dispatcher_service.metrics import Metrics
from dispatcher_service.overload import Cause, LoopLag, Overload, Refusing
from dispatcher_service.rates import open_rates
from dispatcher_service.settings import Settings

_PREFIX = "pointsman_dispatcher"


class AdmissionMetrics:
    """See the top of the file."""

    def __init__(self, registry: CollectorRegistry) -> None:
        refused = Counter(
            f"{_PREFIX}_admission_refused",
            "Calls that were refused at the door, by what there was too much of.",
            ["cause"],
            registry=registry,
        )
        self._failures = Counter(
            f"{_PREFIX}_rate_storage_failures", "Times that the rates' storage could not be asked.", registry=registry
        )
        self._lag = Gauge(
            f"{_PREFIX}_event_loop_lag_seconds",
            "How far the event loop is behind: the largest of the last fifth of a second.",
            registry=registry,
        )
        self._waiting = Gauge(f"{_PREFIX}_calls_waiting", "Calls that wait for their turn.", registry=registry)
        # At zero from the start, so that rate() sees the first one.
        self._by_cause = {cause: refused.labels(cause.value) for cause in (*Cause, *Rate)}

    def refused(self, cause: Cause | Rate) -> None:
        """A call was refused."""
        self._by_cause[cause].inc()

    def storage_failed(self) -> None:
        """The storage could not be asked."""
        self._failures.inc()

    def watch(self, *, lag: Callable[[], float], waiting: Callable[[], int]) -> None:
        """Read these at each scrape."""
        self._lag.set_function(lag)
        self._waiting.set_function(waiting)


class Admitting:
    """Holds the parts; `start` and `close` are called around serving."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalogue: Callable[[], Catalogue],
        registry: CollectorRegistry,
        metrics: Metrics,
    ) -> None:
        observed = AdmissionMetrics(registry)
        self._lag = LoopLag(time.monotonic)
        line = Line(time.monotonic)
        observed.watch(lag=self._lag.seconds, waiting=line.__len__)
        self._catalogue = catalogue
        self._refused = observed.refused
        self._rates = open_rates(settings.ledger, failed=observed.storage_failed)
        self._overload = Overload(
            max_calls=settings.max_calls,
            max_backlog=settings.max_backlog,
            line=line,
            lag=self._lag.seconds,
            refused=observed.refused,
        )
        self._ended = metrics.call_refused
        self.door = Admission(overload=self._overload, rates=self._rates, catalogue=catalogue, refused=observed.refused)
        self._watching: asyncio.Task[None] | None = None

    def before(self, server: grpc.aio.Server) -> grpc.aio.Server:
        """Where to add a service whose calls are refused when there is too much to do."""
        # What it passes on is what generated code calls of a server.
        return cast("grpc.aio.Server", Refusing(server, self._overload, ended=self._ended))

    def layer(self, inner: Dispatching) -> TokenRates:
        """What holds tokens per minute, around the use case."""
        return TokenRates(inner, rates=self._rates, catalogue=self._catalogue, refused=self._refused)

    def start(self) -> None:
        """Begin to watch the event loop."""
        self._watching = asyncio.get_running_loop().create_task(self._lag.watch())

    async def close(self) -> None:
        """Stop watching, and let go of the rates' storage."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._rates.close()
