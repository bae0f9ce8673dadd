"""Credentials for tests: API keys, a token issuer, and certificates of a CA of our own, all made on the spot."""

import base64
import datetime
import ipaddress
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher_service.api_keys import NewKey

ISSUER = "https://issuer.test"
AUDIENCE = "pointsman"


def key_line(key: NewKey, *, expires: str = "") -> str:
    """The entry of `api_keys` for a key; `expires` is a TOML date."""
    more = f", expires = {expires}" if expires else ""
    return f'{{ id = "{key.id}", sha256 = "{key.sha256}"{more} }}'


def bearer(credential: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with an API key or a token."""
    return (("authorization", f"Bearer {credential}"),)


class Issuer:
    """Signs tokens (ES256) and knows its public key set."""

    def __init__(self, key_id: str = "k1") -> None:
        self.key_id = key_id
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> dict[str, str]:
        """As a member of a key set."""
        numbers = self._key.public_key().public_numbers()
        x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y}

    @property
    def key_set(self) -> str:
        return json.dumps({"keys": [self.public_key]})

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good for a minute; `claims` add to or replace its claims, `None` takes one away."""
        all_claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, **claims}
        kept = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="ES256", headers={"kid": self.key_id, **(header or {})})


@dataclass(frozen=True)
class CertificateFiles:
    """Paths of a certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with its files in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._serial = 0
        certificate = self._sign(self._name, self._key.public_key(), days=1, extension=x509.BasicConstraints(True, 0))
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(certificate)

    def issue(self, file: str, *, days: float = 1, common_name: str = "localhost", uri: str = "") -> CertificateFiles:
        """Write `file.pem` and `file-key.pem`, replacing what is there: for this host, or for a client named `uri`."""
        key = ec.generate_private_key(ec.SECP256R1())
        host = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else [*host]
        certificate = self._sign(
            _name(common_name), key.public_key(), days=days, extension=x509.SubjectAlternativeName(names)
        )
        files = CertificateFiles(self._folder / f"{file}.pem", self._folder / f"{file}-key.pem")
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files.certificate.write_bytes(certificate)
        return files

    def _sign(self, subject: x509.Name, key: Any, *, days: float, extension: x509.ExtensionType) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=2),
            not_valid_after=now + datetime.timedelta(days=days),
        ).add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass
class Call:
    """Stands for the context of a call, with its metadata and its verified peer names."""

    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer: dict[str, list[bytes]] | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.peer or {}

    @classmethod
    def with_bearer(cls, credential: str, **metadata: str) -> Self:
        named = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        return cls(metadata=(*bearer(credential), *named))
