"""The gRPC edge of the scorer: protos in, values inside, protos out. Nothing behind this module sees a proto."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from pointsman.runtime.boundary import Boundary
from pointsman.runtime.status import RichStatus, Violation
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from scorer_service.batching import Answer, Batcher
from scorer_service.errors import InvalidRequest, Loading, NotFound, PayloadTooLarge, ScorerError
from scorer_service.metrics import Metrics
from scorer_service.preprocess import Role, Turn
from scorer_service.serving import Prediction, Question, Scorers, ServedScorer

SERVICE_NAME = scorer_pb2.DESCRIPTOR.services_by_name["ScorerService"].full_name

_ROLES = {
    scorer_pb2.ROLE_SYSTEM: Role.SYSTEM,
    scorer_pb2.ROLE_USER: Role.USER,
    scorer_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    scorer_pb2.ROLE_TOOL: Role.TOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may hold: UTF-8 bytes of text per conversation, and conversations per batch."""

    max_conversation_bytes: int
    max_batch_size: int


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
        self._boundary = Boundary(to_status=to_status, observe=metrics.call_ended, failed=metrics.call_failed)

    async def Score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        """Score one conversation."""
        return await self._boundary.run("Score", context, self._score(request, context))

    async def BatchScore(self, request: scorer_pb2.BatchScoreRequest, context: Any) -> scorer_pb2.BatchScoreResponse:
        """Score many."""
        return await self._boundary.run("BatchScore", context, self._batch_score(request, context))

    async def ListScorers(self, request: scorer_pb2.ListScorersRequest, context: Any) -> scorer_pb2.ListScorersResponse:
        """Describe what is served."""
        return await self._boundary.run("ListScorers", context, self._list_scorers())

    async def _score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        [response] = await self._answer([request], [""], context)
        return response

    async def _batch_score(self, request: scorer_pb2.BatchScoreRequest, context: Any) -> scorer_pb2.BatchScoreResponse:
        count, limit = len(request.requests), self._limits.max_batch_size
        if not count:
            raise InvalidRequest("requests", "add at least one request")
        if count > limit:
            raise InvalidRequest("requests", f"{count} conversations in one call; split them, {limit} is the limit")
        paths = [f"requests[{index}]." for index in range(count)]
        return scorer_pb2.BatchScoreResponse(responses=await self._answer(request.requests, paths, context))

    async def _answer(
        self, requests: Sequence[scorer_pb2.ScoreRequest], paths: Sequence[str], context: Any
    ) -> list[scorer_pb2.ScoreResponse]:
        """Answer in order, or raise for the first request that cannot be answered; `paths` name them in errors."""
        self._metrics.received(len(requests))
        asked = [self._question(request, at) for request, at in zip(requests, paths, strict=True)]
        remaining = context.time_remaining()
        deadline = None if remaining is None else self._clock() + remaining
        rows_by_lane: dict[Batcher[Question, Prediction], list[int]] = {}
        for row, (scorer, question) in enumerate(asked):
            rows_by_lane.setdefault(scorer.lane(question), []).append(row)

        responses: dict[int, scorer_pb2.ScoreResponse] = {}
        tickets = []
        try:
            for lane, rows in rows_by_lane.items():
                tickets.append(lane.put([asked[row][1] for row in rows], deadline=deadline))
            for rows, ticket in zip(rows_by_lane.values(), tickets, strict=True):
                for row, answer in zip(rows, await ticket.answers(), strict=True):
                    responses[row] = _response(*asked[row], answer, requests[row])
        finally:
            # Also when the caller went away, or a second lane was full: nothing may be run for nobody.
            for ticket in tickets:
                ticket.withdraw()
        return [responses[row] for row in range(len(requests))]

    def _question(self, request: scorer_pb2.ScoreRequest, at: str) -> tuple[ServedScorer, Question]:
        scorer = self._scorers.get(request.scorer, at=at)
        turns = self._turns(request.conversation, at)
        return scorer, scorer.question(turns, strong_model=request.strong_model, weak_model=request.weak_model, at=at)

    def _turns(self, conversation: scorer_pb2.Conversation, at: str) -> list[Turn]:
        if not conversation.turns:
            raise InvalidRequest(f"{at}conversation.turns", "add at least one turn")
        turns = []
        size = 0
        for index, turn in enumerate(conversation.turns):
            role = _ROLES.get(turn.role)
            if role is None:
                known = ", ".join(scorer_pb2.Role.Name(value) for value in _ROLES)
                raise InvalidRequest(f"{at}conversation.turns[{index}].role", f"write one of {known}")
            size += len(turn.text.encode())
            turns.append(Turn(role, turn.text))
        limit = self._limits.max_conversation_bytes
        if size > limit:
            raise PayloadTooLarge(f"{at}conversation", f"{size} bytes of text; shorten it, {limit} bytes is the limit")
        return turns

    async def _list_scorers(self) -> scorer_pb2.ListScorersResponse:
        described = [self._describe(scorer) for scorer in self._scorers]
        if not described:
            raise Loading
        return scorer_pb2.ListScorersResponse(scorers=described)

    def _describe(self, scorer: ServedScorer) -> scorer_pb2.Scorer:
        manifest = scorer.manifest
        return scorer_pb2.Scorer(
            name=scorer.name,
            version=scorer.version,
            router_kind=manifest.router_kind,
            strong_model=manifest.strong_model,
            weak_model=manifest.weak_model,
            models=manifest.models,
            limits=scorer_pb2.ScorerLimits(
                max_tokens=manifest.preprocess.max_tokens,
                max_conversation_bytes=self._limits.max_conversation_bytes,
                max_batch_size=self._limits.max_batch_size,
            ),
            score_quantiles=manifest.score_quantiles,
            is_default=self._scorers.is_default(scorer),
        )


def to_status(error: Exception) -> RichStatus | None:
    """The status of an error of our hierarchy; `None` for any other."""
    if not isinstance(error, ScorerError):
        return None
    violations = (Violation(error.field, error.mend),) if isinstance(error, InvalidRequest | NotFound) else ()
    return RichStatus(
        code=grpc.StatusCode[error.status],
        message=str(error),
        reason=error.reason,
        violations=violations,
        retry_after=error.retry_after,
    )


def _response(
    scorer: ServedScorer, question: Question, answer: Answer[Prediction], request: scorer_pb2.ScoreRequest
) -> scorer_pb2.ScoreResponse:
    prediction = answer.result
    scorer.metrics.scored(
        win_probability=prediction.win_probability,
        tokens=prediction.tokens,
        truncated=prediction.truncated,
        mismatch=question.pair_mismatch,
        queue_seconds=answer.queue_seconds,
    )
    response = scorer_pb2.ScoreResponse(
        win_probability=prediction.win_probability,
        calibrated=question.calibrated,
        scorer=scorer.name,
        scorer_version=scorer.version,
        truncated=prediction.truncated,
        pair_mismatch=question.pair_mismatch,
        timings=scorer_pb2.ScoreTimings(
            tokenization_seconds=prediction.tokenization_seconds,
            queue_seconds=answer.queue_seconds,
            inference_seconds=prediction.inference_seconds,
        ),
    )
    if request.include_model_win_probabilities and prediction.model_win_probabilities:
        response.model_win_probabilities.extend(
            scorer_pb2.ModelWinProbability(model=model, win_probability=win_probability)
            for model, win_probability in zip(scorer.manifest.models, prediction.model_win_probabilities, strict=True)
        )
    return response
