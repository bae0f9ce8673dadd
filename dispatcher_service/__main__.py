"""The dispatcher as a process: the one place where its parts are put together.

python -m dispatcher_service                       serve, with settings from the environment
python -m dispatcher_service check-config FILE     check a configuration file, offline
python -m dispatcher_service --help                list the settings
"""

import asyncio
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

from dispatcher_service.auth import DEFAULT_TENANT, Authenticator
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.decision_log import DecisionLog
from dispatcher_service.dispatch import Dispatcher
from dispatcher_service.gates import Gates
from dispatcher_service.identity import AuthMode
from dispatcher_service.metrics import Metrics
from dispatcher_service.notices import Notices
from dispatcher_service.outcome import Outcome
from dispatcher_service.rendering import record_json
from dispatcher_service.scorer_client import GrpcScorer
from dispatcher_service.servicer import SERVICE, DispatcherServicer
from dispatcher_service.settings import PREFIX, Settings
from dispatcher_service.tenants import ConfigError, load_catalogue
from dispatcher_service.tokens import TokenVerifier
from dispatcher_service.upstream import OpenAIUpstream
from pointsman.dispatcher.v1 import dispatcher_pb2_grpc
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
    tokens = TokenVerifier(clock=time.monotonic)
    notices = Notices()
    try:
        decision_log = DecisionLog(settings.decision_log)
    except OSError as error:
        raise StartError(f"DISPATCHER_DECISION_LOG={settings.decision_log}: {error.strerror}") from error
    try:
        upstream = OpenAIUpstream(Credentials(catalogue.all_deployments(), os.environ))
    except CredentialError as error:
        raise StartError(str(error)) from error
    gates = Gates(clock=time.monotonic, observe=metrics)
    metrics.watch_breakers({d.name: partial(gates.state, d) for d in catalogue.all_deployments()})
    scorer = GrpcScorer(catalogue.scorer.address, observe=metrics.scorer_called)

    def record(outcome: Outcome) -> None:
        metrics.observe(outcome)
        notices.observe(outcome)
        if decision_log.enabled:
            decision_log.write(record_json(outcome))

    servicer = DispatcherServicer(
        dispatcher=Dispatcher(
            catalogue=catalogue,
            scorer=scorer,
            upstream=upstream,
            gates=gates,
            record=record,
            clock=time.monotonic,
            wall_clock=time.time,
            sleep=asyncio.sleep,
            draw=random.random,
        ),
        auth=Authenticator(
            mode=catalogue.auth.mode,
            catalogue=lambda: catalogue,
            tokens=tokens,
            default_tenant=DEFAULT_TENANT if settings.mode == "development" else None,
            observe=metrics.authenticated,
            wall_clock=time.time,
        ),
        metrics=metrics,
        max_conversation_bytes=settings.max_conversation_bytes,
    )

    def register(server: grpc.aio.Server) -> None:
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(servicer, server)

    async def prepare() -> None:
        """Nothing to wait for: without a scorer each tenant's policy answers."""

    async def close() -> None:
        await scorer.close()
        await upstream.close()
        await tokens.close()
        decision_log.close()

    await serve(
        ServerSpec(
            service="dispatcher",
            grpc_services=[SERVICE],
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
