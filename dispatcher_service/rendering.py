"""Values to protos: decisions, answers, usage."""

from collections.abc import Sequence

from dispatcher_service.answer import Choice as Answered
from dispatcher_service.answer import Delta, FinishReason, Idempotency, Logprobs, Origin, TokenLogprob
from dispatcher_service.outcome import Attempted, Bill, Choice, Stage, StageResult, status_of
from dispatcher_service.pricing import Usage, UsageSource
from dispatcher_service.routing import AlphaSource, LeftOut, Reason, Tier
from dispatcher_service.strategy_policies import StrategyName
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2

TIERS = {
    Tier.WEAK: decision_pb2.TIER_WEAK,
    Tier.MIDDLE: decision_pb2.TIER_MIDDLE,
    Tier.STRONG: decision_pb2.TIER_STRONG,
}
_REASONS = {
    Reason.AT_OR_ABOVE_ALPHA: decision_pb2.REASON_AT_OR_ABOVE_ALPHA,
    Reason.BELOW_ALPHA: decision_pb2.REASON_BELOW_ALPHA,
    Reason.BEST_UTILITY: decision_pb2.REASON_BEST_UTILITY,
    Reason.ONLY_FIT: decision_pb2.REASON_ONLY_FIT,
    Reason.SCORER_UNAVAILABLE: decision_pb2.REASON_SCORER_UNAVAILABLE,
    Reason.BUDGET_DEGRADED: decision_pb2.REASON_BUDGET_DEGRADED,
    Reason.LEDGER_UNAVAILABLE: decision_pb2.REASON_LEDGER_UNAVAILABLE,
    Reason.FALLBACK: decision_pb2.REASON_FALLBACK,
    Reason.STICKY_CONVERSATION: decision_pb2.REASON_STICKY_CONVERSATION,
    Reason.TOOL_LOOP: decision_pb2.REASON_TOOL_LOOP,
    Reason.OVERRIDE_WEAK: decision_pb2.REASON_OVERRIDE_WEAK,
    Reason.OVERRIDE_STRONG: decision_pb2.REASON_OVERRIDE_STRONG,
    Reason.CASCADE: decision_pb2.REASON_CASCADE,
    Reason.ACCEPTED: decision_pb2.REASON_ACCEPTED,
    Reason.LAST_STAGE: decision_pb2.REASON_LAST_STAGE,
    Reason.ANSWER_AT_HAND: decision_pb2.REASON_ANSWER_AT_HAND,
    Reason.ENSEMBLE: decision_pb2.REASON_ENSEMBLE,
    Reason.BEST_RANKED: decision_pb2.REASON_BEST_RANKED,
    Reason.UNRANKED: decision_pb2.REASON_UNRANKED,
    Reason.FUSED: decision_pb2.REASON_FUSED,
}
_LEFT_OUT = {
    None: decision_pb2.LEFT_OUT_UNSPECIFIED,
    LeftOut.MODALITY: decision_pb2.LEFT_OUT_MODALITY,
    LeftOut.CONTEXT_WINDOW: decision_pb2.LEFT_OUT_CONTEXT_WINDOW,
    LeftOut.TOOLS: decision_pb2.LEFT_OUT_TOOLS,
    LeftOut.TURNED_OFF: decision_pb2.LEFT_OUT_TURNED_OFF,
    LeftOut.STICKY_CONVERSATION: decision_pb2.LEFT_OUT_STICKY_CONVERSATION,
    LeftOut.NOT_SCORED: decision_pb2.LEFT_OUT_NOT_SCORED,
}
_STRATEGIES = {name: decision_pb2.Strategy.Value(f"STRATEGY_{name.name}") for name in StrategyName}
_STAGE_RESULTS = {result: decision_pb2.StageResult.Value(f"STAGE_RESULT_{result.name}") for result in StageResult}
_ALPHA_SOURCES = {
    None: decision_pb2.ALPHA_SOURCE_UNSPECIFIED,
    AlphaSource.FIXED: decision_pb2.ALPHA_SOURCE_FIXED,
    AlphaSource.SHARE: decision_pb2.ALPHA_SOURCE_SHARE,
    AlphaSource.OVERRIDE: decision_pb2.ALPHA_SOURCE_OVERRIDE,
    AlphaSource.PACED: decision_pb2.ALPHA_SOURCE_PACED,
}
_FINISH_REASONS = {
    FinishReason.UNKNOWN: chat_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
}
_USAGE_SOURCES = {
    UsageSource.REPORTED: chat_pb2.USAGE_SOURCE_REPORTED,
    UsageSource.ESTIMATED: chat_pb2.USAGE_SOURCE_ESTIMATED,
}
_COST_SOURCES = {
    UsageSource.REPORTED: decision_pb2.COST_SOURCE_REPORTED,
    UsageSource.ESTIMATED: decision_pb2.COST_SOURCE_ESTIMATED,
}


