"""The dispatcher: the one place where its parts are put together."""

import asyncio
import logging
import os
import random
import signal
import time
from functools import partial
from importlib import resources
from pathlib import Path

import grpc.aio
from prometheus_client import CollectorRegistry

from dispatcher_service.admin_servicer import SERVICE as BUDGET_SERVICE
from dispatcher_service.admin_servicer import BudgetServicer
from dispatcher_service.admitting import Admitting
from dispatcher_service.auth import DEFAULT_TENANT, Authenticator
from dispatcher_service.budget_metrics import BudgetMetrics
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.conversations import Conversations
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.dispatch import Dispatcher
from dispatcher_service.drains import Drains
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.gates import Gates
from dispatcher_service.idempotency import Idempotent
from dispatcher_service.identity import AuthMode
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.ledger.opening import default_url, open_ledger
from dispatcher_service.live_scorers import LiveScorers
from dispatcher_service.metrics import Metrics
from dispatcher_service.money import Money
from dispatcher_service.notices import Notices
from dispatcher_service.outcome import Outcome
from dispatcher_service.policies import Policies
from dispatcher_service.policy_metrics import PolicyMetrics
from dispatcher_service.records.recording import Recording
from dispatcher_service.records.servicer import SERVICE as RECORD_SERVICE
from dispatcher_service.records.servicer import RecordServicer
from dispatcher_service.records.telemetry import open_tracing
from dispatcher_service.scorer_opening import open_scorers
from dispatcher_service.servicer import SERVICE, DispatcherServicer
from dispatcher_service.settings import PREFIX, Settings
from dispatcher_service.tenants import ConfigError
from dispatcher_service.tokens import TokenVerifier
from dispatcher_service.upstream import OpenAIUpstream
from pointsman.dispatcher.v1 import budget_pb2_grpc, dispatcher_pb2_grpc, records_pb2_grpc
from pointsman.runtime import server, tls
from pointsman.runtime.logs import fields
from pointsman.runtime.server import ServerSpec
from pointsman.runtime.starting import StartError, is_loopback
from pointsman.runtime.workers.link import WorkerEnd

