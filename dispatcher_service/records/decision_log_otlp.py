"""The decision log as OpenTelemetry logs over OTLP/HTTP. Needs the extra `otel`; see `decision_log.Lines`.

The body of a log record is the line. Endpoint and time-outs are OpenTelemetry's own variables. Batches are the
recorder's and are exported at once, so that what a collector does not take is known, and counted as lost.
"""

import time
from collections.abc import Sequence

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

EVENT = "pointsman.record"
"""The event name of every record."""


class OtlpLines:
    """Implements `decision_log.Lines`."""

    def __init__(self, *, service_name: str, version: str) -> None:
        self._exporter = OTLPLogExporter()
        self._resource = Resource.create({"service.name": service_name, "service.version": version})
        self._scope = InstrumentationScope("pointsman.decision_log", version)

    def write(self, lines: Sequence[str]) -> None:
        result = self._exporter.export([self._record(line) for line in lines])
        if result is not LogRecordExportResult.SUCCESS:
            raise OSError("the OTLP endpoint took no records: see OTEL_EXPORTER_OTLP_ENDPOINT")

    def tend(self) -> None:
        pass

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _record(self, line: str) -> ReadableLogRecord:
        now = time.time_ns()
        record = LogRecord(
            timestamp=now, observed_timestamp=now, severity_number=SeverityNumber.INFO, body=line, event_name=EVENT
        )
        return ReadableLogRecord(log_record=record, resource=self._resource, instrumentation_scope=self._scope)
