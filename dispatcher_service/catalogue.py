"""What the configuration file says, as frozen values: models, deployments, tenants."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dispatcher_service.chat import PartKind
from dispatcher_service.pricing import Price
from dispatcher_service.routing import ModelPair
from dispatcher_service.stickiness import Sticky


class OnScorerFailure(enum.Enum):
    """What a tenant wants when there is no win probability."""

    WEAK = "weak"
    STRONG = "strong"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that tenants can be routed to.

    `part_tokens` bounds the tokens of one part by its kind; parts of a kind that is missing are refused.
    """

    name: str
    price: Price
    part_tokens: Mapping[PartKind, int]


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
class Shadow:
    """A setting that is tried beside the live one and logged, without acting.

    Attributes:
        dial: what it compares with; `None` takes the tenant's live dial.
        scorer: another of the scorer's artefacts; empty compares the live prediction.
    """

    dial: FixedAlpha | StrongCallShare | None
    scorer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """Who pays, for which pair, and how the dial stands."""

    tenant_id: str
    pair: ModelPair
    dial: FixedAlpha | StrongCallShare
    on_scorer_failure: OnScorerFailure
    allow_alpha_override: bool
    extra_body_keys: frozenset[str]
    scorer: str
    sticky: Sticky = Sticky.STRONG
    conversation_ttl: float = 86_400.0
    """Seconds after its last turn that a conversation is remembered."""
    log_text: bool = False
    """Whether prompts are kept, redacted, beside the decision records."""
    text_ttl: float = 30 * 86_400.0
    """Seconds that they are kept."""
    shadow: Shadow | None = None


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
