"""One cascade on its way up a tenant's models: which is asked next, and what became of those before it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dispatcher_service import cascading, failover
from dispatcher_service.answer import Completion
from dispatcher_service.choosing import Opening
from dispatcher_service.errors import BudgetExhausted, LedgerUnavailable, UpstreamError
from dispatcher_service.outcome import Stage, StageResult, Verdict
from dispatcher_service.ports import Judge
from dispatcher_service.progress import Asked, Progress
from dispatcher_service.routing import Reason
from dispatcher_service.strategies import RETURN_SECONDS, judging
from dispatcher_service.strategy_policies import OnNoScore


@dataclass(frozen=True, slots=True)
class _AtHand:
    """An answer that was not accepted."""

    asked: Asked
    stage: int
    acceptance: float | None


class Climb:
    """The state of one cascade. What becomes of each stage is told to the request's `Progress`."""

    def __init__(self, progress: Progress, opening: Opening, *, judge: Judge, clock: Callable[[], float]) -> None:
        policy = progress.policy.cascade
        assert policy is not None
        self._progress = progress
        self._policy = policy
        self._choice = opening.choice
        self._rungs = list(opening.rungs)
        self._judge = judge
        self._clock = clock
        self._at_hand: list[_AtHand] = []
        self._rung = 0

    def next(self) -> Asked | None:
        """The model to ask now; `None` if it is one of the answers at hand that must do."""
        progress, timeout = self._progress, self._progress.request.timeout
        if not self._rungs or (self._at_hand and progress.left):
            return None
        choice = self._choice.on_rung(self._rungs[0], Reason.CASCADE)
        if timeout is not None and self._at_hand:
            timeout -= RETURN_SECONDS
            if timeout - progress.elapsed() < self._policy.min_seconds:
                self._tell(choice.model, StageResult.NO_TIME)
                self._rungs.clear()
                return None
        self._rung = self._rungs.pop(0)
        return progress.ask_stage(choice, deadline=timeout)

    @contextlib.contextmanager
    def asking(self, asked: Asked) -> Iterator[None]:
        """Surrounds a stage. One that fails is left behind where there is another way to an answer.

        Raises:
            PointsmanError: there is none.
        """
        try:
            yield
        except (BudgetExhausted, LedgerUnavailable):
            self._tell(asked.choice.model, StageResult.NO_MONEY, asked)
            self._rungs.clear()
            if not self._at_hand:
                raise
        except UpstreamError as error:
            called = any(call.contacted_at is not None for call in asked.calls)
            result = StageResult.NO_TIME if error.out_of_time and not called else StageResult.FAILED
            self._tell(asked.choice.model, result, asked)
            if failover.is_final(error):
                self._rungs.clear()
            if not self._at_hand and not self._rungs:
                raise
        except BaseException:
            self._tell(asked.choice.model, StageResult.CANCELLED, asked)
            raise

    async def accepts(self, asked: Asked, completion: Completion) -> bool:
        """Whether a stage's answer is given. If not, it is at hand."""
        if not self._rungs:
            self._give(asked, self._tell(asked.choice.model, StageResult.UNCHECKED, asked), Reason.LAST_STAGE)
            return True
        if judging.calls_tools(completion) or self._progress.left:
            self._give(asked, self._tell(asked.choice.model, StageResult.UNCHECKED, asked), Reason.ACCEPTED)
            return True
        threshold = self._policy.thresholds[self._rung]
        acceptance = await self._acceptance(completion)
        if acceptance is None:
            accepted, result = self._policy.on_no_score is OnNoScore.ACCEPT, StageResult.NO_SCORE
        else:
            accepted = cascading.accepts(acceptance, threshold=threshold)
            result = StageResult.ACCEPTED if accepted else StageResult.REJECTED
        stage = self._tell(asked.choice.model, result, asked, acceptance=acceptance, threshold=threshold)
        if accepted:
            self._give(asked, stage, Reason.ACCEPTED)
        else:
            self._at_hand.append(_AtHand(asked, stage, acceptance))
        return accepted

    def fall_back(self) -> int:
        """Gives the best of the answers at hand, of which there is one; returns which, counted from the first."""
        best = cascading.best([each.acceptance for each in self._at_hand])
        found = self._at_hand[best]
        self._give(found.asked, found.stage, Reason.ANSWER_AT_HAND)
        return best

    async def _acceptance(self, completion: Completion) -> float | None:
        """P(the answer is acceptable): of several choices the lowest, since the caller gets them all."""
        chat = self._progress.request.chat
        texts = judging.texts(completion)
        if not all(judging.usable(text, chat) for text in texts):
            return judging.UNUSABLE
        timeout = self._progress.catalogue.scorer.answer_timeout
        if self._progress.request.timeout is not None:
            left = self._progress.request.timeout - RETURN_SECONDS - self._progress.elapsed()
            timeout = min(timeout, left)
        if timeout <= 0:
            return None
        started = self._clock()
        scored = [
            self._judge.score_answer(chat, text, scorer=self._policy.scorer, timeout=timeout)
            for text in dict.fromkeys(texts)
        ]
        verdicts = await asyncio.gather(*scored)
        self._progress.scorer_seconds += self._clock() - started
        return self._lowest(verdicts)

    def _lowest(self, verdicts: list[Verdict | None]) -> float | None:
        lowest = None
        for verdict in verdicts:
            if verdict is None:
                return None
            self._progress.judged_by = (verdict.scorer, verdict.scorer_version)
            lowest = verdict.acceptance if lowest is None else min(lowest, verdict.acceptance)
        return lowest

    def _tell(
        self,
        model: str,
        result: StageResult,
        asked: Asked | None = None,
        *,
        acceptance: float | None = None,
        threshold: float | None = None,
    ) -> int:
        self._progress.stages.append(
            Stage(
                model=model,
                result=result,
                acceptance=acceptance,
                threshold=threshold,
                cost=0 if asked is None else asked.cost,
                cost_source=None if asked is None else asked.cost_source,
            )
        )
        return len(self._progress.stages) - 1

    def _give(self, asked: Asked, stage: int, reason: Reason) -> None:
        stages = self._progress.stages
        stages[stage] = replace(stages[stage], given=True)
        asked.choice = replace(asked.choice, decision=replace(asked.choice.decision, reason=reason))
        self._progress.answering = asked
