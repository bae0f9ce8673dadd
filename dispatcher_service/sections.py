"""The configuration file's sections and keys as it is written: what each takes, and what a mistake in one is told.

`tenants.py` checks them against each other and freezes them. docs/configuration.md says what each key means.
"""

import difflib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from dispatcher_service.auth_sections import AdminSection, ApiKeySection, AuthSection, CertificateName
from dispatcher_service.budget import OnExhausted
from dispatcher_service.catalogue import OnDisconnect, OnLedgerFailure, OnScorerFailure
from dispatcher_service.pacing_targets import DEFAULT_LEASE_CALLS, DEFAULT_MEMORY_CALLS, DEFAULT_WINDOW_CALLS
from dispatcher_service.routing import Objective
from dispatcher_service.scorer_sections import ScorerSection
from dispatcher_service.stickiness import Sticky
from dispatcher_service.strategy_policies import StrategyName
from dispatcher_service.strategy_sections import CascadeSection, EnsembleSection
from dispatcher_service.upstream_sections import DeploymentSection, Name, RetriesSection, Seconds, Section

_Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]
_UsdLimit = Annotated[Decimal, Field(ge=0, le=9_000_000, decimal_places=9)]
_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Rate = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
_Lifetime = Annotated[float, Field(ge=1, le=400 * 86_400, allow_inf_nan=False)]


class PriceSection(Section):
    """`price` of a model, in USD per million tokens."""

    input: _Usd
    output: _Usd
    cached_input: _Usd | None = None
    cache_write: _Usd | None = None
    reasoning: _Usd | None = None


def _epoch(moment: object) -> int:
    """A date or a time of the file in seconds since the epoch."""
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("write a date, or a time with its offset such as 2026-01-01T00:00:00Z")
    return int(moment.timestamp())


class DatedPriceSection(PriceSection):
    """One of several `price` entries of a model; a date begins at 00:00 UTC."""

    effective_from: Annotated[int, BeforeValidator(_epoch)] = 0


class PartTokensSection(Section):
    """`part_tokens` of a model."""

    image: _Tokens | None = None
    audio: _Tokens | None = None
    file: _Tokens | None = None


# The tags stand in pydantic's paths, where `describe` leaves them out.
_Prices = Annotated[
    Annotated[PriceSection, Tag("<table>")] | Annotated[list[DatedPriceSection], Field(min_length=1), Tag("<array>")],
    Discriminator(lambda value: "<array>" if isinstance(value, list) else "<table>"),
]


class ModelSection(Section):
    """One of `[[models]]`."""

    name: Name
    price: _Prices
    part_tokens: PartTokensSection = PartTokensSection()
    max_output_tokens: _Tokens | None = None
    prompt_overhead_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    context_window: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    tools: bool = True
    scorer_name: str = ""
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

    strong_model: Name | None = None
    weak_model: Name | None = None
    models: Annotated[tuple[Name, ...], Field(min_length=2, max_length=64)] | None = None
    strategy: StrategyName = StrategyName.ROUTE
    cascade: CascadeSection | None = None
    ensemble: EnsembleSection | None = None
    objective: Objective = Objective.THRESHOLD
    strong_call_share: _Fraction | None = None
    alpha: _Fraction | None = None
    on_scorer_failure: OnScorerFailure = OnScorerFailure.WEAK
    allow_alpha_override: bool = False
    extra_body_keys: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    scorer: str = ""
    usd_per_hour: _UsdLimit | None = None
    usd_per_day: _UsdLimit | None = None
    usd_per_month: _UsdLimit | None = None
    on_exhausted: OnExhausted = OnExhausted.DEGRADE
    overdraft_usd: _UsdLimit | None = None
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REJECT
    pace: bool = True
    pacing_window_calls: Annotated[int, Field(ge=20, le=1_000_000)] = DEFAULT_WINDOW_CALLS
    pacing_memory_calls: Annotated[int, Field(ge=100, le=10_000_000)] = DEFAULT_MEMORY_CALLS
    pacing_lease_calls: Annotated[int, Field(ge=1, le=10_000)] = DEFAULT_LEASE_CALLS
    fallback_to_other_tier: bool = False
    sticky: Sticky = Sticky.STRONG
    conversation_ttl: _Lifetime = 86_400.0
    log_text: bool = False
    text_ttl: _Lifetime = 30 * 86_400.0
    shadow: ShadowSection | None = None
    allowed_models: tuple[Name, ...] | None = None
    requests_per_minute: _Rate | None = None
    tokens_per_minute: _Rate | None = None
    max_concurrent_requests: _Rate | None = None
    api_keys: tuple[ApiKeySection, ...] = ()
    certificates: tuple[CertificateName, ...] = ()
    idempotency_retention: Annotated[float, Field(ge=0, le=7 * 86_400, allow_inf_nan=False)] = 600.0


class FileSection(Section):
    """The whole file."""

    scorer: ScorerSection = ScorerSection()
    retries: RetriesSection = RetriesSection()
    models: Annotated[list[ModelSection], Field(min_length=1)]
    deployments: Annotated[list[DeploymentSection], Field(min_length=1)]
    tenants: Annotated[dict[Name, TenantSection], Field(min_length=1)]
    admins: dict[Name, AdminSection] = Field(default_factory=dict)
    auth: AuthSection = AuthSection()


def describe(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems with a file, as `key.path: mend`."""
    loc = [part for part in map(str, problem["loc"]) if not part.startswith("<")]
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
    section: type[BaseModel] = FileSection
    for part in loc[:-1]:
        # A part that is no field is an index or a name in a list or table of these sections.
        field = section.model_fields.get(part)
        section = (field and section_in(field.annotation)) or section
    if section is PriceSection:
        section = DatedPriceSection  # `price` is one section or a list of dated ones.
    return list(section.model_fields)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a list, a table or an optional value holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def _shorten(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
