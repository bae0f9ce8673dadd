"""The dispatcher as a process: the one place where its parts are put together.

python -m dispatcher_service                       serve, with settings from the environment
python -m dispatcher_service check-config FILE     check a configuration file, offline
python -m dispatcher_service --help                list the settings
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import random
import sys
import time
from functools import partial
from importlib import resources
from pathlib import Path

import grpc.aio
from prometheus_client import CollectorRegistry

from dispatcher_service import redaction
from dispatcher_service.auth import DEFAULT_TENANT, Authenticator
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.conversations import Conversations
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.decision_log import FileLines, Lines, StdoutLines
from dispatcher_service.dispatch import Dispatcher
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.gates import Gates
from dispatcher_service.identity import AuthMode
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.ledger.opening import open_ledger
from dispatcher_service.metrics import Metrics
from dispatcher_service.notices import Notices
from dispatcher_service.outcome import Outcome
from dispatcher_service.record_metrics import RecordMetrics
from dispatcher_service.record_store import RecordStore
from dispatcher_service.recorder import Recorder
from dispatcher_service.records_servicer import SERVICE as RECORD_SERVICE
from dispatcher_service.records_servicer import RecordServicer
from dispatcher_service.redaction import Redact
from dispatcher_service.scorer_client import GrpcScorer
from dispatcher_service.servicer import SERVICE, DispatcherServicer
from dispatcher_service.settings import PREFIX, Settings
from dispatcher_service.tenants import ConfigError, load_catalogue
from dispatcher_service.tokens import TokenVerifier
from dispatcher_service.tracing import NoTracing, Tracing
from dispatcher_service.upstream import OpenAIUpstream
from pointsman.dispatcher.v1 import dispatcher_pb2_grpc, records_pb2_grpc
from pointsman.runtime import entry
from pointsman.runtime.logs import fields
from pointsman.runtime.server import ServerSpec, StartError, is_loopback, serve

logger = logging.getLogger(__name__)

_ABOUT = """Pointsman's dispatcher: routes each conversation to the tenant's strong or weak model, calls it, and
accounts for its cost.

  python -m dispatcher_service                      serve
  python -m dispatcher_service check-config FILE    check a configuration file, offline"""


def main(argv: list[str]) -> int:
    """Run; returns the exit code."""
    match argv:
        case ["check-config", file]:
            return _check_config(Path(file))
        case ["check-config", *_]:
            print("error: write check-config FILE, with one file", file=sys.stderr)  # noqa: T201
            return 2
        case _:
            return entry.run(Settings, prefix=PREFIX, about=_ABOUT, argv=argv, environ=os.environ, main=_serve)


async def _serve(settings: Settings) -> None:
    catalogue = _load(settings.config)
    _check_exposure(settings, catalogue)
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=catalogue.tenants)
    record_metrics = RecordMetrics(registry, tenants=catalogue.tenants)
    tokens = TokenVerifier(clock=time.monotonic)
    notices = Notices()
    tracing = _open_tracing(settings)
    ledger = _open_ledger(settings.ledger)
    store = RecordStore(ledger, retention=settings.decision_retention)
    try:
        upstream = OpenAIUpstream(Credentials(catalogue.all_deployments(), os.environ))
    except CredentialError as error:
        raise StartError(str(error)) from error
    gates = Gates(clock=time.monotonic, observe=metrics)
    metrics.watch_breakers({d.name: partial(gates.state, d) for d in catalogue.all_deployments()})
    scorer = GrpcScorer(catalogue.scorer.address, observe=metrics.scorer_called)

    recorder = Recorder(
        lines=_open_decision_log(settings),
        store=store,
        catalogue=lambda: catalogue,
        scorer=scorer,
        redact=_load_redaction(settings.redaction),
        lost=record_metrics.lost,
        shadowed=record_metrics.shadowed,
        trace_id=tracing.trace_id,
        max_queue=settings.record_queue,
    )

    def record(outcome: Outcome) -> None:
        metrics.observe(outcome)
        notices.observe(outcome)
        recorder.record(outcome)
        tracing.observe(outcome)

    conversations = Conversations(
        Dispatcher(
            catalogue=catalogue,
            scorer=tracing.scorer(scorer),
            upstream=tracing.upstream(upstream),
            gates=gates,
            record=record,
            clock=time.monotonic,
            wall_clock=time.time,
            sleep=asyncio.sleep,
            draw=random.random,
        ),
        documents=ledger,
        catalogue=lambda: catalogue,
        observe=record_metrics.conversation_store,
    )
    auth = Authenticator(
        mode=catalogue.auth.mode,
        catalogue=lambda: catalogue,
        tokens=tokens,
        default_tenant=DEFAULT_TENANT if settings.mode == "development" else None,
        observe=metrics.authenticated,
        wall_clock=time.time,
    )
    servicer = DispatcherServicer(
        dispatcher=conversations,
        auth=auth,
        metrics=metrics,
        max_conversation_bytes=settings.max_conversation_bytes,
    )
    record_servicer = RecordServicer(
        store=store,
        recorder=recorder,
        auth=auth,
        catalogue=lambda: catalogue,
        metrics=metrics,
        wall_clock=time.time,
    )
    recording = asyncio.create_task(recorder.run())

    def register(server: grpc.aio.Server) -> None:
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(servicer, server)
        records_pb2_grpc.add_RecordServiceServicer_to_server(record_servicer, server)

    async def prepare() -> None:
        """Nothing to wait for: without a scorer each tenant's policy answers."""

    async def close() -> None:
        await conversations.close()
        recording.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await recording
        await recorder.close()
        await scorer.close()
        await upstream.close()
        await tokens.close()
        await ledger.close()
        await tracing.close()

    await serve(
        ServerSpec(
            service="dispatcher",
            grpc_services=[SERVICE, RECORD_SERVICE],
            listen=settings.listen,
            metrics_listen=settings.metrics_listen,
            registry=registry,
            drain_seconds=settings.drain,
            reflection=settings.mode == "development",
        ),
        register=register,
        prepare=prepare,
        close=close,
    )


