"""Stand-ins behind our own Protocols, for tests of the use case alone."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher_service.answer import Choice, Completion, Delta, End, FinishReason
from dispatcher_service.budget import BudgetWindow, Limit
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.errors import UpstreamError
from dispatcher_service.failover import AttemptResult
from dispatcher_service.ledger.contract import Balances, Overrun, OverrunCause
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.pricing import NanoUsd, Usage, UsageSource
from dispatcher_service.routing import ModelPair

QUANTILES = tuple(index / 200 for index in range(201))


@dataclass
class FakeObserver:
    """Remembers what became of budgets, as `(event, detail)`."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def balances(self, tenant_id: str, limits: tuple[Limit, ...], balances: Balances, spent: NanoUsd) -> None:
        self.events.append(("balances", spent))

    def exhausted(self, tenant_id: str, window: BudgetWindow) -> None:
        self.events.append(("exhausted", window.period))

    def overrun(self, tenant_id: str, cause: OverrunCause, amount: NanoUsd) -> None:
        self.events.append(("overrun", (cause, amount)))

    def shares(self, wanted: Mapping[str, float]) -> None:
        pass

    def overruns(self, totals: Mapping[OverrunCause, Overrun]) -> None:
        self.events.append(("overruns", totals))

    def expired(self, count: int) -> None:
        self.events.append(("expired", count))

    def ledger_called(self, step: str, seconds: float, *, failed: bool) -> None:
        self.events.append(("failed" if failed else "called", step))


USAGE = Usage(input_tokens=1000, output_tokens=100, source=UsageSource.REPORTED)


class Unobserved:
    """Gates whose metrics nobody reads."""

    def attempt_began(self, deployment: str) -> None: ...

    def attempt_ended(self, deployment: str, result: AttemptResult) -> None: ...

    def attempt_skipped(self, deployment: str) -> None: ...


@dataclass
class FakeScorer:
    """Answers `win_probability` for everything; `None` is a scorer that gives no prediction.

    `beaten` is what it tells of every model where that is asked for.
    """

    win_probability: float | None = 0.5
    pair_mismatch: bool = False
    beaten: Mapping[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction | None:
        self.calls.append(chat.messages[-1].text)
        if self.win_probability is None:
            return None
        return Prediction(
            win_probability=self.win_probability,
            scorer="fake",
            scorer_version="v1",
            pair_mismatch=self.pair_mismatch,
            quantiles=QUANTILES,
            beaten=self.beaten if every_model else {},
        )


@dataclass
class FakeJudge:
    """Scores an answer by its text, else with `otherwise`; `None` is a judge that gives no score."""

    scores: Mapping[str, float | None] = field(default_factory=dict)
    otherwise: float | None = 0.5
    asked: list[str] = field(default_factory=list)

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict | None:
        self.asked.append(answer)
        score = self.scores.get(answer, self.otherwise)
        return None if score is None else Verdict(acceptance=score, scorer="judge", scorer_version="v9")

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking | None:
        self.asked += answers
        scores = [self.scores.get(answer, self.otherwise) for answer in answers]
        known = tuple(score for score in scores if score is not None)
        if len(known) < len(scores):
            return None
        return Ranking(win_rates=known, scorer="judge", scorer_version="v9")


@dataclass
class FakeUpstream:
    """Answers `parts` with `usage`; raises `error` after the first `error_after` parts.

    `failing` holds errors by the name of the deployment; the others answer.
    """

    parts: Sequence[str] = ("Hello", " world")
    usage: Usage | None = USAGE
    error: UpstreamError | None = None
    error_after: int = 0
    failing: Mapping[str, UpstreamError] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    limits: list[int | None] = field(default_factory=list)
    deployments: list[str] = field(default_factory=list)
    closed: int = 0

    async def complete(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> Completion:
        self._called(deployment, chat, max_tokens)
        if self.error is not None:
            raise self.error
        choice = Choice(index=0, content="".join(self.parts), finish_reason=FinishReason.STOP)
        return Completion(choices=(choice,), usage=self.usage)

    async def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        try:
            self._called(deployment, chat, max_tokens)
            for index, part in enumerate(self.parts):
                if self.error is not None and index == self.error_after:
                    raise self.error
                yield Delta(content=part)
            yield End(finish_reasons=(FinishReason.STOP,), usage=self.usage)
        finally:
            self.closed += 1

    def _called(self, deployment: Deployment, chat: Chat, max_tokens: int | None) -> None:
        self.models.append(deployment.model)
        self.chats.append(chat)
        self.limits.append(max_tokens)
        self.deployments.append(deployment.name)
        if deployment.name in self.failing:
            raise self.failing[deployment.name]
