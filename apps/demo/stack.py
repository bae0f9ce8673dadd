"""Scorer, dispatcher and, without an API key, the local upstream: started together, stopped together."""

import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from apps.demo.catalogue import KEY_VARIABLE, Models, local_models, openai_models, toml
from apps.demo.children import Child, child

# Announcements are read from JSON lines of level info, whatever the caller's environment says.
_LOGS = {"LOG_STYLE": "json", "LOG_LEVEL": "info"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the processes listen; 0 takes a free port."""

    scorer: int = 0
    scorer_metrics: int = 0
    dispatcher: int = 0
    dispatcher_metrics: int = 0
    upstream: int = 0


def usual_ports() -> Ports:
    """The documented ports, each replaced by a free one where something else holds it."""
    return Ports(
        scorer=port_or_free(50051),
        scorer_metrics=port_or_free(9101),
        dispatcher=port_or_free(50052),
        dispatcher_metrics=port_or_free(9102),
        upstream=port_or_free(8080),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The running processes. `children` are in the order in which they started."""

    models: Models
    scorer: Child
    dispatcher: Child
    children: tuple[Child, ...]


@asynccontextmanager
async def running(
    environ: Mapping[str, str], ports: Ports, *, more_tenants: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Stack]:
    """Everything up inside the context, nothing left after it. `more_tenants` as in `catalogue.toml`.

    Raises:
        ChildFailed: a process did not start.
    """
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-"))
        children = []
        if environ.get(KEY_VARIABLE):
            models = openai_models()
        else:
            upstream = await stack.enter_async_context(
                child("apps.local_upstream", environment("LOCAL_UPSTREAM", LISTEN=loopback(ports.upstream)))
            )
            children.append(upstream)
            models = local_models(upstream.serving["http"])
        scorer = await stack.enter_async_context(
            child(
                "scorer_service",
                environment("SCORER", LISTEN=loopback(ports.scorer), METRICS_LISTEN=loopback(ports.scorer_metrics)),
            )
        )
        config = Path(directory) / "dispatcher.toml"
        config.write_text(toml(models, scorer=scorer.serving["grpc"], more_tenants=more_tenants), encoding="utf-8")
        dispatcher = await stack.enter_async_context(
            child(
                "dispatcher_service",
                environment(
                    "DISPATCHER",
                    LISTEN=loopback(ports.dispatcher),
                    METRICS_LISTEN=loopback(ports.dispatcher_metrics),
                    CONFIG=str(config),
                    LEDGER=f"sqlite:{Path(directory) / 'ledger.sqlite'}",
                ),
            )
        )
        yield Stack(models=models, scorer=scorer, dispatcher=dispatcher, children=(*children, scorer, dispatcher))


def environment(prefix: str, **settings: str) -> dict[str, str]:
    """Settings of a service that starts with `prefix`, with logs that `children` reads."""
    return {f"{prefix}_{name}": value for name, value in {**settings, **_LOGS}.items()}


def loopback(port: int = 0) -> str:
    """An address on this machine alone; port 0 takes a free one."""
    return f"127.0.0.1:{port}"


def port_or_free(port: int) -> int:
    """The port if nothing listens on it, else 0. Somebody may still take it before our child does; it then says so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
