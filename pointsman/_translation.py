"""The client's values to protos and back. A value of an enum that is not known here becomes `UNKNOWN`."""

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2, records_pb2
from pointsman.enums import (
    AlphaSource,
    CostSource,
    FinishReason,
    LeftOut,
    Preference,
    Reason,
    Role,
    ScorerTask,
    StageResult,
    Strategy,
    Tier,
    UsageSource,
)
from pointsman.scorer.v1 import scorer_pb2
from pointsman.values import (
    Answer,
    AnswerRanking,
    AnswerScore,
    Candidate,
    Conversation,
    Decision,
    Explanation,
    Message,
    Messages,
    Score,
    ScorerInfo,
    Stage,
    Usage,
)

Known = TypeVar("Known", bound=enum.StrEnum)


def chat(conversation: Conversation, sampling: Mapping[str, Any]) -> chat_pb2.Chat:
    """`sampling` holds fields of `Chat` under their own names; they win over those of a conversation that is one."""
    if isinstance(conversation, chat_pb2.Chat):
        merged = chat_pb2.Chat()
        merged.CopyFrom(conversation)
        merged.MergeFrom(chat_pb2.Chat(**sampling))
        return merged
    messages = [
        chat_pb2.Message(
            role=chat_pb2.Role.Value(f"ROLE_{message.role.name}"),
            content=[chat_pb2.ContentPart(text=message.text)],
            name=message.name,
        )
        for message in _messages(conversation)
    ]
    return chat_pb2.Chat(messages=messages, **sampling)


def answer(response: dispatcher_pb2.CompleteResponse) -> Answer:
    """A whole answer."""
    first = response.choices[0] if response.choices else chat_pb2.Choice()
    return Answer(
        response=response,
        request_id=response.request_id,
        decision=decision(response.decision),
        content=first.content,
        finish_reason=finish_reason(first.finish_reason),
        usage=usage(response.usage),
    )


def decision(message: decision_pb2.Decision) -> Decision:
    """A decision; what is unset becomes `None`."""
    return Decision(
        tier=_known(Tier, decision_pb2.Tier, message.tier, "TIER_"),
        model=message.model,
        reason=_known(Reason, decision_pb2.Reason, message.reason, "REASON_"),
        alpha=message.alpha if message.HasField("alpha") else None,
        alpha_source=_known(AlphaSource, decision_pb2.AlphaSource, message.alpha_source, "ALPHA_SOURCE_"),
        win_probability=message.win_probability if message.HasField("win_probability") else None,
        scorer=message.scorer,
        scorer_version=message.scorer_version,
        pair_mismatch=message.pair_mismatch,
        cost_nano_usd=message.cost_nano_usd,
        other_tier_cost_nano_usd=message.other_tier_cost_nano_usd,
        cost_source=_known(CostSource, decision_pb2.CostSource, message.cost_source, "COST_SOURCE_"),
        price_version=message.price_version,
        attempts=message.attempts,
        instead_of=message.instead_of,
        candidates=tuple(_candidate(candidate) for candidate in message.candidates),
        strategy=_known(Strategy, decision_pb2.Strategy, message.strategy, "STRATEGY_"),
        stages=tuple(_stage(stage) for stage in message.stages),
        answer_scorer=message.answer_scorer,
        answer_scorer_version=message.answer_scorer_version,
    )


def _stage(message: decision_pb2.Stage) -> Stage:
    return Stage(
        model=message.model,
        result=_known(StageResult, decision_pb2.StageResult, message.result, "STAGE_RESULT_"),
        given=message.given,
        acceptance_probability=message.acceptance_probability if message.HasField("acceptance_probability") else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        win_rate=message.win_rate if message.HasField("win_rate") else None,
        cost_nano_usd=message.cost_nano_usd,
        cost_source=_known(CostSource, decision_pb2.CostSource, message.cost_source, "COST_SOURCE_"),
    )


def _candidate(message: decision_pb2.Candidate) -> Candidate:
    left_out = _known(LeftOut, decision_pb2.LeftOut, message.left_out, "LEFT_OUT_") if message.left_out else None
    compared = message.HasField("beaten_by_strongest")
    return Candidate(
        model=message.model,
        beaten_by_strongest=message.beaten_by_strongest if compared else None,
        left_out=left_out,
    )


def explanation(response: records_pb2.GetDecisionResponse) -> Explanation:
    """Why a request was routed as it was."""
    return Explanation(text=response.explanation, decision=decision(response.record.decision), record=response.record)


