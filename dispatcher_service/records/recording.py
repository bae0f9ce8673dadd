"""The parts that keep records, put together: the log, the look-up, and what works in the background."""

import asyncio
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from dispatcher_service.catalogue import Catalogue
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.ports import Scorer
from dispatcher_service.records.metrics import RecordMetrics
from dispatcher_service.records.recorder import Recorder
from dispatcher_service.records.store import RecordStore
from dispatcher_service.records.telemetry import open_decision_log, open_redaction
from dispatcher_service.settings import Settings
from dispatcher_service.tracing import Tracing

_LAST_WRITES_SECONDS = 5.0


class Recording:
    """One per process. The ledger is opened and closed by others, who use it too."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        ledger: Ledger,
        catalogue: Callable[[], Catalogue],
        scorer: Scorer,
        registry: CollectorRegistry,
        tracing: Tracing,
    ) -> None:
        """`scorer` is asked for shadow decisions.

        Raises:
            StartError: see `telemetry`.
        """
        self.metrics = RecordMetrics(registry, tenants=catalogue().tenants)
        self.store = RecordStore(ledger, retention=settings.decision_retention)
        self.recorder = Recorder(
            lines=open_decision_log(settings, environ),
            store=self.store,
            catalogue=catalogue,
            scorer=scorer,
            redact=open_redaction(settings),
            lost=self.metrics.lost,
            shadowed=self.metrics.shadowed,
            trace_id=tracing.trace_id,
            max_queue=settings.record_queue,
        )
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the background work."""
        self._running = asyncio.create_task(self.recorder.run())

    async def close(self) -> None:
        """Keep what still waits, for a few seconds at most. Call it when no request is left."""
        if self._running is not None:
            self.recorder.stop()
            await asyncio.wait({self._running}, timeout=_LAST_WRITES_SECONDS)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.recorder.close()
