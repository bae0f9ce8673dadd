"""A decision record in sentences: the answer to "why was this weak?". Pure."""

from decimal import Decimal

from dispatcher_service.pricing import NANO_USD_PER_USD, NanoUsd
from pointsman.dispatcher.v1 import decision_pb2

_TIERS = {
    decision_pb2.TIER_WEAK: "weak",
    decision_pb2.TIER_MIDDLE: "to the middle",
    decision_pb2.TIER_STRONG: "strong",
}
_OTHERS = {
    decision_pb2.TIER_WEAK: "strong",
    decision_pb2.TIER_MIDDLE: "strongest",
    decision_pb2.TIER_STRONG: "weak",
}
_LEFT_OUT = {
    decision_pb2.LEFT_OUT_MODALITY: "its part_tokens has no bound for a kind of part in the request",
    decision_pb2.LEFT_OUT_CONTEXT_WINDOW: "the request and its answer are longer than its context_window",
    decision_pb2.LEFT_OUT_TOOLS: "the request has tools, and it calls none",
    decision_pb2.LEFT_OUT_TURNED_OFF: "operators had turned it off",
    decision_pb2.LEFT_OUT_STICKY_CONVERSATION: "the conversation keeps a stronger model by the tenant's sticky",
    decision_pb2.LEFT_OUT_NOT_SCORED: "the scorer does not compare it with the others",
}
_SOURCES = {
    decision_pb2.ALPHA_SOURCE_FIXED: "the tenant's fixed alpha",
    decision_pb2.ALPHA_SOURCE_SHARE: "the alpha of the tenant's share of strong calls",
    decision_pb2.ALPHA_SOURCE_PACED: "the alpha that pacing holds the tenant's share or limits with",
    decision_pb2.ALPHA_SOURCE_OVERRIDE: "the alpha that the request brought",
}
_FORCED = {
    decision_pb2.REASON_SCORER_UNAVAILABLE: "there was no win probability in time, and the tenant's on_scorer_failure "
    "says what happens then",
    decision_pb2.REASON_BUDGET_DEGRADED: "a dearer model was chosen, but a limit had no room for it, and the tenant's "
    "on_exhausted is degrade",
    decision_pb2.REASON_LEDGER_UNAVAILABLE: "a dearer model was chosen, but the ledger could not be reached, and the "
    "tenant's on_ledger_failure is weak",
    decision_pb2.REASON_FALLBACK: "the chosen model did not answer, and this one took its place",
    decision_pb2.REASON_STICKY_CONVERSATION: "the conversation keeps its model by the tenant's sticky, so that no "
    "threshold took part",
    decision_pb2.REASON_TOOL_LOOP: "the request carried results of tool calls, and the model that made the calls goes "
    "on, so that no threshold took part",
    decision_pb2.REASON_OVERRIDE_WEAK: "operators had turned the tenant to weak, or its stronger models off",
    decision_pb2.REASON_OVERRIDE_STRONG: "operators had turned the tenant to strong, or its weaker models off",
    decision_pb2.REASON_ONLY_FIT: "no other model of the tenant could take the request",
    decision_pb2.REASON_CASCADE: "the tenant's strategy is cascade, and no answer had been accepted",
    decision_pb2.REASON_ACCEPTED: "the tenant's strategy is cascade, and its answer was accepted",
    decision_pb2.REASON_LAST_STAGE: "the tenant's strategy is cascade, no cheaper model's answer was accepted, and the "
    "last one's is given unchecked",
    decision_pb2.REASON_ANSWER_AT_HAND: "the tenant's strategy is cascade, no answer was accepted, no further one "
    "could be had, and of those at hand this one is most likely acceptable",
    decision_pb2.REASON_ENSEMBLE: "the tenant's strategy is ensemble, and no answer had been chosen",
    decision_pb2.REASON_BEST_RANKED: "the tenant's strategy is ensemble, and its answer ranked first",
    decision_pb2.REASON_UNRANKED: "the tenant's strategy is ensemble, the answers could not be compared, and this is "
    "the strongest model that answered",
    decision_pb2.REASON_FUSED: "the tenant's strategy is ensemble, and it made one answer of the best",
}
_RESULTS = {
    decision_pb2.STAGE_RESULT_ACCEPTED: "accepted",
    decision_pb2.STAGE_RESULT_REJECTED: "not accepted",
    decision_pb2.STAGE_RESULT_UNCHECKED: "not checked",
    decision_pb2.STAGE_RESULT_NO_SCORE: "no score in time",
    decision_pb2.STAGE_RESULT_FAILED: "did not answer",
    decision_pb2.STAGE_RESULT_NO_MONEY: "not asked, for want of money or of the ledger",
    decision_pb2.STAGE_RESULT_NO_TIME: "not asked, for want of time",
    decision_pb2.STAGE_RESULT_RANKED: "ranked",
    decision_pb2.STAGE_RESULT_CANCELLED: "cancelled",
    decision_pb2.STAGE_RESULT_FUSED: "made one answer of the best",
}


def explain(record: decision_pb2.DecisionRecord) -> str:
    """Why a request went where it went, what it cost, and how it ended, each in a sentence."""
    decision = record.decision
    sentences = [*_choice(record), *_stages(decision), *_cost(decision), *_end(record), *_shadows(record)]
    return " ".join(sentences)


