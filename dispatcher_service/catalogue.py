"""What the configuration file says, as frozen values: models, deployments, tenants."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher_service import pricing
from dispatcher_service.budget import Limit, OnExhausted
from dispatcher_service.chat import PartKind
from dispatcher_service.pacing_targets import PacingPolicy
from dispatcher_service.pricing import NanoUsd, Price
from dispatcher_service.routing import ModelPair


class OnScorerFailure(enum.Enum):
    """What a tenant wants when there is no win probability."""

    WEAK = "weak"
    STRONG = "strong"
    REJECT = "reject"


class OnLedgerFailure(enum.Enum):
    """What a tenant wants when the ledger cannot be reached: nothing, or answers that are booked once it is back."""

    REJECT = "reject"
    WEAK = "weak"
    SERVE = "serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that tenants can be routed to.

    Attributes:
        name: its name in tenants, decisions and metrics.
        prices: ascending by `effective_from`, at least one.
        part_tokens: the most tokens of one part by its kind; parts of a kind that is missing are refused.
        max_output_tokens: the most tokens of one answer, reasoning included: the limit that a request without one is
            sent with. `None` leaves that to the upstream, and so the cost without a bound.
        prompt_overhead_tokens: what the upstream's template may add to a prompt.
    """

    name: str
    prices: tuple[Price, ...]
    part_tokens: Mapping[PartKind, int]
    max_output_tokens: int | None = None
    prompt_overhead_tokens: int = 256

    def price_at(self, now: float) -> Price:
        """The price in force at a time in seconds since the epoch."""
        return pricing.price_at(self.prices, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One OpenAI-compatible endpoint that serves a model of the catalogue.

    Attributes:
        name: its name in logs and errors.
        model: the catalogue model that it serves.
        base_url: the API's root, such as `https://api.openai.com/v1`.
        upstream_model: the model's name there.
        api_key_env: environment variable that holds the key; empty for endpoints without keys.
        max_tokens_parameter: the name under which the endpoint takes the token limit.
        timeout: seconds for the whole call.
        connect_timeout: seconds to establish a connection.
    """

    name: str
    model: str
    base_url: str
    upstream_model: str
    api_key_env: str
    max_tokens_parameter: str
    timeout: float
    connect_timeout: float


@dataclass(frozen=True, slots=True)
class FixedAlpha:
    """The tenant compares against this alpha."""

    alpha: float


@dataclass(frozen=True, slots=True)
class StrongCallShare:
    """The tenant wants this share of its calls to go strong; alpha follows from the scorer's quantiles."""

    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """Who pays, for which pair, how the dial stands, and what it may cost.

    Attributes:
        dial: `None` where only limits say how much goes strong.
        limits: at most one per period.
        overdraft: what may be spent above each limit where `on_exhausted` is to borrow.
        pacing: what moves alpha; `None` for a fixed alpha, or for one that follows from the scorer's quantiles alone.
    """

    tenant_id: str
    pair: ModelPair
    dial: FixedAlpha | StrongCallShare | None
    on_scorer_failure: OnScorerFailure
    allow_alpha_override: bool
    extra_body_keys: frozenset[str]
    scorer: str
    limits: tuple[Limit, ...] = ()
    on_exhausted: OnExhausted = OnExhausted.DEGRADE
    overdraft: NanoUsd = 0
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REJECT
    pacing: PacingPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTarget:
    """Where the scorer is. `timeout` is the dispatcher's whole patience for one prediction, in seconds."""

    address: str
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything the configuration file says. Keys of the mappings are names."""

    scorer: ScorerTarget
    models: Mapping[str, Model]
    deployments: Mapping[str, tuple[Deployment, ...]]
    """By the model that they serve; never empty."""
    tenants: Mapping[str, TenantPolicy]

    def all_deployments(self) -> Iterator[Deployment]:
        """Every deployment of every model."""
        for deployments in self.deployments.values():
            yield from deployments
