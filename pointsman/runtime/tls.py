"""The server's side of TLS: certificates from files, replaced without a restart.

Whoever rotates certificates (cert-manager, a cron job) writes the same files again. Each new connection is offered what
they hold then; connections that stand keep what they began with, at most until the server ends them by their age.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pointsman.runtime.channels import Signature, signature
from pointsman.runtime.logs import fields
from pointsman.runtime.starting import StartError

logger = logging.getLogger(__name__)


class TlsError(Exception):
    """The files cannot be used. The message is one line that names the file and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Where a server's certificate is, as PEM files.

    Attributes:
        certificate: the chain, the server's own certificate first.
        key: its private key, without a passphrase.
        client_ca: who signs clients' certificates; `None` asks clients for none. Otherwise every client must show one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None

    @property
    def files(self) -> Sequence[Path]:
        """All of them."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]


@dataclass(frozen=True, slots=True)
class _Loaded:
    configuration: grpc.ServerCertificateConfiguration
    expires_at: float


class Certificates:
    """The certificates of one server. Safe to use from any thread: gRPC asks from its own."""

    def __init__(self, tls: ServerTls, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Read the files.

        Raises:
            TlsError: they cannot be used.
        """
        self._tls = tls
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._loaded = _load(tls)
        self._failing = False

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._loaded.configuration, self._fetch, require_client_authentication=self._tls.client_ca is not None
        )
        return credentials

    def seconds_left(self) -> float:
        """Until the certificate that new connections are offered expires; negative afterwards."""
        return self._current().expires_at - self._wall_clock()

    def reload_failing(self) -> bool:
        """True while the files hold something that cannot be used, so that what was read before is still offered."""
        self._current()
        return self._failing

    def _fetch(self) -> grpc.ServerCertificateConfiguration:
        return self._current().configuration

    def _current(self) -> _Loaded:
        """What the files hold, or held when they were last good."""
        with self._lock:
            found = self._signature()
            # Files that failed are not read again at each handshake: only when one of them changes.
            if found != self._seen:
                self._seen = found
                try:
                    self._loaded = _load(self._tls)
                except TlsError as error:
                    self._failing = True
                    logger.error("cannot reload certificates; the old ones stay", extra=fields(problem=str(error)))
                else:
                    self._failing = False
                    logger.info("certificates reloaded", extra=fields(seconds_left=round(self._expiry_in())))
            return self._loaded

    def _expiry_in(self) -> float:
        return self._loaded.expires_at - self._wall_clock()

    def _signature(self) -> list[Signature]:
        return [signature(file) for file in self._tls.files]


def from_settings(settings: Any, *, prefix: str) -> ServerTls | None:
    """The settings `tls_certificate`, `tls_key` and `tls_client_ca` as a value, `None` if all are empty.

    Raises:
        StartError: one is set without another that it needs.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if not certificate and not key and not client_ca:
        return None
    if not certificate or not key:
        raise StartError(f"{prefix}_TLS_CERTIFICATE and {prefix}_TLS_KEY belong together: set both, or no TLS setting")
    return ServerTls(certificate=Path(certificate), key=Path(key), client_ca=Path(client_ca) if client_ca else None)


def _load(tls: ServerTls) -> _Loaded:
    chain, key = _read(tls.certificate), _read(tls.key)
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise TlsError(
            f"{tls.certificate}: not a certificate in PEM form: write the chain, the server's first"
        ) from error
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise TlsError(f"{tls.key}: not a private key in PEM form without a passphrase: write one") from error
    ours, its = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in (private.public_key(), certificate.public_key())
    )
    if ours != its:
        raise TlsError(f"{tls.key}: not the key of {tls.certificate}: write the two that belong together")
    roots = None
    if tls.client_ca is not None:
        roots = _read(tls.client_ca)
        try:
            x509.load_pem_x509_certificates(roots)
        except ValueError as error:
            raise TlsError(f"{tls.client_ca}: not a certificate in PEM form: write the authority's") from error
    configuration = grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)
    return _Loaded(configuration, certificate.not_valid_after_utc.timestamp())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from error
