"""Which scorer predicts for which tenant: the main one, or a canary for a stable share of the tenants. Answers are
judged by the main one alone.

A scorer that is unreachable, slow or sick gives `None`, never an exception: what happens then is the tenant's policy.
After a few failures in a row it is left alone for a moment, so that an outage does not cost each request the whole
patience. The main scorer stands in for a canary that is left alone. Judging has a breaker of its own, since its models
are other, and mostly slower, ones.
"""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from dispatcher_service.breaker import Breaker, BreakerState
from dispatcher_service.chat import Chat
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorer_targets import ScorerTarget
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

MAIN = "main"
"""The name of the scorer that serves whoever no canary serves."""

JUDGE = "answers"
"""The name under which the judging of answers is counted."""

LEFT_ALONE = "LEFT_ALONE"
"""The result of a request that was not sent, since the scorer has just failed."""

_NOT_ITS_FAULT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})
"""Results that say something of the question, so that they are no failure of the scorer."""

_SECONDS_BETWEEN_WARNINGS = 10.0

_T = TypeVar("_T")


class NoPrediction(Exception):
    """There is no prediction. `result` is a gRPC status name, or `SICK` for an answer that cannot be used."""

    def __init__(self, result: str, details: str) -> None:
        super().__init__(f"{result}: {details}")
        self.result = result
        self.details = details


class Predictor(Protocol):
    """One scorer, remote or in this process."""

    async def predict(
        self, chat: Chat, *, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction:
        """Answer within `timeout` seconds.

        Raises:
            NoPrediction: for whatever reason.
        """

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict:
        """See `ports.Judge`. Raises as `predict` does."""

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking:
        """See `ports.Judge`. Raises as `predict` does."""

    async def close(self) -> None:
        """Release what it holds."""


Observe = Callable[[str, str, float], None]
"""Called once per request with the scorer's name, the result (`OK`, that of `NoPrediction`, or `LEFT_ALONE`) and the
seconds it took."""


@dataclass(slots=True)
class _Scorer:
    name: str
    predictor: Predictor
    breaker: Breaker
    next_warning: float = 0.0


class Scorers:
    """Implements `ports.Scorer` over several of them, and `ports.Judge` over the main one."""

    def __init__(
        self,
        target: ScorerTarget,
        predictors: Mapping[str, Predictor],
        *,
        observe: Observe,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`predictors` are by name: `MAIN`, and one for each canary of `target`; `clock` gives seconds."""
        self._target = target
        self._observe = observe
        self._clock = clock

        def scorer(name: str, predictor: Predictor) -> _Scorer:
            breaker = Breaker(failures=target.breaker_failures, cooldown=target.breaker_cooldown, clock=clock)
            return _Scorer(name, predictor, breaker)

        self._scorers = {name: scorer(name, predictor) for name, predictor in predictors.items()}
        self._judge = scorer(JUDGE, predictors[MAIN])

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction | None:
        """See `ports.Scorer.score`."""
        asked = self._for_tenant(tenant_id)
        if asked is None:
            self._observe(self._scorers[MAIN].name, LEFT_ALONE, 0.0)
            return None
        work = asked.predictor.predict(chat, pair=pair, every_model=every_model, scorer=scorer, timeout=timeout)
        return await self._within(asked, work, hurried=timeout < self._target.timeout)

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict | None:
        """See `ports.Judge.score_answer`."""
        judge = self._judge
        if not judge.breaker.allow():
            self._observe(JUDGE, LEFT_ALONE, 0.0)
            return None
        work = judge.predictor.score_answer(chat, answer, scorer=scorer, timeout=timeout)
        return await self._within(judge, work, hurried=timeout < self._target.answer_timeout)

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking | None:
        """See `ports.Judge.rank_answers`."""
        judge = self._judge
        if not judge.breaker.allow():
            self._observe(JUDGE, LEFT_ALONE, 0.0)
            return None
        work = judge.predictor.rank_answers(chat, answers, scorer=scorer, timeout=timeout)
        return await self._within(judge, work, hurried=timeout < self._target.answer_timeout)

    def breakers(self) -> Mapping[str, Callable[[], BreakerState]]:
        """What gives each scorer's state, by name."""
        scorers = {**self._scorers, JUDGE: self._judge}
        return {name: partial(_state, scorer.breaker) for name, scorer in scorers.items()}

    async def close(self) -> None:
        """Close all of them."""
        for scorer in self._scorers.values():
            await scorer.predictor.close()

    def _for_tenant(self, tenant_id: str) -> _Scorer | None:
        """The tenant's scorer, or the main one if that is left alone; `None` if both are."""
        names = [assigned(tenant_id, self._target), MAIN]
        return next((self._scorers[name] for name in names if self._scorers[name].breaker.allow()), None)

    async def _within(self, asked: _Scorer, work: Awaitable[_T], *, hurried: bool) -> _T | None:
        """What a scorer answers; `hurried` if it has less time than its configuration gives it."""
        started = self._clock()
        result = "CANCELLED"
        try:
            answer = await work
        except NoPrediction as error:
            result = error.result
            self._warn(asked, error)
            return None
        else:
            result = "OK"
            return answer
        finally:
            self._tell_breaker(asked.breaker, result, hurried=hurried)
            self._observe(asked.name, result, self._clock() - started)

    @staticmethod
    def _tell_breaker(breaker: Breaker, result: str, *, hurried: bool) -> None:
        if result == "OK" or result in _NOT_ITS_FAULT:
            breaker.succeeded()
        elif result == "CANCELLED" or (result == "DEADLINE_EXCEEDED" and hurried):
            # A caller in a hurry: its deadline tells nothing about the scorer, and must not shut it off for others.
            breaker.abandoned()
        else:
            breaker.failed()

    def _warn(self, scorer: _Scorer, error: NoPrediction) -> None:
        # One line per interval: an outage at a thousand requests per second must not become a log flood.
        now = self._clock()
        if now >= scorer.next_warning:
            scorer.next_warning = now + _SECONDS_BETWEEN_WARNINGS
            logger.warning(
                "no prediction", extra=fields(scorer=scorer.name, status=error.result, details=error.details)
            )


def assigned(tenant_id: str, target: ScorerTarget) -> str:
    """The name of the tenant's scorer: always the same for the same configuration.

    Each canary draws its tenants by a hash of its own, so that a weight that grows only adds tenants, and two canaries
    do not try out on the same ones. A canary's weight is its share of the tenants that the ones before it have left.
    """
    return next((c.name for c in target.canaries if _position(c.name, tenant_id) < c.weight), MAIN)


def _state(breaker: Breaker) -> BreakerState:
    return breaker.state


def _position(canary: str, tenant_id: str) -> float:
    """Uniform over tenants, in [0, 1)."""
    digest = hashlib.sha256(f"{canary}\0{tenant_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64
