"""Who may call, as frozen values: what the configuration says of credentials, and who a call turned out to be."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher_service.errors import Forbidden


class AuthMode(enum.Enum):
    """Whether callers must prove who they are."""

    NONE = "none"
    """For development: callers name their tenant, and every one may do what an admin may."""
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a call comes from: a tenant, or an admin, who has no tenant and so can spend no money.

    Only with `AuthMode.NONE` is a principal both. `name` is an admin's in the configuration or of its token, for the
    audit trail; empty where there is none.
    """

    tenant_id: str
    is_admin: bool
    name: str = ""

    def tenant(self) -> str:
        """The tenant on whose account the call is.

        Raises:
            Forbidden: an admin's credential has none.
        """
        if not self.tenant_id:
            raise Forbidden("this credential is an admin's and has no tenant: use one of the tenant's")
        return self.tenant_id

    def require_admin(self) -> None:
        """Pass for admins.

        Raises:
            Forbidden: it is a tenant's credential.
        """
        if not self.is_admin:
            raise Forbidden("this call needs an admin's credential")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: never the key. `expires_at` is in seconds since the epoch, `None` for no end."""

    sha256: bytes
    expires_at: float | None
    owner: Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtPolicy:
    """Whose tokens are believed, and what in them says who calls.

    Attributes:
        jwks: the issuer's public keys: an `https://` URL, or the path of a file.
        issuer: the token's `iss`.
        audience: must be among the token's `aud`.
        algorithms: that may sign; asymmetric ones only.
        tenant_claim: the claim that holds the tenant's id.
        admin_claim: the claim that may hold `admin_value`, alone or in a list; such a token is an admin's.
        admin_value: see `admin_claim`; empty if no token is an admin's.
        leeway: seconds that the issuer's clock may be off.
        refresh: seconds after which the keys are read again.
        timeout: seconds that reading them may take.
    """

    jwks: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    tenant_claim: str
    admin_claim: str
    admin_value: str
    leeway: float
    refresh: float
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthPolicy:
    """All credentials of the configuration.

    Attributes:
        mode: see `AuthMode`.
        api_keys: by the id inside the key.
        certificates: owners of client certificates, by `uri:…`, `dns:…` or `subject:…`.
        jwt: `None` if no tokens are taken.
    """

    mode: AuthMode
    api_keys: Mapping[str, ApiKey]
    certificates: Mapping[str, Principal]
    jwt: JwtPolicy | None


OPEN = AuthPolicy(mode=AuthMode.NONE, api_keys={}, certificates={}, jwt=None)
"""No credentials at all."""