_LAST_DRAINS_SECONDS = 5.0
"""For answers whose callers have gone, after the calls in flight have had DISPATCHER_DRAIN."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings, *, parent: WorkerEnd | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; `parent` is whose worker this process is.

    Raises:
        StartError: it cannot start.
    """
    registry = CollectorRegistry()
    ledger = _open_ledger(settings.ledger)
    policies = _open_policies(settings, ledger, registry)
    catalogue = policies.catalogue()
    _check_exposure(settings, catalogue)
    metrics = Metrics(registry, tenants=catalogue.tenants)
    tokens = TokenVerifier(clock=time.monotonic)
    notices = Notices()
    tracing = open_tracing(settings, os.environ)
    budget_metrics = BudgetMetrics(registry, tenants=catalogue.tenants)
    money = Money(ledger, catalogue=policies.catalogue, metrics=budget_metrics, drain=settings.drain)
    credentials = _open_credentials(catalogue)
    upstream = OpenAIUpstream(credentials, trace_headers=tracing.headers)
    gates = Gates(clock=time.monotonic, observe=metrics)

    metrics.watch_tasks(asyncio.get_running_loop())
    scorer = await LiveScorers.opened(
        catalogue.scorer,
        open_=partial(open_scorers, observe=metrics.scorer_called, trace_headers=tracing.headers),
        watch=metrics.watch_scorers,
    )

    def watch_deployments(found: Catalogue) -> None:
        metrics.watch_breakers({d.name: partial(gates.state, d) for d in found.all_deployments()})

    async def accept(found: Catalogue) -> None:
        """Make ready for a changed file."""
        _check_change(catalogue, found, credentials)
        try:
            await scorer.follow(found.scorer)
        except StartError as error:
            raise ConfigError([str(error)]) from error
        watch_deployments(found)

    watch_deployments(catalogue)
    policies.accept_by(accept)

    recording = Recording(
        settings,
        os.environ,
        ledger=ledger,
        catalogue=policies.catalogue,
        scorer=scorer,
        registry=registry,
        tracing=tracing,
    )

    admitting = Admitting(settings, catalogue=policies.catalogue, registry=registry, metrics=metrics)

    def record(outcome: Outcome) -> None:
        metrics.observe(outcome)
        notices.observe(outcome)
        recording.recorder.record(outcome)
        tracing.observe(outcome)

    drains = Drains(observe=metrics.drained)
    conversations = Conversations(
        Dispatcher(
            catalogue=policies.catalogue,
            scorer=tracing.scorer(scorer),
            judge=tracing.judge(scorer),
            upstream=tracing.upstream(upstream),
            book=money.book,
            pacer=money.pacer,
            gates=gates,
            drains=drains,
            record=record,
            clock=time.monotonic,
            wall_clock=time.time,
            sleep=asyncio.sleep,
            draw=random.random,
        ),
        documents=ledger,
        catalogue=policies.catalogue,
        observe=recording.metrics.conversation_store,
    )
    idempotent = Idempotent(
        admitting.layer(conversations), documents=ledger, catalogue=policies.catalogue, observe=metrics.request_named
    )
    auth = Authenticator(
        mode=catalogue.auth.mode,
        catalogue=policies.catalogue,
        tokens=tokens,
        default_tenant=DEFAULT_TENANT if settings.mode == "development" else None,
        observe=metrics.authenticated,
        wall_clock=time.time,
    )
    servicer = DispatcherServicer(
        dispatcher=idempotent,
        auth=auth,
        admission=admitting.door,
        metrics=metrics,
        max_conversation_bytes=settings.max_conversation_bytes,
        tracing=tracing,
    )
    record_servicer = RecordServicer(
        store=recording.store,
        recorder=recording.recorder,
        auth=auth,
        catalogue=policies.catalogue,
        metrics=metrics,
        tracing=tracing,
        told=recording.metrics.opinion,
        wall_clock=time.time,
    )
    budget_servicer = BudgetServicer(
        policies=policies, ledger=ledger, auth=auth, metrics=metrics, tracing=tracing, wall_clock=time.time
    )

    def register(to: grpc.aio.Server) -> None:
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(servicer, admitting.before(to))
        records_pb2_grpc.add_RecordServiceServicer_to_server(record_servicer, to)
        budget_pb2_grpc.add_BudgetServiceServicer_to_server(budget_servicer, to)

    async def prepare() -> None:
        """Nothing to wait for: without a scorer or a ledger each tenant's policy answers."""
        _warn_of_exposure(settings, catalogue)
        money.start()
        recording.start()
        admitting.start()
        await policies.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, policies.reload_soon)

    async def close() -> None:
        await policies.close()
        await drains.close(_LAST_DRAINS_SECONDS)
        await idempotent.close()
        await conversations.close()
        await money.close()
        await recording.close()
        await admitting.close()
        await scorer.close()
        await upstream.close()
        await tokens.close()
        await ledger.close()
        await tracing.close()

    await server.serve(
        ServerSpec(
            service="dispatcher",
            grpc_services=[SERVICE, RECORD_SERVICE, BUDGET_SERVICE],
            listen=settings.listen,
            metrics_listen=settings.metrics_listen,
            registry=registry,
            drain_seconds=settings.drain,
            reflection=settings.mode == "development",
            tls=tls.from_settings(settings, prefix=PREFIX),
            parent=parent,
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


def _warn_of_exposure(settings: Settings, catalogue: Catalogue) -> None:
    if catalogue.auth.mode is AuthMode.REQUIRED:
        if not settings.tls_certificate and not is_loopback(settings.listen):
            logger.warning(
                "credentials come in over a port without TLS: set DISPATCHER_TLS_CERTIFICATE, or let a mesh encrypt",
                extra=fields(listen=settings.listen),
            )
        return
    logger.warning(
        "AUTHENTICATION IS OFF: whoever reaches this port may name any tenant and change any budget",
        extra=fields(listen=settings.listen, trust_callers=settings.trust_callers),
    )


def _open_policies(settings: Settings, ledger: Ledger, registry: CollectorRegistry) -> Policies:
    path = Path(settings.config or str(resources.files("dispatcher_service") / "default.toml"))
    metrics = PolicyMetrics(registry)
    try:
        policies = Policies(path, documents=ledger, observe=metrics, wall_clock=time.time)
    except ConfigError as error:
        raise StartError(str(error)) from error
    metrics.watch_overrides(policies.overrides_in_force)
    return policies


def _open_credentials(catalogue: Catalogue) -> Credentials:
    try:
        return Credentials(catalogue.all_deployments(), os.environ)
    except CredentialError as error:
        raise StartError(str(error)) from error


def _check_change(start: Catalogue, found: Catalogue, credentials: Credentials) -> None:
    """Raises ConfigError for a configuration that this process cannot go over to."""
    if found.auth.mode is not start.auth.mode:
        raise ConfigError(["auth: whether callers must prove who they are is settled at the start: restart"])
    try:
        for deployment in found.all_deployments():
            credentials.headers(deployment)
    except CredentialError as error:
        raise ConfigError([str(error)]) from error


def _open_ledger(url: str) -> Ledger:
    try:
        return open_ledger(url or default_url(os.environ))
    except (ValueError, OSError, LedgerUnavailable) as error:
        # The address may hold a password.
        raise StartError(f"DISPATCHER_LEDGER: {error}") from error
    except ImportError as error:
        raise StartError("DISPATCHER_LEDGER: redis needs the extra: pip install 'pointsman[redis]'") from error