_IDEMPOTENCY = {
    Idempotency.OFF: dispatcher_pb2.IDEMPOTENCY_UNSPECIFIED,
    Idempotency.KEPT: dispatcher_pb2.IDEMPOTENCY_KEPT,
    Idempotency.REPLAYED: dispatcher_pb2.IDEMPOTENCY_REPLAYED,
    Idempotency.TOO_LARGE: dispatcher_pb2.IDEMPOTENCY_TOO_LARGE,
    Idempotency.NOT_KEPT: dispatcher_pb2.IDEMPOTENCY_NOT_KEPT,
}


def idempotency(became: Idempotency) -> dispatcher_pb2.Idempotency.ValueType:
    """What became of a result under the caller's request id."""
    return _IDEMPOTENCY[became]


def decision(choice: Choice, bill: Bill | None) -> decision_pb2.Decision:
    """`bill` is `None` while nothing is known of the cost."""
    made, prediction = choice.decision, choice.prediction
    message = decision_pb2.Decision(
        tier=TIERS[made.tier],
        model=choice.model,
        reason=_REASONS[made.reason],
        alpha=made.alpha,
        alpha_source=_ALPHA_SOURCES[choice.alpha_source],
        win_probability=made.win_probability,
        cost_source=decision_pb2.COST_SOURCE_PENDING,
        price_version=choice.price_version,
        instead_of=choice.instead_of,
        strategy=_STRATEGIES[choice.strategy],
    )
    if choice.stages:
        message.stages.extend(_stage(stage) for stage in choice.stages)
    if choice.judged_by is not None:
        message.answer_scorer, message.answer_scorer_version = choice.judged_by
    if choice.lists_candidates:
        _add_candidates(message, choice)
    if prediction is not None:
        message.scorer = prediction.scorer
        message.scorer_version = prediction.scorer_version
        message.pair_mismatch = prediction.pair_mismatch
    if bill is not None:
        message.cost_nano_usd = bill.cost
        message.other_tier_cost_nano_usd = bill.other_tier_cost
        message.cost_source = _COST_SOURCES[bill.usage.source]
        message.attempts = bill.attempts
    return message


def _add_candidates(message: decision_pb2.Decision, choice: Choice) -> None:
    """Every model of the ladder. Added in place: a message that is built beside and copied costs twice as much."""
    compared, models, add = choice.candidates, choice.ladder.models, message.candidates.add
    if compared is not None and len(compared.beaten) == len(models):
        for model, probability in zip(models, compared.beaten, strict=True):
            add(model=model, beaten_by_strongest=probability)
        return
    beaten = {} if compared is None else dict(zip(compared.rungs, compared.beaten, strict=True))
    for rung, model in enumerate(models):
        if rung in beaten:
            add(model=model, beaten_by_strongest=beaten[rung])
        else:
            add(model=model, left_out=_LEFT_OUT[choice.left_out.get(rung)])


