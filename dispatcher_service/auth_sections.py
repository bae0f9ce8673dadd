"""The configuration file's keys about credentials: what they take, and the `AuthPolicy` that they become."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Protocol

from pydantic import AwareDatetime, Field

from dispatcher_service.identity import ApiKey, AuthMode, AuthPolicy, JwtPolicy, Principal
from dispatcher_service.upstream_sections import Section

_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1)]
_Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones: with a shared secret, whoever can check a token can make one."""


class ApiKeySection(Section):
    """One of `api_keys` of a tenant or an admin, as `pointsman key new` prints it."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    expires: AwareDatetime | datetime.date | None = None


CertificateName = Annotated[str, Field(pattern=r"^(uri|dns|subject):.+$")]
"""A name inside a client certificate, after the kind of name that it is."""


class AdminSection(Section):
    """One of `[admins]`."""

    api_keys: tuple[ApiKeySection, ...] = ()
    certificates: tuple[CertificateName, ...] = ()


class JwtSection(Section):
    """`[auth.jwt]`."""

    # Plain HTTP is for an agent on this machine; over a network it would hand out the right to sign.
    jwks: Annotated[str, Field(pattern=r"^(https://\S+|http://(127\.0\.0\.1|localhost|\[::1\])[:/]\S*|/.+)$")]
    issuer: _Text
    audience: _Text
    algorithms: Annotated[tuple[_Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    tenant_claim: _Text = "tenant"
    admin_claim: _Text = "roles"
    admin_value: str = ""
    leeway: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = 30.0
    refresh: _Seconds = 300.0
    timeout: _Seconds = 2.0


class AuthSection(Section):
    """`[auth]`."""

    mode: AuthMode | None = None
    jwt: JwtSection | None = None


class _Owner(Protocol):
    """A tenant's or an admin's section."""

    @property
    def api_keys(self) -> tuple[ApiKeySection, ...]: ...
    @property
    def certificates(self) -> tuple[str, ...]: ...


def auth_problems(auth: AuthSection, tenants: Mapping[str, _Owner], admins: Mapping[str, _Owner]) -> list[str]:
    """What is wrong between these sections, one line each."""
    problems: list[str] = []
    holders: dict[str, str] = {}
    for path, owner, _ in _owners(tenants, admins):
        marks = [f"api_keys: id {key.id!r}" for key in owner.api_keys]
        marks += [f"certificates: {name!r}" for name in owner.certificates]
        for mark in marks:
            if mark in holders:
                problems.append(f"{path}.{mark} is {holders[mark]}'s already: one credential has one owner")
            holders.setdefault(mark, path)
    has_credentials = bool(holders) or auth.jwt is not None
    if auth.mode is AuthMode.NONE and has_credentials:
        problems.append("auth.mode: 'none' with credentials configured would let anybody in: remove one of the two")
    if auth.mode is AuthMode.REQUIRED and not has_credentials:
        problems.append(
            "auth.mode: 'required', but no api_keys, certificates or auth.jwt: nobody could call; add one "
            "(pointsman key new)"
        )
    return problems


def auth_policy(auth: AuthSection, tenants: Mapping[str, _Owner], admins: Mapping[str, _Owner]) -> AuthPolicy:
    """Freeze sections that have no problems. Without a `mode`, credentials are required as soon as there are any."""
    api_keys: dict[str, ApiKey] = {}
    certificates: dict[str, Principal] = {}
    for _, owner, principal in _owners(tenants, admins):
        for key in owner.api_keys:
            api_keys[key.id] = ApiKey(bytes.fromhex(key.sha256), _expiry(key.expires), principal)
        certificates |= dict.fromkeys(owner.certificates, principal)
    has_credentials = bool(api_keys or certificates or auth.jwt)
    return AuthPolicy(
        mode=auth.mode or (AuthMode.REQUIRED if has_credentials else AuthMode.NONE),
        api_keys=api_keys,
        certificates=certificates,
        jwt=None if auth.jwt is None else _jwt(auth.jwt),
    )


def _owners(tenants: Mapping[str, _Owner], admins: Mapping[str, _Owner]) -> Iterator[tuple[str, _Owner, Principal]]:
    for name, owner in tenants.items():
        yield f"tenants.{name}", owner, Principal(name, is_admin=False)
    for name, owner in admins.items():
        yield f"admins.{name}", owner, Principal("", is_admin=True, name=name)


def _jwt(section: JwtSection) -> JwtPolicy:
    return JwtPolicy(
        jwks=section.jwks,
        issuer=section.issuer,
        audience=section.audience,
        algorithms=section.algorithms,
        tenant_claim=section.tenant_claim,
        admin_claim=section.admin_claim,
        admin_value=section.admin_value,
        leeway=section.leeway,
        refresh=section.refresh,
        timeout=section.timeout,
    )


def _expiry(expires: datetime.datetime | datetime.date | None) -> float | None:
    """A bare date ends with its day, in UTC."""
    if expires is None:
        return None
    if isinstance(expires, datetime.datetime):
        return expires.timestamp()
    midnight = datetime.datetime.combine(expires, datetime.time(), tzinfo=datetime.UTC)
    return (midnight + datetime.timedelta(days=1)).timestamp()
