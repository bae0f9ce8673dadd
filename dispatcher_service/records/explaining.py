"""A decision record in sentences: the answer to "why was this weak?". Pure."""

from decimal import Decimal

from dispatcher_service.pricing import NANO_USD_PER_USD, NanoUsd
from pointsman.dispatcher.v1 import decision_pb2

_TIERS = {decision_pb2.TIER_WEAK: "weak", decision_pb2.TIER_STRONG: "strong"}
_OTHERS = {decision_pb2.TIER_WEAK: "strong", decision_pb2.TIER_STRONG: "weak"}
_SOURCES = {
    decision_pb2.ALPHA_SOURCE_FIXED: "the tenant's fixed alpha",
    decision_pb2.ALPHA_SOURCE_SHARE: "the alpha of the tenant's share of strong calls",
    decision_pb2.ALPHA_SOURCE_PACED: "the alpha that pacing holds the tenant's share or limits with",
    decision_pb2.ALPHA_SOURCE_OVERRIDE: "the alpha that the request brought",
}
_FORCED = {
    decision_pb2.REASON_SCORER_UNAVAILABLE: "there was no win probability in time, and the tenant's on_scorer_failure "
    "says what happens then",
    decision_pb2.REASON_BUDGET_DEGRADED: "strong was chosen, but a limit had no room for it, and the tenant's "
    "on_exhausted is degrade",
    decision_pb2.REASON_LEDGER_UNAVAILABLE: "strong was chosen, but the ledger could not be reached, and the tenant's "
    "on_ledger_failure is weak",
    decision_pb2.REASON_FALLBACK: "the chosen model did not answer, and this one took its place",
    decision_pb2.REASON_STICKY_CONVERSATION: "the conversation keeps its tier by the tenant's sticky, so that no "
    "threshold took part",
    decision_pb2.REASON_TOOL_LOOP: "the request carried results of tool calls, and the model that made the calls goes "
    "on, so that no threshold took part",
    decision_pb2.REASON_OVERRIDE_WEAK: "operators had turned the tenant to weak, or its strong model off",
    decision_pb2.REASON_OVERRIDE_STRONG: "operators had turned the tenant to strong, or its weak model off",
}


def explain(record: decision_pb2.DecisionRecord) -> str:
    """Why a request went where it went, what it cost, and how it ended, each in a sentence."""
    sentences = [*_choice(record), *_cost(record.decision), *_end(record), *_shadows(record)]
    return " ".join(sentences)


def _choice(record: decision_pb2.DecisionRecord) -> list[str]:
    if not record.HasField("decision"):
        return ["The request ended before a model was chosen."]
    decision = record.decision
    tier = _TIERS.get(decision.tier, "unknown")
    return [f"It went {tier}, to {decision.model}: {_why(decision)}."]


def _why(decision: decision_pb2.Decision) -> str:
    if decision.reason in (decision_pb2.REASON_AT_OR_ABOVE_ALPHA, decision_pb2.REASON_BELOW_ALPHA):
        relation = "at or above" if decision.reason == decision_pb2.REASON_AT_OR_ABOVE_ALPHA else "below"
        source = _SOURCES.get(decision.alpha_source, "the tenant's alpha")
        alpha = f"{decision.alpha:.4f}" if decision.alpha <= 1 else "above 1, so that nothing goes strong"
        return (
            f"the probability that the strong model answers better was {decision.win_probability:.4f}, {relation} "
            f"{source}, {alpha}"
        )
    why = _FORCED.get(decision.reason) or decision_pb2.Reason.Name(decision.reason)
    return f"{why} ({decision.instead_of} was chosen first)" if decision.instead_of else why


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
        what = "Another dial" if shadow.kind == decision_pb2.SHADOW_KIND_DIAL else f"Scorer {shadow.scorer}"
        sentences.append(
            f"{what}, in its shadow, would have gone {_TIERS.get(shadow.tier, 'unknown')}: "
            f"{shadow.win_probability:.4f} against {shadow.alpha:.4f}."
        )
    return sentences


def _usd(amount: NanoUsd) -> str:
    return f"${Decimal(amount) / NANO_USD_PER_USD:f}"
