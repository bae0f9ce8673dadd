"""The configuration file's sections and keys as it is written: what each takes, and what a mistake in one is told.

`tenants.py` checks them against each other and freezes them. The README's table says what each key means.
"""

import difflib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, Field

from dispatcher_service.catalogue import OnDisconnect, OnScorerFailure
from dispatcher_service.stickiness import Sticky
from dispatcher_service.upstream_sections import DeploymentSection, Name, RetriesSection, Seconds, Section, ValueSection

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


class FileSection(Section):
    """The whole file."""

    scorer: ScorerSection = ScorerSection()
    retries: RetriesSection = RetriesSection()
    models: Annotated[list[ModelSection], Field(min_length=1)]
    deployments: Annotated[list[DeploymentSection], Field(min_length=1)]
    tenants: Annotated[dict[Name, TenantSection], Field(min_length=1)]


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
    return f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {_shorten(problem['input'])}"


def _keys_beside(loc: list[str]) -> list[str]:
    """The keys that the section at `loc` takes, in the order of its definition."""
    sections: dict[str, type[BaseModel]] = {
        "scorer": ScorerSection,
        "models": PriceSection if "price" in loc else PartTokensSection if "part_tokens" in loc else ModelSection,
        "deployments": DeploymentSection if len(loc) <= 3 else ValueSection,
        "retries": RetriesSection,
        "tenants": ShadowSection if "shadow" in loc else TenantSection,
    }
    section = FileSection if len(loc) == 1 else sections[loc[0]]
    return list(section.model_fields)


def _shorten(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
