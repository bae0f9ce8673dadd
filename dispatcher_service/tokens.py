"""JSON Web Tokens (RFC 7519): whether to believe one, and whom it names."""

from collections.abc import Callable, Mapping
from typing import Any

import jwt

from dispatcher_service.identity import JwtPolicy, Principal
from dispatcher_service.jwks import KeySet, Read, read_source


class BadToken(Exception):
    """The token is not to be believed, or names nobody. `expired` if it was good once."""

    def __init__(self, *, expired: bool = False) -> None:
        super().__init__()
        self.expired = expired


class TokenVerifier:
    """Verifies tokens against the issuer's keys. The policy comes with each call, so that it may be reloaded."""

    def __init__(self, *, clock: Callable[[], float], read: Read = read_source) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._read = read
        self._policy: JwtPolicy | None = None
        self._keys: KeySet | None = None

    async def principal(self, token: str, policy: JwtPolicy) -> Principal:
        """Whom the token names. Whether there is such a tenant is not known here.

        Raises:
            BadToken: it is not one of the issuer's for us, it has expired, or it names nobody.
            IdentityUnavailable: the issuer's keys cannot be read.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise BadToken from error
        # Looked at before any key is fetched: a token that can never be good causes no traffic.
        if header.get("alg") not in policy.algorithms:
            raise BadToken
        key_id = header.get("kid")
        key = await self._key_set(policy).key(key_id if isinstance(key_id, str) else None)
        if key is None:
            raise BadToken
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=policy.algorithms,
                audience=policy.audience,
                issuer=policy.issuer,
                leeway=policy.leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise BadToken(expired=True) from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise BadToken from error
        return _principal(claims, policy)

    async def close(self) -> None:
        """Stop reading keys."""
        if self._keys is not None:
            await self._keys.close()

    def _key_set(self, policy: JwtPolicy) -> KeySet:
        if self._keys is None or self._policy != policy:
            self._policy = policy
            self._keys = KeySet(
                policy.jwks, refresh=policy.refresh, timeout=policy.timeout, read=self._read, clock=self._clock
            )
        return self._keys


def _principal(claims: Mapping[str, Any], policy: JwtPolicy) -> Principal:
    held = claims.get(policy.admin_claim)
    roles = held if isinstance(held, list) else [held]
    if policy.admin_value and policy.admin_value in roles:
        return Principal(tenant_id="", is_admin=True, name=str(claims.get("sub", ""))[:100])
    tenant_id = claims.get(policy.tenant_claim)
    if not isinstance(tenant_id, str) or not tenant_id:
        raise BadToken
    return Principal(tenant_id=tenant_id, is_admin=False)