def _stage(stage: Stage) -> decision_pb2.Stage:
    source = stage.cost_source
    return decision_pb2.Stage(
        model=stage.model,
        result=_STAGE_RESULTS[stage.result],
        given=stage.given,
        acceptance_probability=stage.acceptance,
        threshold=stage.threshold,
        win_rate=stage.win_rate,
        cost_nano_usd=stage.cost,
        cost_source=decision_pb2.COST_SOURCE_PENDING if source is None else _COST_SOURCES[source],
    )


def usage(tokens: Usage) -> chat_pb2.Usage:
    """Token counts by class."""
    return chat_pb2.Usage(
        input_tokens=tokens.input_tokens,
        cached_input_tokens=tokens.cached_input_tokens,
        cache_write_tokens=tokens.cache_write_tokens,
        output_tokens=tokens.output_tokens,
        reasoning_tokens=tokens.reasoning_tokens,
        source=_USAGE_SOURCES[tokens.source],
        reported_json=tokens.reported_json,
    )


def finish_reasons(reasons: Sequence[FinishReason]) -> list[chat_pb2.FinishReason.ValueType]:
    """A reason that this version does not know is UNSPECIFIED."""
    return [_FINISH_REASONS[reason] for reason in reasons]


def answer(choice: Answered) -> chat_pb2.Choice:
    """One choice of a whole answer."""
    calls = [
        chat_pb2.ToolCall(id=c.id, name=c.name, arguments_json=c.arguments, custom=c.custom) for c in choice.tool_calls
    ]
    return chat_pb2.Choice(
        index=choice.index,
        content=choice.content,
        refusal=choice.refusal,
        tool_calls=calls,
        finish_reason=_FINISH_REASONS[choice.finish_reason],
        upstream_finish_reason=choice.upstream_finish_reason,
        logprobs=_logprobs(choice.logprobs),
        extra_json=choice.extra_json,
    )


def delta(piece: Delta) -> dispatcher_pb2.StreamCompleteResponse:
    """A piece of one choice."""
    response = dispatcher_pb2.StreamCompleteResponse()
    # Written in place: a message that is given to another's constructor is made twice.
    written = response.delta
    written.index = piece.index
    written.content = piece.content
    if piece.refusal:
        written.refusal = piece.refusal
    if piece.extra_json:
        written.extra_json = piece.extra_json
    for c in piece.tool_calls:
        written.tool_calls.add(index=c.index, id=c.id, name=c.name, arguments_json=c.arguments, custom=c.custom)
    logprobs = _logprobs(piece.logprobs)
    if logprobs is not None:
        written.logprobs.CopyFrom(logprobs)
    return response


def origin(source: Origin) -> chat_pb2.Origin:
    """What the upstream says of its answer."""
    return chat_pb2.Origin(
        completion_id=source.completion_id,
        model=source.model,
        system_fingerprint=source.system_fingerprint,
        created=source.created,
        extra_json=source.extra_json,
    )


def _logprobs(logprobs: Logprobs | None) -> chat_pb2.Logprobs | None:
    if logprobs is None:
        return None
    return chat_pb2.Logprobs(
        content=[_token_logprob(token) for token in logprobs.content],
        refusal=[_token_logprob(token) for token in logprobs.refusal],
    )


def _token_logprob(token: TokenLogprob) -> chat_pb2.TokenLogprob:
    return chat_pb2.TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        token_bytes=token.token_bytes,
        top_logprobs=[
            chat_pb2.TopLogprob(token=top.token, logprob=top.logprob, token_bytes=top.token_bytes) for top in token.top
        ],
    )


def attempt(attempted: Attempted) -> decision_pb2.Attempt:
    """One call of an upstream."""
    used = attempted.usage
    return decision_pb2.Attempt(
        model=attempted.model,
        deployment=attempted.deployment.name,
        status=status_of(attempted.error),
        cost_nano_usd=attempted.cost,
        cost_source=decision_pb2.COST_SOURCE_PENDING if used is None else _COST_SOURCES[used.source],
        price_version=attempted.price_version,
        usage=None if used is None else usage(used),
        seconds=attempted.seconds,
    )
