"""The configuration file's sections and keys as it is written: what each takes, and what a mistake in one is told.

`tenants.py` checks them against each other and freezes them. The README's table says what each key means.
"""

import difflib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field

from dispatcher_service.auth_sections import AdminSection, ApiKeySection, AuthSection, CertificateName
from dispatcher_service.catalogue import OnDisconnect, OnScorerFailure
from dispatcher_service.stickiness import Sticky
from dispatcher_service.upstream_sections import DeploymentSection, Name, RetriesSection, Seconds, Section

_Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]
_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
_Lifetime = Annotated[float, Field(ge=1, le=400 * 86_400, allow_inf_nan=False)]


class ScorerSection(Section):
    """`[scorer]`."""

    address: Annotated[str, Field(min_length=1)] = "127.0.0.1:50051"
    timeout: Seconds = 0.25


class PriceSection(Section):
    """`price` of a model, in USD per million tokens."""

    input: _Usd
    output: _Usd
    cached_input: _Usd | None = None
    cache_write: _Usd | None = None
    reasoning: _Usd | None = None


class PartTokensSection(Section):
    """`part_tokens` of a model."""

    image: _Tokens | None = None
    audio: _Tokens | None = None
    file: _Tokens | None = None


class ModelSection(Section):
    """One of `[[models]]`."""

    name: Name
    price: PriceSection
    part_tokens: PartTokensSection = PartTokensSection()
    fallbacks: tuple[Name, ...] = ()
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    drain_timeout: Seconds = 30.0


class ShadowSection(Section):
    """`shadow` of a tenant."""

    strong_call_share: _Fraction | None = None
    alpha: _Fraction | None = None
    scorer: str = ""


class TenantSection(Section):
    """One of `[tenants]`."""

    strong_model: Name
    weak_model: Name
    strong_call_share: _Fraction | None = None
    alpha: _Fraction | None = None
    on_scorer_failure: OnScorerFailure = OnScorerFailure.WEAK
    allow_alpha_override: bool = False
    extra_body_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    scorer: str = ""
    fallback_to_other_tier: bool = False
    sticky: Sticky = Sticky.STRONG
    conversation_ttl: _Lifetime = 86_400.0
    log_text: bool = False
    text_ttl: _Lifetime = 30 * 86_400.0
    shadow: ShadowSection | None = None
    api_keys: list[ApiKeySection] = Field(default=[])
    certificates: list[CertificateName] = Field(default=[])
    idempotency_retention: Annotated[float, Field(ge=0, le=7 * 86_400, allow_inf_nan=False)] = 600.0


class FileSection(Section):
    """The whole file."""

    scorer: ScorerSection = ScorerSection()
    retries: RetriesSection = RetriesSection()
    models: Annotated[list[ModelSection], Field(min_length=1)]
    deployments: Annotated[list[DeploymentSection], Field(min_length=1)]
    tenants: Annotated[dict[Name, TenantSection], Field(min_length=1)]
    admins: dict[Name, AdminSection] = Field(default={})
    auth: AuthSection = AuthSection()


def describe(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems with a file, as `key.path: mend`."""
    loc = [str(part) for part in problem["loc"]]
    key = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(loc)
        close = difflib.get_close_matches(loc[-1], known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key: {mend}"
    if problem["type"] == "missing":
        return f"{key}: missing: add it"
    if problem["type"] == "value_error":
        # Our own checks name the mend themselves, and what they look at may be secret.
        return f"{key}: {problem['ctx']['error']}"
    mend = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
    # Somebody may have written a key in the place of its hash.
    return f"{key}: {mend}" if "api_keys" in loc else f"{key}: {mend}, not {_shorten(problem['input'])}"


def _keys_beside(loc: list[str]) -> list[str]:
    """The keys that the section at `loc` takes, in the order of its definition."""
    kind: Any = FileSection
    for part in loc[:-1]:
        # A part is a key of a section, or an index or name in a list or table of sections.
        kind = kind.model_fields[part].annotation if _is_section(kind) else get_args(kind)[-1]
        if not _is_section(kind):
            kind = next((each for each in get_args(kind) if _is_section(each)), kind) if _is_optional(kind) else kind
    return list(kind.model_fields) if _is_section(kind) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _shorten(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
