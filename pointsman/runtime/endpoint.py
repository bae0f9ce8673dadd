"""Where Prometheus reads a process: `/metrics` over HTTP, on a thread of its own."""

import contextlib
from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry

from pointsman.runtime.starting import StartError, split_address


def without_creation_times() -> None:
    """A creation time beside every counter and histogram doubles the series, and no query of ours reads it."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def metrics_endpoint(listen: str, registry: CollectorRegistry) -> Iterator[str]:
    """Serve a registry at `listen` (port 0 takes a free one) within the block; yields `host:port`.

    Raises:
        StartError: the port is taken or the address cannot be used.
    """
    without_creation_times()
    host, port = split_address(listen)
    try:
        httpd, _ = prometheus_client.start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error.strerror or error}. Choose another port") from error
    try:
        yield f"{host}:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
