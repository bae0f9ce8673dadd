"""`ensemble`: several models are asked at once, and the best of their answers is given (LLM-Blender).

The worst case of every model is put aside in turn, the cheapest first, before any is called: a model for which there is
no money is left out, or the request is refused, as `on_exhausted` says. Models that have not ended at the deadline are
cancelled, once one has answered. Every call is billed, a cancelled one at the estimate of what it delivered.

The scorer compares the answers two by two; blank ones, and ones that are not the JSON that was asked for, take no part.
Where there is nothing to compare (one answer, calls of tools, no ranking in time) the strongest model's is given. A
ranking may be followed by a model that makes one answer of the best three.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from dispatcher_service import assembly, ensembling
from dispatcher_service.answer import Completion, End
from dispatcher_service.assembly import Assembly
from dispatcher_service.attempts import Attempts
from dispatcher_service.budget import OnExhausted
from dispatcher_service.catalogue import OnLedgerFailure
from dispatcher_service.choosing import Chooser, Opening
from dispatcher_service.errors import BudgetExhausted, LedgerUnavailable, PointsmanError, UpstreamError
from dispatcher_service.outcome import Choice, Stage, StageResult
from dispatcher_service.ports import Judge
from dispatcher_service.progress import Asked, Progress
from dispatcher_service.routing import Reason
from dispatcher_service.strategies import RETURN_SECONDS, Piece, fusing, judging


@dataclass(slots=True)
class _Candidate:
    """One model of an ensemble, and what became of it so far."""

    asked: Asked
    result: StageResult = StageResult.CANCELLED
    completion: Completion | None = None
    error: PointsmanError | None = None
    acceptance: float | None = None
    win_rate: float | None = None
    given: bool = False

    def stage(self) -> Stage:
        asked = self.asked
        return Stage(
            model=asked.choice.model,
            result=self.result,
            given=self.given,
            acceptance=self.acceptance,
            win_rate=self.win_rate,
            cost=asked.cost,
            cost_source=asked.cost_source,
        )


class Ensemble:
    """Implements `Strategy`."""

    def __init__(self, *, chooser: Chooser, attempts: Attempts, judge: Judge, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._chooser = chooser
        self._attempts = attempts
        self._judge = judge
        self._clock = clock

    async def preview(self, progress: Progress) -> Choice:
        """The model that would be asked alone, or the strongest of those that would be asked at once."""
        opened = await self._chooser.open(progress, Reason.ENSEMBLE, predict=False, preview=True)
        return opened.choice.on_rung(opened.rungs[-1], Reason.ENSEMBLE) if isinstance(opened, Opening) else opened

    async def complete(self, progress: Progress) -> Completion:
        """The best answer."""
        opened = await self._chooser.open(progress, Reason.ENSEMBLE, predict=False)
        if isinstance(opened, Choice):
            return await self._attempts.complete(progress.ask(opened))
        return await self._best(progress, opened)

    async def stream(self, progress: Progress) -> AsyncGenerator[Piece, None]:
        """The same, in one piece per choice: which answer is best is not known before all are there."""
        opened = await self._chooser.open(progress, Reason.ENSEMBLE, predict=False)
        if isinstance(opened, Choice):
            return self._attempts.stream(progress.ask(opened))
        return self._streamed(progress, opened)

    async def _streamed(self, progress: Progress, opening: Opening) -> AsyncGenerator[Piece, None]:
        for piece in assembly.pieces(await self._best(progress, opening)):
            yield piece

    async def _best(self, progress: Progress, opening: Opening) -> Completion:
        timeout = progress.request.timeout
        deadline = None if timeout is None else timeout - RETURN_SECONDS
        candidates = [
            _Candidate(progress.ask_stage(opening.choice.on_rung(rung, Reason.ENSEMBLE), deadline=deadline))
            for rung in opening.rungs
        ]
        try:
            await self._call(progress, await self._afforded(progress, candidates))
            answered = [each for each in candidates if each.completion is not None]
            if not answered:
                raise _why_none(candidates)
            return await self._chosen(progress, candidates, answered)
        finally:
            progress.stages[:] = [each.stage() for each in candidates]

    async def _afforded(self, progress: Progress, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Those whose money is put aside."""
        policy, afforded = progress.policy, list[_Candidate]()
        try:
            for each in candidates:
                try:
                    await self._attempts.reserve(each.asked)
                    afforded.append(each)
                except (BudgetExhausted, LedgerUnavailable) as error:
                    each.result, each.error = StageResult.NO_MONEY, error
                    rejects = (
                        policy.on_exhausted is OnExhausted.REJECT
                        if isinstance(error, BudgetExhausted)
                        else policy.on_ledger_failure is OnLedgerFailure.REJECT
                    )
                    if rejects:
                        raise
        except BaseException as error:
            for each in candidates:
                if isinstance(error, PointsmanError):
                    each.result = StageResult.NO_TIME if isinstance(error, UpstreamError) else StageResult.NO_MONEY
                await self._attempts.release(each.asked)
            raise
        return afforded

    async def _call(self, progress: Progress, candidates: Sequence[_Candidate]) -> None:
        """Asks all of them at once. Returns when all have ended, or when time is over and one has answered."""
        policy = progress.policy.ensemble
        assert policy is not None
        tasks = set[asyncio.Future[None]]()
        try:
            # A ledger may answer without a wait: a caller who has gone meanwhile is heard here, before any call begins.
            await asyncio.sleep(0)
            tasks = {asyncio.ensure_future(self._read(each)) for each in candidates}
            ends = asyncio.get_running_loop().time() + policy.deadline
            while tasks:
                answered = any(each.completion is not None for each in candidates)
                left = ends - asyncio.get_running_loop().time()
                if answered and left <= 0:
                    return
                # When the time is over and nothing has answered, the first answer is waited for.
                done, tasks = await asyncio.wait(
                    tasks, timeout=left if left > 0 else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            # They settle what they delivered before the bill is made.
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in candidates:
                await self._attempts.release(each.asked)

    async def _read(self, candidate: _Candidate) -> None:
        """The answer of one model. Streamed, so that of one that is cancelled it is known what it delivered."""
        whole = Assembly()
        try:
            async with contextlib.aclosing(self._attempts.stream(candidate.asked)) as events:
                async for event in events:
                    if isinstance(event, End):
                        candidate.completion = whole.completion(event)
                        candidate.result = StageResult.UNCHECKED
                    else:
                        whole.add(event)
        except UpstreamError as error:
            candidate.result, candidate.error = StageResult.FAILED, error
        except (BudgetExhausted, LedgerUnavailable) as error:
            # Of a further attempt: the first one's money was there.
            candidate.result, candidate.error = StageResult.NO_MONEY, error

    async def _chosen(self, progress: Progress, candidates: list[_Candidate], answered: list[_Candidate]) -> Completion:
        """The answer that is given, of these."""
        ranked = [] if progress.left else await self._ranked(progress, answered)
        if not ranked:
            usable = [each for each in answered if each.result is not StageResult.REJECTED]
            return _given(progress, (usable or answered)[-1], Reason.UNRANKED)
        fused = self._to_fuse(progress, ranked)
        if fused is not None:
            # Before it is asked: what it costs is billed, whether or not it answers.
            candidates.append(fused)
            await self._read(fused)
            if fused.completion is not None:
                fused.result = StageResult.FUSED
                return _given(progress, fused, Reason.FUSED)
        return _given(progress, ranked[0], Reason.BEST_RANKED)

    async def _ranked(self, progress: Progress, answered: list[_Candidate]) -> list[_Candidate]:
        """Those that can be compared, the best first; none where nothing says which that is."""
        policy, chat = progress.policy.ensemble, progress.request.chat
        assert policy is not None
        texts: list[str] = []
        compared: list[_Candidate] = []
        for each in answered:
            assert each.completion is not None
            if judging.calls_tools(each.completion):
                return []
            own = judging.texts(each.completion)
            if all(judging.usable(text, chat) for text in own):
                compared.append(each)
                texts.append(own[0])
            else:
                each.result, each.acceptance = StageResult.REJECTED, judging.UNUSABLE
        timeout = progress.catalogue.scorer.answer_timeout
        if progress.request.timeout is not None:
            timeout = min(timeout, progress.request.timeout - RETURN_SECONDS - progress.elapsed())
        if len(compared) < 2 or timeout <= 0:
            return []
        started = self._clock()
        ranking = await self._judge.rank_answers(chat, texts, scorer=policy.scorer, timeout=timeout)
        progress.scorer_seconds += self._clock() - started
        if ranking is None:
            return []
        progress.judged_by = (ranking.scorer, ranking.scorer_version)
        for each, win_rate in zip(compared, ranking.win_rates, strict=True):
            each.result, each.win_rate = StageResult.RANKED, win_rate
        return [compared[place] for place in ensembling.order(ranking.win_rates)]

    def _to_fuse(self, progress: Progress, ranked: list[_Candidate]) -> _Candidate | None:
        """Whoever makes one answer of the best ones; `None` where the policy wants none, or nobody can."""
        policy = progress.policy.ensemble
        assert policy is not None
        if not policy.fuse_with or len(ranked) < 2:
            return None
        first = ranked[0].asked
        rung = first.choice.ladder.rung(policy.fuse_with)
        if rung not in first.choice.fitting:
            return None
        answers = [judging.texts(each.completion)[0] for each in ranked if each.completion is not None]
        return _Candidate(
            progress.ask_stage(
                first.choice.on_rung(rung, Reason.ENSEMBLE),
                deadline=first.deadline,
                chat=fusing.question(progress.request.chat, answers),
            )
        )


def _given(progress: Progress, candidate: _Candidate, reason: Reason) -> Completion:
    assert candidate.completion is not None
    candidate.given = True
    asked = candidate.asked
    asked.choice = replace(asked.choice, decision=replace(asked.choice.decision, reason=reason))
    progress.answering = asked
    return candidate.completion


def _why_none(candidates: Sequence[_Candidate]) -> PointsmanError:
    """What the caller is told: why the strongest model that was asked did not answer, or that none could be paid."""
    errors = [each.error for each in candidates if each.error is not None]
    return next((error for error in reversed(errors) if isinstance(error, UpstreamError)), errors[-1])
