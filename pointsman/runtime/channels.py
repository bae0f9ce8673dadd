"""The client's side of a connection: plain or TLS, balanced over all addresses, found again soon after an outage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""On the wire, both ways. Far above the limits on text, so that a too large request reaches the code that names its
field."""

ROUND_ROBIN: Mapping[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
"""Service config: with several addresses behind a name, one connection each, and calls in turn."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A service that comes back is found again within a second, not within gRPC's default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A peer that vanished or hangs without a word is noticed within 15 s, also where no call is under way. Our servers
    # allow it. It is the ping's own timeout that ends the connection; without it that takes a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Names are asked again when a connection breaks, at most this often: a replica that is new is found soon.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How a client trusts and shows itself, as PEM files.

    Attributes:
        ca: who must have signed the server's certificate; `None` trusts what gRPC trusts by itself.
        certificate: the client's own chain, for servers that want one.
        key: its private key.
        server_name: the name in the server's certificate, where it is not the address's.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")

    @property
    def files(self) -> Sequence[Path]:
        """Those that are set."""
        return [file for file in (self.ca, self.certificate, self.key) if file is not None]


Signature = tuple[int, int, int] | None


def signature(file: Path) -> Signature:
    """Differs when a file was replaced, also behind a symbolic link, as Kubernetes does; `None` if there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def open_channel(
    target: str, *, tls: ClientTls | None = None, service_config: Mapping[str, Any] = ROUND_ROBIN
) -> grpc.aio.Channel:
    """A channel to a gRPC target; it connects on the first call.

    Raises:
        OSError: a file of `tls` cannot be read.
    """
    options = _options(tls, service_config)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, _credentials(tls), options=options)


def open_sync_channel(
    target: str, *, tls: ClientTls | None = None, service_config: Mapping[str, Any] = ROUND_ROBIN
) -> grpc.Channel:
    """The same for code without asyncio."""
    options = _options(tls, service_config)
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, _credentials(tls), options=options)


def _options(tls: ClientTls | None, service_config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.service_config", json.dumps(service_config))]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    roots, certificate, key = (
        None if file is None else file.read_bytes() for file in (tls.ca, tls.certificate, tls.key)
    )
    return grpc.ssl_channel_credentials(root_certificates=roots, private_key=key, certificate_chain=certificate)
