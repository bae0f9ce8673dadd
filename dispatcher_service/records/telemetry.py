"""Opens what the settings turn on: the decision log, its redaction, traces. Each failure is one line at the start."""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path

from dispatcher_service.records import redaction
from dispatcher_service.records.decision_log import FileLines, Lines, StdoutLines
from dispatcher_service.records.redaction import Redact
from dispatcher_service.settings import Settings
from dispatcher_service.tracing import NoTracing, Tracing
from pointsman.runtime.starting import StartError

# OpenTelemetry is imported where it is turned on and nowhere else: it is an extra, and takes its time to load.


def open_decision_log(settings: Settings, environ: Mapping[str, str]) -> Lines | None:
    """Where lines go, `None` for nowhere.

    Raises:
        StartError: the file cannot be opened, or the extra `otel` is missing.
    """
    destination = settings.decision_log
    if destination == "none":
        return None
    if destination == "stdout":
        return StdoutLines()
    if destination == "otlp":
        with _needing_otel("DISPATCHER_DECISION_LOG"):
            from dispatcher_service.records.decision_log_otlp import OtlpLines  # noqa: PLC0415

            return OtlpLines(service_name=_service_name(environ), version=_version())
    try:
        return FileLines(
            Path(destination),
            max_bytes=settings.decision_log_max_bytes,
            max_age=settings.decision_log_max_age,
            keep=settings.decision_log_keep,
        )
    except OSError as error:
        raise StartError(f"DISPATCHER_DECISION_LOG={destination}: {error.strerror}") from error


def open_redaction(settings: Settings) -> Redact:
    """The function that texts pass.

    Raises:
        StartError: there is no such function.
    """
    try:
        return redaction.load(settings.redaction)
    except ValueError as error:
        raise StartError(f"DISPATCHER_REDACTION={error}") from error


def open_tracing(settings: Settings, environ: Mapping[str, str]) -> Tracing:
    """Traces, or what does nothing in their place.

    Raises:
        StartError: the extra `otel` is missing.
    """
    if settings.tracing == "none":
        return NoTracing()
    with _needing_otel("DISPATCHER_TRACING"):
        from dispatcher_service.otel_tracing import OtelTracing  # noqa: PLC0415

        return OtelTracing(service_name=_service_name(environ), version=_version())


@contextlib.contextmanager
def _needing_otel(setting: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise StartError(f"{setting}=otlp needs the package {error.name}: pip install 'pointsman[otel]'") from error


def _service_name(environ: Mapping[str, str]) -> str:
    return environ.get("OTEL_SERVICE_NAME", "pointsman-dispatcher")


def _version() -> str:
    return importlib.metadata.version("pointsman")