def _choice(record: decision_pb2.DecisionRecord) -> list[str]:
    if not record.HasField("decision"):
        return ["The request ended before a model was chosen."]
    decision = record.decision
    tier = _TIERS.get(decision.tier, "unknown")
    left_out = [
        f"{candidate.model} was left out: {_LEFT_OUT.get(candidate.left_out, 'unknown')}."
        for candidate in decision.candidates
        if candidate.left_out
    ]
    return [f"It went {tier}, to {decision.model}: {_why(decision)}.", *left_out]


def _why(decision: decision_pb2.Decision) -> str:
    if decision.reason in (decision_pb2.REASON_AT_OR_ABOVE_ALPHA, decision_pb2.REASON_BELOW_ALPHA):
        if any(candidate.HasField("beaten_by_strongest") for candidate in decision.candidates):
            return _why_of_many(decision)
        relation = "at or above" if decision.reason == decision_pb2.REASON_AT_OR_ABOVE_ALPHA else "below"
        source = _source(decision)
        return (
            f"the probability that the strong model answers better was {decision.win_probability:.4f}, {relation} "
            f"{source}, {_alpha(decision)}"
        )
    if decision.reason == decision_pb2.REASON_BEST_UTILITY:
        return (
            f"its quality less λ times its cost was best, λ following from {_source(decision)}, {_alpha(decision)}"
            f"{_odds(decision)}"
        )
    why = _FORCED.get(decision.reason) or decision_pb2.Reason.Name(decision.reason)
    return f"{why} ({decision.instead_of} was chosen first)" if decision.instead_of else why


def _why_of_many(decision: decision_pb2.Decision) -> str:
    cheapest = decision.reason == decision_pb2.REASON_BELOW_ALPHA
    rule = (
        "it is the cheapest that the strongest beats with a probability below"
        if cheapest
        else ("the strongest beats every cheaper one with a probability at or above")
    )
    return f"{rule} {_source(decision)}, {_alpha(decision)}{_odds(decision)}"


def _odds(decision: decision_pb2.Decision) -> str:
    compared = [each for each in decision.candidates if each.HasField("beaten_by_strongest")]
    return (
        " (" + ", ".join(f"{each.model} {each.beaten_by_strongest:.4f}" for each in compared) + ")" if compared else ""
    )


def _stages(decision: decision_pb2.Decision) -> list[str]:
    ensemble = decision.strategy == decision_pb2.STRATEGY_ENSEMBLE
    return (
        [f"{'Asked at once' if ensemble else 'Asked in turn'}: {'; '.join(map(_stage, decision.stages))}."]
        if decision.stages
        else []
    )


def _stage(stage: decision_pb2.Stage) -> str:
    told = _RESULTS.get(stage.result, "unknown")
    if stage.HasField("acceptance_probability"):
        told += f", acceptance probability {stage.acceptance_probability:.4f}"
        told += f" against {stage.threshold:.4f}" if stage.HasField("threshold") else ""
    if stage.HasField("win_rate"):
        told += f", better than another answer with probability {stage.win_rate:.4f}"
    if stage.cost_source != decision_pb2.COST_SOURCE_PENDING:
        told += f", {_usd(stage.cost_nano_usd)}"
    return f"{stage.model} ({told})"


def _source(decision: decision_pb2.Decision) -> str:
    if decision.strategy == decision_pb2.STRATEGY_CASCADE and decision.alpha_source == decision_pb2.ALPHA_SOURCE_FIXED:
        hard = decision.reason == decision_pb2.REASON_AT_OR_ABOVE_ALPHA
        return f"the cascade's {'hard_alpha' if hard else 'easy_alpha'}"
    return _SOURCES.get(decision.alpha_source, "the tenant's alpha")


def _alpha(decision: decision_pb2.Decision) -> str:
    return f"{decision.alpha:.4f}" if decision.alpha <= 1 else "above 1, so that nothing goes strong"


def _cost(decision: decision_pb2.Decision) -> list[str]:
    if decision.cost_source in (decision_pb2.COST_SOURCE_UNSPECIFIED, decision_pb2.COST_SOURCE_PENDING):
        return []
    estimated = ", estimated" if decision.cost_source == decision_pb2.COST_SOURCE_ESTIMATED else ""
    other = _OTHERS.get(decision.tier, "other")
    return [
        f"It cost {_usd(decision.cost_nano_usd)}{estimated}; the {other} model would have cost about "
        f"{_usd(decision.other_tier_cost_nano_usd)} for as many tokens."
    ]


def _end(record: decision_pb2.DecisionRecord) -> list[str]:
    if record.status in ("", "OK"):
        return []
    reason = f" ({record.error_reason})" if record.error_reason not in ("", record.status) else ""
    return [f"The request ended with {record.status}{reason}."]


def _shadows(record: decision_pb2.DecisionRecord) -> list[str]:
    sentences = []
    for shadow in record.shadows:
        model = f", to {shadow.model}" if record.decision.candidates and shadow.model else ""
        what = "Another dial" if shadow.kind == decision_pb2.SHADOW_KIND_DIAL else f"Scorer {shadow.scorer}"
        sentences.append(
            f"{what}, in its shadow, would have gone {_TIERS.get(shadow.tier, 'unknown')}{model}: "
            f"{shadow.win_probability:.4f} against {shadow.alpha:.4f}."
        )
    return sentences


def _usd(amount: NanoUsd) -> str:
    return f"${Decimal(amount) / NANO_USD_PER_USD:f}"
