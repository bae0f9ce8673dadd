"""The life of a gRPC process: listen, load, serve, drain, stop.

Health follows grpc.health.v1: NOT_SERVING from the first moment until `prepare` has passed, SERVING until SIGTERM
or SIGINT, then NOT_SERVING while calls in flight finish.
"""

import asyncio
import contextlib
import gc
import importlib.metadata
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import grpc
import grpc.aio
import prometheus_client
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from pointsman.runtime.channels import MAX_MESSAGE_BYTES
from pointsman.runtime.decoding import StrictServer
from pointsman.runtime.endpoint import metrics_endpoint
from pointsman.runtime.logs import fields
from pointsman.runtime.starting import StartError, split_address
from pointsman.runtime.tls import Certificates, ServerTls, TlsError
from pointsman.runtime.workers.link import WorkerEnd

_MAX_CONNECTION_AGE_MS = 300_000
"""Clients reconnect at least this often, and so find new replicas."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """What `serve` runs.

    Attributes:
        service: short name for logs and build info, `scorer` or `dispatcher`.
        grpc_services: full names of the gRPC services, for health and reflection.
        listen: `host:port` of the gRPC port; port 0 takes a free one, which the "serving" log line names.
        metrics_listen: `host:port` of the Prometheus endpoint; port 0 as above. Not read of a worker.
        registry: the metrics to expose.
        drain_seconds: how long calls in flight may finish after SIGTERM before they are cancelled.
        reflection: offer gRPC server reflection.
        tls: certificate of the gRPC port; `None` speaks in the clear.
        parent: the line to the parent that this process is a worker of, which shows the metrics of all; the gRPC port
            is shared then. `None`: this process is alone.
    """

    service: str
    grpc_services: Sequence[str]
    listen: str
    metrics_listen: str
    registry: CollectorRegistry
    drain_seconds: float
    reflection: bool
    tls: ServerTls | None = None
    parent: WorkerEnd | None = None


async def serve(
    spec: ServerSpec,
    *,
    register: Callable[[grpc.aio.Server], None],
    prepare: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Run until SIGTERM or SIGINT (a worker: until its parent has gone, too), then drain and return.

    Args:
        spec: addresses and names.
        register: adds the servicers to the server.
        prepare: what must pass before SERVING, such as loading a model. Its errors stop the process.
        close: releases what the service holds, after the last call has ended.

    Raises:
        StartError: a port is taken or an address cannot be parsed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    server = _new_server(spec)
    health = HealthServicer()
    watched = ("", *spec.grpc_services)
    await _set_health(health, watched, serving=False)  # HealthServicer starts as SERVING.
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    # What it passes on is what generated code calls of a server.
    register(cast("grpc.aio.Server", StrictServer(server)))
    if spec.reflection:
        names = (*spec.grpc_services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)

    with _observed(spec, gone=partial(_set_from_thread, loop, stop)) as say_serving:
        try:
            if spec.parent is None:
                address = await _open(server, spec)
                await prepare()
            else:
                # Beside others the kernel sends calls as soon as the port is open, whatever health says.
                await prepare()
                address = await _open(server, spec)
            # What is loaded stays: a garbage collector that looked at all of it would stop every call for 0.1 s.
            gc.freeze()
            await _set_health(health, watched, serving=True)
            say_serving(address)
            await stop.wait()
            logger.info("draining", extra=fields(service=spec.service, seconds=spec.drain_seconds))
        finally:
            await _set_health(health, watched, serving=False)
            await server.stop(spec.drain_seconds)
            await close()
    logger.info("stopped", extra=fields(service=spec.service))


def _new_server(spec: ServerSpec) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_connection_age_ms", _MAX_CONNECTION_AGE_MS),
            # Unless workers share it on purpose: a second process that binds the same port takes half of the traffic.
            ("grpc.so_reuseport", int(spec.parent is not None)),
            # Calls that wait for the event loop: above the first number some are cut off, above the second all.
            ("grpc.server.max_pending_requests", 1_000),
            ("grpc.server.max_pending_requests_hard_limit", 3_000),
            # Clients ask whether we are still there (see channels.py) more often than gRPC likes by default.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )


@contextlib.contextmanager
def _observed(spec: ServerSpec, *, gone: Callable[[], None]) -> Iterator[Callable[[str], None]]:
    """Show the metrics within the block, or answer the parent who shows them.

    Yields what says, with the gRPC port's address, that calls are answered.
    """
    info = prometheus_client.Gauge(
        "pointsman_build_info", "Always 1; the labels say what runs.", ["service", "version"], registry=spec.registry
    )
    info.labels(spec.service, importlib.metadata.version("pointsman")).set(1)
    if (parent := spec.parent) is not None:
        parent.open(spec.registry, gone=gone)

        def tell_parent(address: str) -> None:
            logger.info("worker serving", extra=fields(service=spec.service, grpc=address, pid=os.getpid()))
            parent.serving()

        yield tell_parent
        return
    with metrics_endpoint(spec.metrics_listen, spec.registry) as metrics:
        yield lambda address: logger.info("serving", extra=fields(service=spec.service, grpc=address, metrics=metrics))


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # The loop has ended by itself.
        loop.call_soon_threadsafe(event.set)


async def _open(server: grpc.aio.Server, spec: ServerSpec) -> str:
    """Open the gRPC port and begin to answer; returns its address."""
    address = _bind(server, spec)
    await server.start()
    return address


def _bind(server: grpc.aio.Server, spec: ServerSpec) -> str:
    host, _ = split_address(spec.listen)
    try:
        if spec.tls is None:
            port = server.add_insecure_port(spec.listen)
        else:
            port = server.add_secure_port(spec.listen, _certificates(spec, spec.tls).credentials())
    except RuntimeError as error:
        raise StartError(f"cannot listen on {spec.listen}: is another process there? Choose another port") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _certificates(spec: ServerSpec, tls: ServerTls) -> Certificates:
    try:
        certificates = Certificates(tls)
    except TlsError as error:
        raise StartError(str(error)) from error
    for name, text, value in (
        ("expiry_seconds", "Seconds until the served certificate expires; negative after.", certificates.seconds_left),
        (
            "reload_failing",
            "1 while the certificate files cannot be used, so that the old ones are still served.",
            certificates.reload_failing,
        ),
    ):
        gauge = prometheus_client.Gauge(f"pointsman_{spec.service}_certificate_{name}", text, registry=spec.registry)
        gauge.set_function(value)
    return certificates


async def _set_health(health: HealthServicer, services: Sequence[str], *, serving: bool) -> None:
    response = health_pb2.HealthCheckResponse
    status = response.SERVING if serving else response.NOT_SERVING
    for name in services:
        await health.set(name, status)
