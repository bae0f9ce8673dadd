"""Protos to values and back, for the servicer. Nothing behind these two modules sees a proto."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from pointsman.runtime.status import RichStatus, Violation
from pointsman.scorer.v1 import scorer_pb2
from scorer_service.artifact import Task
from scorer_service.batching import Answer
from scorer_service.errors import InvalidRequest, NotFound, PayloadTooLarge, ScorerError, WrongTask
from scorer_service.judging import Place, Verdict
from scorer_service.preprocess import Role, Turn
from scorer_service.registry import Served
from scorer_service.serving import Prediction, Question, ServedScorer

_ROLES = {
    scorer_pb2.ROLE_SYSTEM: Role.SYSTEM,
    scorer_pb2.ROLE_USER: Role.USER,
    scorer_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    scorer_pb2.ROLE_TOOL: Role.TOOL,
}
_TASKS = {
    Task.PREDICT: scorer_pb2.SCORER_TASK_PREDICT,
    Task.SCORE_ANSWER: scorer_pb2.SCORER_TASK_SCORE_ANSWER,
    Task.RANK_ANSWERS: scorer_pb2.SCORER_TASK_RANK_ANSWERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may hold: UTF-8 bytes of text per conversation and per answer; conversations, and answers."""

    max_conversation_bytes: int
    max_batch_size: int
    max_answer_bytes: int
    max_answers: int


def turns(conversation: scorer_pb2.Conversation, limits: Limits, *, at: str = "") -> list[Turn]:
    """The turns of a conversation; `at` is the path of the request that holds it.

    Raises:
        InvalidRequest: there is none, one has no role, or there is too much text.
    """
    if not conversation.turns:
        raise InvalidRequest(f"{at}conversation.turns", "add at least one turn")
    found = []
    size = 0
    for index, turn in enumerate(conversation.turns):
        role = _ROLES.get(turn.role)
        if role is None:
            known = ", ".join(scorer_pb2.Role.Name(value) for value in _ROLES)
            raise InvalidRequest(f"{at}conversation.turns[{index}].role", f"write one of {known}")
        size += len(turn.text.encode())
        found.append(Turn(role, turn.text))
    limit = limits.max_conversation_bytes
    if size > limit:
        raise PayloadTooLarge(f"{at}conversation", f"{size} bytes of text; shorten it, {limit} bytes is the limit")
    return found


def check_answer(answer: str, field: str, limits: Limits) -> None:
    """Refuse an answer that cannot be judged.

    Raises:
        InvalidRequest: it is blank or too long.
    """
    if not answer.strip():
        raise InvalidRequest(field, "write an answer with text that is not blank: a blank one needs no verdict")
    size, limit = len(answer.encode()), limits.max_answer_bytes
    if size > limit:
        raise PayloadTooLarge(field, f"{size} bytes of text; shorten it, {limit} bytes is the limit")


def prediction(
    scorer: ServedScorer, question: Question, answer: Answer[Prediction], request: scorer_pb2.ScoreRequest
) -> scorer_pb2.ScoreResponse:
    """One answer to Score."""
    found = answer.result
    response = scorer_pb2.ScoreResponse(
        win_probability=found.win_probability,
        calibrated=question.calibrated,
        scorer=scorer.name,
        scorer_version=scorer.version,
        truncated=found.truncated,
        pair_mismatch=question.pair_mismatch,
        timings=_timings([answer]),
    )
    if request.include_model_win_probabilities and found.model_win_probabilities:
        response.model_win_probabilities.extend(
            scorer_pb2.ModelWinProbability(model=model, win_probability=win_probability)
            for model, win_probability in zip(scorer.manifest.models, found.model_win_probabilities, strict=True)
        )
    return response


def verdict(judge: Served, answer: Answer[Verdict]) -> scorer_pb2.ScoreAnswerResponse:
    """One answer to ScoreAnswer."""
    found = answer.result
    return scorer_pb2.ScoreAnswerResponse(
        acceptance_probability=found.probability,
        scorer=judge.name,
        scorer_version=judge.version,
        conversation_truncated=found.prompt_truncated,
        answer_truncated=found.truncated[0],
        timings=_timings([answer]),
    )


def ranking(
    judge: Served, places: Sequence[Place], answers: Sequence[Answer[Verdict]]
) -> scorer_pb2.RankAnswersResponse:
    """One answer to RankAnswers."""
    return scorer_pb2.RankAnswersResponse(
        answers=[
            scorer_pb2.RankedAnswer(mean_win_probability=place.mean_win_probability, truncated=place.truncated)
            for place in places
        ],
        # Of equals the first: `max` keeps the first of the largest.
        best_index=max(range(len(places)), key=lambda index: places[index].mean_win_probability),
        scorer=judge.name,
        scorer_version=judge.version,
        conversation_truncated=answers[0].result.prompt_truncated,
        timings=_timings(answers),
    )


def describe(scorer: Served, limits: Limits, *, is_default: bool) -> scorer_pb2.Scorer:
    """One entry of ListScorers."""
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
            max_conversation_bytes=limits.max_conversation_bytes,
            max_batch_size=limits.max_batch_size,
            max_answer_bytes=limits.max_answer_bytes,
            max_answers=limits.max_answers,
        ),
        score_quantiles=manifest.score_quantiles,
        is_default=is_default,
        task=_TASKS[manifest.task],
    )


def to_status(error: Exception) -> RichStatus | None:
    """The status of an error of our hierarchy; `None` for any other."""
    if not isinstance(error, ScorerError):
        return None
    violations = (
        (Violation(error.field, error.mend),) if isinstance(error, InvalidRequest | NotFound | WrongTask) else ()
    )
    return RichStatus(
        code=grpc.StatusCode[error.status],
        message=str(error),
        reason=error.reason,
        violations=violations,
        retry_after=error.retry_after,
    )


def _timings(answers: "Sequence[Answer[Prediction]] | Sequence[Answer[Verdict]]") -> scorer_pb2.ScoreTimings:
    """Of one call: the longest wait, and the times of its slowest batch; its pieces ran together."""
    if len(answers) == 1:
        [only] = answers
        return scorer_pb2.ScoreTimings(
            tokenization_seconds=only.result.tokenization_seconds,
            queue_seconds=only.queue_seconds,
            inference_seconds=only.result.inference_seconds,
        )
    return scorer_pb2.ScoreTimings(
        tokenization_seconds=max(answer.result.tokenization_seconds for answer in answers),
        queue_seconds=max(answer.queue_seconds for answer in answers),
        inference_seconds=max(answer.result.inference_seconds for answer in answers),
    )