def _check_exposure(settings: Settings, catalogue: Catalogue) -> None:
    """Without authentication the port is for this machine only, unless somebody has taken the responsibility."""
    if catalogue.auth.mode is AuthMode.REQUIRED:
        return
    if not settings.trust_callers and not is_loopback(settings.listen):
        raise StartError(
            f"DISPATCHER_LISTEN={settings.listen}: without authentication callers name their own tenant, so this port "
            "is served on loopback only; give the tenants api_keys (pointsman key new), or listen on 127.0.0.1, or "
            "set DISPATCHER_TRUST_CALLERS=true where the network decides who calls"
        )
    logger.warning(
        "AUTHENTICATION IS OFF: whoever reaches this port may name any tenant and change any budget",
        extra=fields(listen=settings.listen, trust_callers=settings.trust_callers),
    )


def _load(config: str) -> Catalogue:
    try:
        if config:
            return load_catalogue(Path(config))
        with resources.as_file(resources.files("dispatcher_service") / "default.toml") as path:
            return load_catalogue(path)
    except ConfigError as error:
        raise StartError(str(error)) from error


def _open_ledger(url: str) -> Ledger:
    try:
        return open_ledger(url)
    except (ValueError, LedgerUnavailable) as error:
        raise StartError(f"DISPATCHER_LEDGER={url}: {error}") from error


def _open_decision_log(settings: Settings) -> Lines | None:
    destination = settings.decision_log
    if destination == "none":
        return None
    if destination == "stdout":
        return StdoutLines()
    try:
        return FileLines(
            Path(destination),
            max_bytes=settings.decision_log_max_bytes,
            max_age=settings.decision_log_max_age,
            keep=settings.decision_log_keep,
        )
    except OSError as error:
        raise StartError(f"DISPATCHER_DECISION_LOG={destination}: {error.strerror}") from error


def _open_tracing(settings: Settings) -> Tracing:
    if settings.tracing == "none":
        return NoTracing()
    try:
        # The extra `otel` is needed only here.
        from dispatcher_service.otel_tracing import OtelTracing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError(f"DISPATCHER_TRACING=otlp needs {error.name}: pip install 'pointsman[otel]'") from error
    name = os.environ.get("OTEL_SERVICE_NAME", "pointsman-dispatcher")
    return OtelTracing(service_name=name, version=importlib.metadata.version("pointsman"))


def _load_redaction(path: str) -> Redact:
    try:
        return redaction.load(path)
    except ValueError as error:
        raise StartError(f"DISPATCHER_REDACTION={error}") from error


def _check_config(path: Path) -> int:
    try:
        catalogue = load_catalogue(path)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    deployments = sum(1 for _ in catalogue.all_deployments())
    counts = f"{len(catalogue.tenants)} tenants, {len(catalogue.models)} models, {deployments} deployments"
    print(f"{path}: ok: {counts}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
