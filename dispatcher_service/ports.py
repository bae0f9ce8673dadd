"""What the use case needs from the world. Adapters implement these, `__main__` passes them in."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.budget import BudgetWindow, Limit
from dispatcher_service.catalogue import Deployment, TenantPolicy
from dispatcher_service.chat import Chat
from dispatcher_service.ledger.contract import Balances, Overrun, OverrunCause
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.pacing_targets import Estimate, Reference
from dispatcher_service.pricing import NanoUsd
from dispatcher_service.routing import Candidates, Decision, ModelPair


class Scorer(Protocol):
    """Predicts win probabilities."""

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction | None:
        """Answer within `timeout` seconds, or `None` for whatever reason there is no prediction.

        `every_model` asks for `Prediction.beaten` too.
        """


class Judge(Protocol):
    """Says of answers that are there how good they are. An answer is its text, and never blank."""

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict | None:
        """Answer within `timeout` seconds, or `None` for whatever reason there is no verdict."""

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking | None:
        """The same for two answers or more."""


class Upstream(Protocol):
    """Calls models. Failures are `UpstreamError`s.

    `max_tokens` is the most tokens of one answer, the conversation's own bound or its model's; `None` for no bound.
    """

    async def complete(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> Completion:
        """The whole answer, within `timeout` seconds."""

    def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        """Deltas, then exactly one end. Closing the generator cancels the upstream's work."""


class Pacer(Protocol):
    """Moves alpha so that what tenants want held is held. Only for policies with `pacing`. Never fails a request."""

    async def alpha(self, policy: TenantPolicy, reference: Reference) -> float:
        """The alpha that `decide` would use now. Moves nothing."""

    async def decide(
        self, policy: TenantPolicy, reference: Reference, candidates: Candidates, estimate: Estimate
    ) -> Decision:
        """A free decision."""

    async def forced(self, policy: TenantPolicy, *, rung: int, estimate: Estimate) -> None:
        """Something else decided, for this rung of the tenant's ladder."""

    def rerouted(self, policy: TenantPolicy, *, by: float) -> None:
        """The request goes to another model than was decided, by so much of x (see `Estimate.fraction`)."""

    def refused(self, policy: TenantPolicy, *, until: float) -> None:
        """A limit has no room until its window ends, in seconds since the epoch."""

    def settled(self, policy: TenantPolicy, *, estimated: NanoUsd, actual: NanoUsd) -> None:
        """The request ended, and cost this."""


class BudgetObserver(Protocol):
    """Hears what becomes of budgets. Must not raise or block."""

    def balances(self, tenant_id: str, limits: tuple[Limit, ...], balances: Balances, spent: NanoUsd) -> None:
        """The tenant's account, of which this much was just spent."""

    def exhausted(self, tenant_id: str, window: BudgetWindow) -> None:
        """The limit of this window had no room for a call."""

    def ledger_called(self, step: str, seconds: float, *, failed: bool) -> None:
        """A step of the ledger ended."""

    def overrun(self, tenant_id: str, cause: OverrunCause, amount: NanoUsd) -> None:
        """A settle took a limit this much above itself."""

    def overruns(self, totals: Mapping[OverrunCause, Overrun]) -> None:
        """How often and by how much limits were passed since the ledger began, over all tenants with limits."""

    def expired(self, count: int) -> None:
        """So many reservations outlived their lifetime."""

    def shares(self, wanted: Mapping[str, float]) -> None:
        """The share of strong calls that tenants want, by tenant; those that want none are not there."""
