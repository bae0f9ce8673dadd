"""Who calls: from a call's credential to a principal.

A credential is an API key or a token in `authorization: Bearer …`, or else the client certificate that the TLS
handshake has verified. It names one tenant, or an admin. The caller is never told what was wrong with it; the metric
`auth_total` tells operators.
"""

import enum
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispatcher_service import api_keys
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.errors import Unauthenticated
from dispatcher_service.identity import AuthMode, Principal
from dispatcher_service.tokens import BadToken, TokenVerifier

TENANT_KEY = "x-pointsman-tenant"
"""Metadata entry with the tenant's id. Without authentication it says who calls; with it, it must agree."""

AUTHORIZATION_KEY = "authorization"

DEFAULT_TENANT = "default"
"""The tenant of calls that name none, in development without authentication."""

_SCHEME = "bearer "
_CERTIFICATE_NAMES = (("uri", "peer_uri"), ("dns", "peer_dns"), ("subject", "x509_subject"))
_NO_DIGEST = bytes(32)


class Method(enum.Enum):
    """How a caller says who it is. Closed: a metric label."""

    NONE = "none"
    API_KEY = "api_key"
    JWT = "jwt"
    CERTIFICATE = "certificate"


class Result(enum.Enum):
    """What became of it. Closed: a metric label, and never told to a caller."""

    OK = "ok"
    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG = "wrong"
    EXPIRED = "expired"
    OTHER_TENANT = "other_tenant"
    UNKNOWN_TENANT = "unknown_tenant"


Observe = Callable[[Method, Result], None]
"""Called once per call that was told from others or refused."""


class _Refused(Exception):
    def __init__(self, method: Method, result: Result) -> None:
        super().__init__()
        self.method = method
        self.result = result


class Authenticator:
    """Turns a call's context into its principal, or refuses the call."""

    def __init__(
        self,
        *,
        mode: AuthMode,
        catalogue: Callable[[], Catalogue],
        tokens: TokenVerifier,
        default_tenant: str | None,
        observe: Observe,
        wall_clock: Callable[[], float],
    ) -> None:
        """The mode is that of the start: where a process may listen depends on it, so that a reload cannot change it.

        Args:
            mode: whether credentials are looked at.
            catalogue: gives the configuration of this moment.
            tokens: verifies JWTs.
            default_tenant: who calls that name nobody are from, without authentication; `None` refuses them.
            observe: see `Observe`.
            wall_clock: seconds since the epoch.
        """
        self._mode = mode
        self._catalogue = catalogue
        self._tokens = tokens
        self._default_tenant = default_tenant
        self._observe = observe
        self._wall_clock = wall_clock

    async def authenticate(self, context: Any) -> Principal:
        """Who calls.

        Args:
            context: the gRPC call's context.

        Raises:
            Unauthenticated: there is no good credential, or it is of no tenant that is configured.
            IdentityUnavailable: it cannot be told, since the token issuer's keys cannot be read.
        """
        metadata = context.invocation_metadata() or ()
        try:
            method, principal = await self._identify(metadata, context)
            if not principal.is_admin or principal.tenant_id:
                self._check_tenant(method, principal, _values(metadata, TENANT_KEY))
        except _Refused as refused:
            self._observe(refused.method, refused.result)
            raise Unauthenticated from None
        self._observe(method, Result.OK)
        return principal

    async def _identify(self, metadata: Sequence[tuple[str, str | bytes]], context: Any) -> tuple[Method, Principal]:
        if self._mode is AuthMode.NONE:
            return Method.NONE, self._trusted(metadata)
        bearers = _values(metadata, AUTHORIZATION_KEY)
        if not bearers:
            return Method.CERTIFICATE, self._by_certificate(context.auth_context())
        # A certificate does not make up for a bad key: whoever sends one means it.
        if len(bearers) > 1 or not bearers[0].lower().startswith(_SCHEME):
            raise _Refused(Method.NONE, Result.MALFORMED)
        credential = bearers[0][len(_SCHEME) :].strip()
        if credential.startswith(api_keys.PREFIX):
            return Method.API_KEY, self._by_key(credential)
        return Method.JWT, await self._by_token(credential)

    def _trusted(self, metadata: Sequence[tuple[str, str | bytes]]) -> Principal:
        named = _values(metadata, TENANT_KEY)
        if not named and self._default_tenant is not None:
            return Principal(self._default_tenant, is_admin=True)
        if len(named) != 1 or not named[0]:
            raise _Refused(Method.NONE, Result.MISSING)
        return Principal(named[0], is_admin=True)

    def _by_key(self, key: str) -> Principal:
        key_id = api_keys.id_of(key)
        if key_id is None:
            raise _Refused(Method.API_KEY, Result.MALFORMED)
        record = self._catalogue().auth.api_keys.get(key_id)
        # Compared in constant time, and also when there is no such id: neither takes longer or shorter.
        same = hmac.compare_digest(api_keys.digest(key), _NO_DIGEST if record is None else record.sha256)
        if record is None:
            raise _Refused(Method.API_KEY, Result.UNKNOWN)
        if not same:
            raise _Refused(Method.API_KEY, Result.WRONG)
        if record.expires_at is not None and self._wall_clock() >= record.expires_at:
            raise _Refused(Method.API_KEY, Result.EXPIRED)
        return record.owner

    async def _by_token(self, token: str) -> Principal:
        policy = self._catalogue().auth.jwt
        if policy is None:
            raise _Refused(Method.JWT, Result.UNKNOWN)
        try:
            return await self._tokens.principal(token, policy)
        except BadToken as error:
            raise _Refused(Method.JWT, Result.EXPIRED if error.expired else Result.WRONG) from None

    def _by_certificate(self, peer: Mapping[str, Sequence[bytes]]) -> Principal:
        # gRPC puts names here only after it has verified the certificate against the client CA.
        names = [
            f"{kind}:{name.decode('utf-8', 'replace')}"
            for kind, key in _CERTIFICATE_NAMES
            for name in peer.get(key, ())
        ]
        if not names:
            raise _Refused(Method.NONE, Result.MISSING)
        known = self._catalogue().auth.certificates
        owners = {known[name] for name in names if name in known}
        if len(owners) != 1:  # None, or a certificate that two owners claim by different names of it.
            raise _Refused(Method.CERTIFICATE, Result.UNKNOWN)
        return owners.pop()

    def _check_tenant(self, method: Method, principal: Principal, named: Sequence[str]) -> None:
        if principal.tenant_id not in self._catalogue().tenants:
            raise _Refused(method, Result.UNKNOWN_TENANT)
        if any(name != principal.tenant_id for name in named):
            raise _Refused(method, Result.OTHER_TENANT)


def _values(metadata: Sequence[tuple[str, str | bytes]], wanted: str) -> list[str]:
    return [value for key, value in metadata if key == wanted and isinstance(value, str)]
