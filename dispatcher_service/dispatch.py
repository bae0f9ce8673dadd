"""The use case: one request, from a tenant's question to an answer with its decision and its cost.

The ports at the top are what it needs from the world. It imports no adapter; `__main__` passes them in.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from dispatcher_service import routing
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Catalogue, Deployment, FixedAlpha, OnScorerFailure, TenantPolicy
from dispatcher_service.chat import Chat, Request
from dispatcher_service.errors import Forbidden, InvalidRequest, ScorerUnavailable, Unauthenticated, UpstreamTimeout
from dispatcher_service.outcome import Bill, Choice, Prediction, Progress, Record
from dispatcher_service.routing import AlphaSource, Decision, ModelPair, Reason, Tier


class Scorer(Protocol):
    """Predicts win probabilities."""

    async def score(self, chat: Chat, *, pair: ModelPair, scorer: str, timeout: float) -> Prediction | None:
        """Answer within `timeout` seconds, or `None` for whatever reason there is no prediction."""


class Upstream(Protocol):
    """Calls models. Failures are `UpstreamError`s."""

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """The whole answer, within `timeout` seconds."""

    def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """Deltas, then exactly one end. Closing the generator cancels the upstream's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `complete` returns."""

    choice: Choice
    completion: Completion
    bill: Bill


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a stream."""

    choice: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Last event of a stream."""

    choice: Choice
    end: End
    bill: Bill


class Dispatcher:
    """Answers requests of tenants."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        scorer: Scorer,
        upstream: Upstream,
        record: Record,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic seconds, `wall_clock` seconds since the epoch."""
        self._catalogue = catalogue
        self._scorer = scorer
        self._upstream = upstream
        self._record = record
        self._clock = clock
        self._wall_clock = wall_clock

    async def route(self, request: Request) -> Choice:
        """The decision alone: calls no upstream, spends nothing, changes no state, records nothing."""
        return await self._choose(request, None)

    async def complete(self, request: Request) -> Answer:
        """The whole answer.

        Raises:
            PointsmanError: see errors.py. What was spent until then is in the record.
        """
        with self._progress(request, "Complete") as progress:
            choice = progress.choice = await self._choose(request, progress)
            deployment = progress.deployment = self._catalogue.deployments[choice.model]
            timeout = _call_timeout(deployment, request, progress.elapsed())
            with progress.calling_upstream():
                completion = await self._upstream.complete(deployment, request.chat, timeout=timeout)
            progress.received(sum(choice.text_bytes for choice in completion.choices))
            finish_reasons = tuple(choice.finish_reason for choice in completion.choices)
            bill = progress.settle(finish_reasons, completion.usage)
            return Answer(choice=choice, completion=completion, bill=bill)

    async def stream(self, request: Request) -> AsyncGenerator[Started | Delta | Finished, None]:
        """The answer as it is written: `Started`, deltas, `Finished`.

        When the consumer goes away or the upstream breaks off, the upstream call is closed, and what it delivered is
        billed at the documented estimate.

        Raises:
            PointsmanError: see errors.py.
        """
        with self._progress(request, "StreamComplete") as progress:
            choice = progress.choice = await self._choose(request, progress)
            yield Started(choice)
            deployment = progress.deployment = self._catalogue.deployments[choice.model]
            timeout = _call_timeout(deployment, request, progress.elapsed())
            events = self._upstream.stream(deployment, request.chat, timeout=timeout)
            async with contextlib.aclosing(events):
                while True:
                    with progress.calling_upstream():
                        event = await anext(events)
                    if isinstance(event, End):
                        break
                    progress.received(event.text_bytes)
                    yield event
            bill = progress.settle(event.finish_reasons, event.usage)
            yield Finished(choice=choice, end=event, bill=bill)

    def _progress(self, request: Request, method: str) -> Progress:
        return Progress(
            request,
            method,
            models=self._catalogue.models,
            record=self._record,
            clock=self._clock,
            wall_clock=self._wall_clock,
        )

    async def _choose(self, request: Request, progress: Progress | None) -> Choice:
        policy = self._catalogue.tenants.get(request.tenant_id)
        if policy is None:
            raise Unauthenticated
        if request.alpha is not None and not policy.allow_alpha_override:
            raise Forbidden("alpha: this tenant's policy allows no override; leave it unset")
        self._check_fit(policy, request.chat)
        timeout = self._catalogue.scorer.timeout
        if request.timeout is not None:
            timeout = min(timeout, request.timeout)
        started = self._clock()
        prediction = await self._scorer.score(request.chat, pair=policy.pair, scorer=policy.scorer, timeout=timeout)
        if progress is not None:
            progress.scorer_seconds = self._clock() - started
        if prediction is None:
            return Choice(decision=_without_prediction(policy), pair=policy.pair, alpha_source=None, prediction=None)
        alpha, source = _alpha(policy, request, prediction)
        return Choice(
            decision=routing.decide(prediction.win_probability, alpha=alpha),
            pair=policy.pair,
            alpha_source=source,
            prediction=prediction,
        )

    def _check_fit(self, policy: TenantPolicy, chat: Chat) -> None:
        """Either model may be chosen, so that both must take what the request holds."""
        for key in chat.extra_body:
            if key not in policy.extra_body_keys:
                raise InvalidRequest(
                    "chat.extra_body_json", f"this tenant's extra_body_keys do not list {key[:64]!r}: remove it"
                )
        for path, kind in chat.other_parts():
            for model in (policy.pair.strong, policy.pair.weak):
                if kind not in self._catalogue.models[model].part_tokens:
                    raise InvalidRequest(
                        path, f"model {model} has no part_tokens.{kind.value}, so that its cost has no bound: send text"
                    )


def _alpha(policy: TenantPolicy, request: Request, prediction: Prediction) -> tuple[float, AlphaSource]:
    if request.alpha is not None:
        return request.alpha, AlphaSource.OVERRIDE
    if isinstance(policy.dial, FixedAlpha):
        return policy.dial.alpha, AlphaSource.FIXED
    return routing.alpha_for_share(prediction.quantiles, policy.dial.share), AlphaSource.SHARE


def _without_prediction(policy: TenantPolicy) -> Decision:
    if policy.on_scorer_failure is OnScorerFailure.REJECT:
        raise ScorerUnavailable
    tier = Tier.STRONG if policy.on_scorer_failure is OnScorerFailure.STRONG else Tier.WEAK
    return routing.forced(tier, Reason.SCORER_UNAVAILABLE)


def _call_timeout(deployment: Deployment, request: Request, elapsed: float) -> float:
    """The deployment's timeout, or what is left of the caller's deadline if that is less."""
    if request.timeout is None:
        return deployment.timeout
    left = request.timeout - elapsed
    if left <= 0:
        raise UpstreamTimeout(deployment.name, "the caller's deadline passed before the call", may_be_billed=False)
    return min(deployment.timeout, left)