def feedback(request_id: str, rating: float | None, preference: Preference | None) -> records_pb2.RecordFeedbackRequest:
    """An opinion; what of it is missing, or too much, the service says."""
    request = records_pb2.RecordFeedbackRequest(request_id=request_id)
    if rating is not None:
        request.rating = rating
    if preference is not None:
        request.preference = decision_pb2.Preference.Value(f"PREFERENCE_{preference.name}")
    return request


def usage(message: chat_pb2.Usage) -> Usage:
    """Token counts by class."""
    return Usage(
        input_tokens=message.input_tokens,
        cached_input_tokens=message.cached_input_tokens,
        cache_write_tokens=message.cache_write_tokens,
        output_tokens=message.output_tokens,
        reasoning_tokens=message.reasoning_tokens,
        source=_known(UsageSource, chat_pb2.UsageSource, message.source, "USAGE_SOURCE_"),
    )


def finish_reason(value: chat_pb2.FinishReason.ValueType) -> FinishReason:
    """Why the model stopped."""
    return _known(FinishReason, chat_pb2.FinishReason, value, "FINISH_REASON_")


def score_request(conversation: Messages, scorer: str, strong_model: str, weak_model: str) -> scorer_pb2.ScoreRequest:
    """A request for one prediction."""
    return scorer_pb2.ScoreRequest(
        conversation=scored_conversation(conversation),
        scorer=scorer,
        strong_model=strong_model,
        weak_model=weak_model,
    )


def scored_conversation(conversation: Messages) -> scorer_pb2.Conversation:
    """The scorer knows one role for instructions, so that a developer message goes as a system message."""
    turns = [
        scorer_pb2.Turn(
            role=scorer_pb2.ROLE_SYSTEM
            if message.role is Role.DEVELOPER
            else scorer_pb2.Role.Value(f"ROLE_{message.role.name}"),
            text=message.text,
        )
        for message in _messages(conversation)
    ]
    return scorer_pb2.Conversation(turns=turns)


def score(response: scorer_pb2.ScoreResponse) -> Score:
    """One prediction."""
    return Score(
        win_probability=response.win_probability,
        calibrated=response.calibrated,
        scorer=response.scorer,
        scorer_version=response.scorer_version,
        truncated=response.truncated,
        pair_mismatch=response.pair_mismatch,
    )


def answer_score(response: scorer_pb2.ScoreAnswerResponse) -> AnswerScore:
    """One verdict."""
    return AnswerScore(
        acceptance_probability=response.acceptance_probability,
        scorer=response.scorer,
        scorer_version=response.scorer_version,
        conversation_truncated=response.conversation_truncated,
        answer_truncated=response.answer_truncated,
    )


def answer_ranking(response: scorer_pb2.RankAnswersResponse) -> AnswerRanking:
    """One ranking."""
    return AnswerRanking(
        mean_win_probabilities=tuple(answer.mean_win_probability for answer in response.answers),
        best_index=response.best_index,
        truncated=tuple(answer.truncated for answer in response.answers),
        conversation_truncated=response.conversation_truncated,
        scorer=response.scorer,
        scorer_version=response.scorer_version,
    )


def scorer_info(message: scorer_pb2.Scorer) -> ScorerInfo:
    """One served scorer."""
    return ScorerInfo(
        name=message.name,
        version=message.version,
        router_kind=message.router_kind,
        strong_model=message.strong_model,
        weak_model=message.weak_model,
        models=tuple(message.models),
        max_tokens=message.limits.max_tokens,
        max_conversation_bytes=message.limits.max_conversation_bytes,
        max_batch_size=message.limits.max_batch_size,
        score_quantiles=tuple(message.score_quantiles),
        is_default=message.is_default,
        task=_known(ScorerTask, scorer_pb2.ScorerTask, message.task, "SCORER_TASK_"),
        max_answer_bytes=message.limits.max_answer_bytes,
        max_answers=message.limits.max_answers,
    )


def _messages(conversation: Messages) -> list[Message]:
    return [Message(Role.USER, conversation)] if isinstance(conversation, str) else list(conversation)


def _known(cls: type[Known], wrapper: Any, value: int, prefix: str) -> Known:
    """The member of `cls` that is named like the proto's value."""
    name = wrapper.Name(value).removeprefix(prefix) if value in wrapper.values() else ""
    return cls[name] if name in cls.__members__ else cls["UNKNOWN"]
