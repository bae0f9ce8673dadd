"""The gRPC edge of the scorer: protos in, values inside, protos out."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pointsman.runtime.boundary import Boundary
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from scorer_service import translation
from scorer_service.artifact import Task
from scorer_service.batching import Answer, answer_all
from scorer_service.errors import InvalidRequest, Loading
from scorer_service.judging import ServedJudge, Verdict, rank
from scorer_service.metrics import Metrics
from scorer_service.preprocess import AnswerPassages
from scorer_service.registry import Scorers
from scorer_service.serving import Question, ServedScorer
from scorer_service.translation import Limits

SERVICE_NAME = scorer_pb2.DESCRIPTOR.services_by_name["ScorerService"].full_name


class ScorerServicer(scorer_pb2_grpc.ScorerServiceServicer):
    """Implements `pointsman.scorer.v1.ScorerService`; the proto states the contract."""

    def __init__(
        self, scorers: Scorers, *, limits: Limits, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` must be the batchers' clock: deadlines are compared on it."""
        self._scorers = scorers
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._boundary = Boundary(
            to_status=translation.to_status, observe=metrics.call_ended, failed=metrics.call_failed
        )

    async def Score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        """Score one conversation."""
        return await self._boundary.run("Score", context, self._score(request, context))

    async def BatchScore(self, request: scorer_pb2.BatchScoreRequest, context: Any) -> scorer_pb2.BatchScoreResponse:
        """Score many."""
        return await self._boundary.run("BatchScore", context, self._batch_score(request, context))

    async def ScoreAnswer(self, request: scorer_pb2.ScoreAnswerRequest, context: Any) -> scorer_pb2.ScoreAnswerResponse:
        """Score one answer."""
        return await self._boundary.run("ScoreAnswer", context, self._score_answer(request, context))

    async def RankAnswers(self, request: scorer_pb2.RankAnswersRequest, context: Any) -> scorer_pb2.RankAnswersResponse:
        """Compare answers."""
        return await self._boundary.run("RankAnswers", context, self._rank_answers(request, context))

    async def ListScorers(self, request: scorer_pb2.ListScorersRequest, context: Any) -> scorer_pb2.ListScorersResponse:
        """Describe what is served."""
        return await self._boundary.run("ListScorers", context, self._list_scorers())

    async def _score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        [response] = await self._predict([request], [""], context)
        return response

    async def _batch_score(self, request: scorer_pb2.BatchScoreRequest, context: Any) -> scorer_pb2.BatchScoreResponse:
        count, limit = len(request.requests), self._limits.max_batch_size
        if not count:
            raise InvalidRequest("requests", "add at least one request")
        if count > limit:
            raise InvalidRequest("requests", f"{count} conversations in one call; split them, {limit} is the limit")
        paths = [f"requests[{index}]." for index in range(count)]
        return scorer_pb2.BatchScoreResponse(responses=await self._predict(request.requests, paths, context))

    async def _score_answer(
        self, request: scorer_pb2.ScoreAnswerRequest, context: Any
    ) -> scorer_pb2.ScoreAnswerResponse:
        self._metrics.answers_received(1)
        judge = self._scorers.judge(request.scorer, Task.SCORE_ANSWER)
        turns = translation.turns(request.conversation, self._limits)
        translation.check_answer(request.answer, "answer", self._limits)
        [answer] = await self._judge(judge, judge.questions(turns, [request.answer]), context)
        judge.metrics.accepted(answer.result.probability)
        return translation.verdict(judge, answer)

    async def _rank_answers(
        self, request: scorer_pb2.RankAnswersRequest, context: Any
    ) -> scorer_pb2.RankAnswersResponse:
        count, limit = len(request.answers), self._limits.max_answers
        self._metrics.answers_received(count)
        judge = self._scorers.judge(request.scorer, Task.RANK_ANSWERS)
        turns = translation.turns(request.conversation, self._limits)
        if count < 2:
            raise InvalidRequest("answers", f"{count} answers; give at least 2 to compare")
        if count > limit:
            raise InvalidRequest("answers", f"{count} answers in one call; give fewer, {limit} is the limit")
        for index, answer in enumerate(request.answers):
            translation.check_answer(answer, f"answers[{index}]", self._limits)
        answers = await self._judge(judge, judge.questions(turns, request.answers), context)
        return translation.ranking(judge, rank(count, [answer.result for answer in answers]), answers)

    async def _predict(
        self, requests: Sequence[scorer_pb2.ScoreRequest], paths: Sequence[str], context: Any
    ) -> list[scorer_pb2.ScoreResponse]:
        """Answer in order, or raise for the first request that cannot be answered; `paths` name them in errors."""
        self._metrics.received(len(requests))
        asked = [self._question(request, at) for request, at in zip(requests, paths, strict=True)]
        queued = [(scorer.lane(question), question) for scorer, question in asked]
        responses = []
        for answer, (scorer, question), request in zip(
            await answer_all(queued, deadline=self._deadline(context)), asked, requests, strict=True
        ):
            scorer.metrics.scored(
                win_probability=answer.result.win_probability,
                tokens=answer.result.tokens,
                truncated=answer.result.truncated,
                mismatch=question.pair_mismatch,
                queue_seconds=answer.queue_seconds,
            )
            responses.append(translation.prediction(scorer, question, answer, request))
        return responses

    def _question(self, request: scorer_pb2.ScoreRequest, at: str) -> tuple[ServedScorer, Question]:
        scorer = self._scorers.predictor(request.scorer, at=at)
        turns = translation.turns(request.conversation, self._limits, at=at)
        return scorer, scorer.question(turns, strong_model=request.strong_model, weak_model=request.weak_model, at=at)

    async def _judge(
        self, judge: ServedJudge, questions: Sequence[AnswerPassages], context: Any
    ) -> list[Answer[Verdict]]:
        queued = [(judge.lane(question), question) for question in questions]
        answers = await answer_all(queued, deadline=self._deadline(context))
        for answer in answers:
            verdict = answer.result
            judge.metrics.judged(
                tokens=verdict.tokens,
                truncated=verdict.prompt_truncated or any(verdict.truncated),
                queue_seconds=answer.queue_seconds,
            )
        return answers

    async def _list_scorers(self) -> scorer_pb2.ListScorersResponse:
        described = [
            translation.describe(scorer, self._limits, is_default=self._scorers.is_default(scorer))
            for scorer in self._scorers
        ]
        if not described:
            raise Loading
        return scorer_pb2.ListScorersResponse(scorers=described)

    def _deadline(self, context: Any) -> float | None:
        """The caller's, on the batchers' clock."""
        remaining = context.time_remaining()
        return None if remaining is None else self._clock() + remaining
