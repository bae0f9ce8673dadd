"""The decision log as OpenTelemetry logs over OTLP/HTTP. Needs the extra `otel`; see `decision_log.Lines`.

The body of a log record is the line. OpenTelemetry's exporter holds back and sends on its own thread, as its OTEL_…
variables say; what it drops it logs.
"""

import time
from collections.abc import Sequence

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

EVENT = "pointsman.record"
"""The event name of every record."""


class OtlpLines:
    """Implements `decision_log.Lines`."""

    def __init__(self, *, service_name: str, version: str) -> None:
        resource = Resource.create({"service.name": service_name, "service.version": version})
        self._provider = LoggerProvider(resource=resource)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._logger = self._provider.get_logger("pointsman.decision_log", version)

    def write(self, lines: Sequence[str]) -> None:
        now = time.time_ns()
        for line in lines:
            self._logger.emit(
                LogRecord(timestamp=now, severity_number=SeverityNumber.INFO, body=line, event_name=EVENT)
            )

    def close(self) -> None:
        self._provider.shutdown()
