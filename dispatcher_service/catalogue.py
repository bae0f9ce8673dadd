"""What the configuration file says, as frozen values: models, deployments, tenants."""

import enum
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher_service import pricing
from dispatcher_service.budget import Limit, OnExhausted
from dispatcher_service.chat import PartKind
from dispatcher_service.identity import AuthPolicy
from dispatcher_service.overrides import Override
from dispatcher_service.pacing_targets import PacingPolicy
from dispatcher_service.pricing import NanoUsd, Price
from dispatcher_service.routing import Ladder, Objective
from dispatcher_service.scorer_targets import ScorerTarget
from dispatcher_service.stickiness import Sticky
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy, StrategyName


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


class OnDisconnect(enum.Enum):
    """What becomes of a call whose caller went away."""

    CANCEL = "cancel"
    """The upstream call is cancelled at once, and the estimate is billed."""
    DRAIN = "drain"
    """The upstream's answer is read on for a while, so that its reported usage is billed; then cancelled."""


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
        context_window: tokens that it reads and writes together; `None` for any amount.
        tools: whether it can call tools.
        fallbacks: models to try, in this order, when none of its deployments answers.
        on_disconnect: what becomes of a call whose caller went away.
        drain_timeout: for `DRAIN`: seconds that the answer is read on.
    """

    name: str
    prices: tuple[Price, ...]
    part_tokens: Mapping[PartKind, int]
    max_output_tokens: int | None = None
    prompt_overhead_tokens: int = 256
    context_window: int | None = None
    tools: bool = True
    fallbacks: tuple[str, ...] = ()
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    drain_timeout: float = 30.0

    def price_at(self, now: float) -> Price:
        """The price in force at a time in seconds since the epoch."""
        return pricing.price_at(self.prices, now)


class LadderModels:
    """The models of a ladder, with what every request asks of all of them and can be known before any comes.

    Attributes:
        models: by rung.
        tools: whether each calls tools.
        window: the smallest context window, in tokens; infinite where none has one.
        room: what context windows leave for a prompt beside each model's longest answer, at least; infinite likewise.
    """

    def __init__(self, models: tuple[Model, ...]) -> None:
        self.models = models
        self.tools = all(model.tools for model in models)
        windows = [(model.context_window, model.max_output_tokens or 0) for model in models]
        self.window = min((window for window, _ in windows if window is not None), default=math.inf)
        self.room = min((window - answer for window, answer in windows if window is not None), default=math.inf)
        changes = sorted({price.effective_from for model in models for price in model.prices})
        # Before the first change the prices are those after it: a model is never free.
        self._changes = changes[1:]
        self._prices = [tuple(model.price_at(change) for model in models) for change in changes]

    def prices_at(self, now: float) -> tuple[Price, ...]:
        """The prices in force at a time in seconds since the epoch, by rung."""
        return self._prices[bisect_right(self._changes, now)]


class Api(enum.Enum):
    """The form of a deployment's URL and of its key."""

    OPENAI = "openai"
    """`BASE_URL/chat/completions` with `Authorization: Bearer KEY`."""
    AZURE = "azure"
    """`BASE_URL/openai/deployments/MODEL/chat/completions?api-version=VERSION` with `api-key: KEY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value that may be secret: where it is found. Exactly one field is set; only `text` stands in the TOML."""

    text: str = ""
    env: str = ""
    """An environment variable, read at start."""
    file: str = ""
    """A mounted file, read again whenever it changes: rotation without a restart."""

    @property
    def place(self) -> str:
        """Where it is found, for messages; never the value."""
        return f"environment variable {self.env}" if self.env else f"file {self.file}" if self.file else "the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient we are with upstreams, for one request.

    Attributes:
        tries: calls of one deployment, at most.
        max_attempts: calls over all deployments, at most.
        backoff: seconds before a deployment is tried again; doubled with each of its failures.
        max_backoff: the longest wait for any deployment, in seconds.
    """

    tries: int = 2
    max_attempts: int = 6
    backoff: float = 0.1
    max_backoff: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One OpenAI-compatible endpoint that serves a model of the catalogue. Durations are in seconds.

    Attributes:
        name: its name in logs, errors and metrics.
        model: the catalogue model that it serves.
        base_url: the API's root, such as `https://api.openai.com/v1`; for Azure the resource's.
        upstream_model: the model's name there; for Azure the deployment's.
        api: the form of URL and key.
        api_version: for Azure: the `api-version` of every call.
        api_key: where the key is found; `None` for endpoints without keys.
        headers: further headers of every call, in lower case.
        max_tokens_parameter: the name under which the endpoint takes the token limit.
        weight: its share of the model's calls, beside the others' weights; 0 stands by for when those fail.
        max_concurrency: calls at once; more are sent elsewhere. `None` for no limit.
        connect_timeout: to establish a connection.
        first_token_timeout: from the call to the first content of a stream.
        idle_timeout: between two pieces of a stream.
        timeout: the whole call.
        breaker_failures: failures in a row after which it is left alone.
        breaker_cooldown: how long it is left alone before one call tries it again.
    """

    name: str
    model: str
    base_url: str
    upstream_model: str
    api: Api = Api.OPENAI
    api_version: str = ""
    api_key: Value | None = None
    headers: tuple[tuple[str, Value], ...] = ()
    max_tokens_parameter: str = "max_completion_tokens"
    weight: float = 1.0
    max_concurrency: int | None = None
    connect_timeout: float = 5.0
    first_token_timeout: float = 60.0
    idle_timeout: float = 30.0
    timeout: float = 120.0
    breaker_failures: int = 5
    breaker_cooldown: float = 10.0


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
class RateLimits:
    """How much a tenant may ask for, `None` for any amount. See `admission.Rate` for what each counts."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """Who pays, for which models, how the dial stands, and what it may cost.

    Attributes:
        ladder: its models, cheapest first.
        dial: `None` where only limits say how much goes strong.
        limits: at most one per period.
        overdraft: what may be spent above each limit where `on_exhausted` is to borrow.
        pacing: what moves alpha; `None` for a fixed alpha, or for one that follows from the scorer's quantiles alone.
    """

    tenant_id: str
    ladder: Ladder
    dial: FixedAlpha | StrongCallShare | None
    on_scorer_failure: OnScorerFailure
    allow_alpha_override: bool
    extra_body_keys: frozenset[str]
    scorer: str
    strategy: StrategyName = StrategyName.ROUTE
    cascade: CascadePolicy | None = None
    """Set where the strategy is one."""
    ensemble: EnsemblePolicy | None = None
    """As above."""
    limits: tuple[Limit, ...] = ()
    on_exhausted: OnExhausted = OnExhausted.DEGRADE
    overdraft: NanoUsd = 0
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REJECT
    pacing: PacingPolicy | None = None
    fallback_to_other_tier: bool = False
    """Whether the tenant's other models may answer when the chosen one cannot. Never in a tool loop."""
    objective: Objective = Objective.THRESHOLD
    sticky: Sticky = Sticky.STRONG
    conversation_ttl: float = 86_400.0
    """Seconds after its last turn that a conversation is remembered."""
    log_text: bool = False
    """Whether prompts are kept, redacted, beside the decision records."""
    text_ttl: float = 30 * 86_400.0
    """Seconds that they are kept."""
    shadow: Shadow | None = None
    idempotency_retention: float = 600.0
    """Seconds that the result of a request which the caller has named is kept for its retries; 0 keeps none."""
    rates: RateLimits = RateLimits()
    allowed_models: frozenset[str] | None = None
    """The models that may see the tenant's prompts, `None` for all of the catalogue. The ladder's are among them."""
    overrides: tuple[Override, ...] = ()
    """What operators turned it to, the tenant's own before everyone's; some may have expired."""

    def closed(self, models: Iterable[str]) -> frozenset[str]:
        """Those of `models` that may not see the tenant's prompts, be it as a fallback or in a tool loop."""
        return frozenset() if self.allowed_models is None else frozenset(models) - self.allowed_models


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything the configuration file says. Keys of the mappings are names."""

    scorer: ScorerTarget
    models: Mapping[str, Model]
    deployments: Mapping[str, tuple[Deployment, ...]]
    """By the model that they serve; never empty."""
    tenants: Mapping[str, TenantPolicy]
    auth: AuthPolicy
    retries: RetryPolicy = RetryPolicy()
    drains: bool = field(init=False)
    """Whether any model's answers are read on without their caller."""
    _ladders: dict[tuple[str, ...], LadderModels] = field(init=False, repr=False, compare=False, default_factory=dict)
    """Those that were asked for, by the models' names."""

    def __post_init__(self) -> None:
        drains = any(model.on_disconnect is OnDisconnect.DRAIN for model in self.models.values())
        object.__setattr__(self, "drains", drains)

    def models_of(self, ladder: Ladder) -> LadderModels:
        """The models of a tenant's ladder, or of what a tool loop made of one."""
        known = self._ladders.get(ladder.models)
        if known is None:
            known = LadderModels(tuple(self.models[name] for name in ladder.models))
            self._ladders[ladder.models] = known
        return known

    def all_deployments(self) -> Iterator[Deployment]:
        """Every deployment of every model."""
        for deployments in self.deployments.values():
            yield from deployments
