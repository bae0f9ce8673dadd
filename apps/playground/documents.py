"""What the page is told: the client's values as JSON documents, and everything that is said to people as sentences."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import grpc

from pointsman.client import (
    AlphaSource,
    Budget,
    Candidate,
    CostSource,
    Decision,
    LeftOut,
    PointsmanCallError,
    Policy,
    Reason,
    Stage,
    StageResult,
    Tier,
)

_NANO = 1_000_000_000

_ALPHAS: Mapping[AlphaSource, str] = {
    AlphaSource.FIXED: "the tenant's fixed α",
    AlphaSource.SHARE: "the α of the tenant's share",
    AlphaSource.PACED: "the α that pacing holds the tenant's targets with",
    AlphaSource.OVERRIDE: "your α",
}
_RELATIONS: Mapping[Reason, str] = {Reason.AT_OR_ABOVE_ALPHA: "at or above", Reason.BELOW_ALPHA: "below"}
_REASONS: Mapping[Reason, str] = {
    Reason.SCORER_UNAVAILABLE: "there was no win probability in time",
    Reason.BUDGET_DEGRADED: "strong was chosen, but the budget has no room for it",
    Reason.LEDGER_UNAVAILABLE: "strong was chosen, but the ledger cannot be reached",
    Reason.FALLBACK: "the chosen model did not answer",
    Reason.STICKY_CONVERSATION: "the conversation keeps its model",
    Reason.TOOL_LOOP: "a model waits for the results of its own tool calls",
    Reason.OVERRIDE_WEAK: "operators have turned the tenant to weak",
    Reason.OVERRIDE_STRONG: "operators have turned the tenant to strong",
    Reason.ONLY_FIT: "no other model of the tenant can take this request",
    Reason.BEST_UTILITY: "its quality less its cost is best",
    Reason.CASCADE: "it is asked first, and its answer will be checked",
    Reason.ACCEPTED: "its answer was accepted",
    Reason.LAST_STAGE: "no cheaper model's answer was accepted",
    Reason.ANSWER_AT_HAND: "no answer was accepted, and no further one could be had",
    Reason.ENSEMBLE: "several models are asked at once",
    Reason.BEST_RANKED: "its answer ranked first",
    Reason.UNRANKED: "it is the strongest that answered, since the answers could not be compared",
    Reason.FUSED: "it made one answer of the best",
}
_RESULTS: Mapping[StageResult, str] = {
    StageResult.ACCEPTED: "accepted",
    StageResult.REJECTED: "not accepted",
    StageResult.UNCHECKED: "not checked",
    StageResult.NO_SCORE: "no score in time",
    StageResult.FAILED: "did not answer",
    StageResult.NO_MONEY: "not asked, for want of money",
    StageResult.NO_TIME: "not asked, for want of time",
    StageResult.RANKED: "ranked",
    StageResult.CANCELLED: "cancelled",
    StageResult.FUSED: "made one answer of the best",
}
_LEFT_OUT: Mapping[LeftOut, str] = {
    LeftOut.MODALITY: "cannot take such parts",
    LeftOut.CONTEXT_WINDOW: "its context window is too small",
    LeftOut.TOOLS: "takes no tools",
    LeftOut.TURNED_OFF: "operators have turned it off",
    LeftOut.STICKY_CONVERSATION: "the conversation has had better",
    LeftOut.NOT_SCORED: "the scorer does not know it",
}


def decision(value: Decision) -> dict[str, Any]:
    """A decision. Costs are integer nano-USD, and `null` while, or where, they are not known."""
    priced = value.cost_source in (CostSource.REPORTED, CostSource.ESTIMATED)
    weak_costs = {Tier.WEAK: value.cost_nano_usd, Tier.STRONG: value.other_tier_cost_nano_usd}
    return {
        "tier": value.tier.value,
        "model": value.model,
        "why": why(value),
        "alpha": value.alpha,
        "alpha_source": value.alpha_source.value,
        "win_probability": value.win_probability,
        "strong_until": strong_until(value),
        "pair_mismatch": value.pair_mismatch,
        "cost": value.cost_nano_usd if priced else None,
        "strong_cost": value.all_strong_cost_nano_usd if priced else None,
        "weak_cost": weak_costs.get(value.tier) if priced else None,
        "cost_source": value.cost_source.value,
        "candidates": [_candidate(each) for each in value.candidates],
        "stages": [_stage(each) for each in value.stages],
    }


def strong_until(value: Decision) -> float | None:
    """The highest α at which the strongest model answers, since it beats every cheaper one; `None` if nobody knows."""
    compared = [each.beaten_by_strongest for each in value.candidates if each.beaten_by_strongest is not None]
    # Candidates are in the order of their price, so that the last one is the strongest itself.
    return min(compared[:-1], default=value.win_probability)


def why(value: Decision) -> str:
    """Why the model was chosen, as half a sentence."""
    relation = _RELATIONS.get(value.reason)
    if relation is not None and value.alpha is not None and value.win_probability is not None:
        alpha = f"{value.alpha:.3f}" if value.alpha <= 1 else "never strong"
        source = _ALPHAS.get(value.alpha_source, "α")
        reason = f"the win probability {value.win_probability:.3f} is {relation} {source}, {alpha}"
    else:
        reason = _REASONS.get(value.reason) or value.reason.value.replace("_", " ")
    return f"{reason} ({value.instead_of} was chosen first)" if value.instead_of else reason


def _candidate(value: Candidate) -> dict[str, str]:
    if value.left_out is not None:
        return {
            "model": value.model,
            "words": f"left out: {_LEFT_OUT.get(value.left_out, value.left_out.value.replace('_', ' '))}",
        }
    if value.beaten_by_strongest is None:
        return {"model": value.model, "words": "not compared"}
    return {"model": value.model, "words": f"the strongest beats it with {value.beaten_by_strongest:.3f}"}


def _stage(value: Stage) -> dict[str, Any]:
    words = _RESULTS.get(value.result, value.result.value)
    if value.acceptance_probability is not None and value.threshold is not None:
        words += f" (acceptance {value.acceptance_probability:.3f}, threshold {value.threshold:.3f})"
    if value.win_rate is not None:
        words += f" (win rate {value.win_rate:.3f})"
    return {"model": value.model, "given": value.given, "words": words, "cost": value.cost_nano_usd}


def budget(value: Budget) -> list[dict[str, str | None]]:
    """The windows of an account. Amounts are exact US dollars, as text; times are ISO 8601."""
    return [
        {
            "period": window.period,
            "ends": window.end.isoformat(),
            "spent": f"{window.spent_usd:f}",
            "reserved": f"{window.reserved_usd:f}",
            "limit": None if window.limit_usd is None else f"{window.limit_usd:f}",
            "left": None if window.left_usd is None else f"{window.left_usd:f}",
        }
        for window in value.windows
    ]


def policy(value: Policy) -> dict[str, Any]:
    """The parts of a policy that the page shows or obeys."""
    values = {key: each.value for key, each in value.values.items()}
    return {
        "tenant": value.tenant_id,
        "strong_call_share": values.get("strong_call_share"),
        "alpha": values.get("alpha"),
        "may_override_alpha": bool(values.get("allow_alpha_override")),
    }


def failure(error: PointsmanCallError, *, address: str) -> str:
    """What went wrong and what helps, in a sentence or two; `address` is the dispatcher's."""
    said = error.message.rstrip(".")
    if not error.reason:
        # gRPC's own words: the dispatcher said nothing.
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"The dispatcher at {address} did not answer in time. Try again."
        return f"The dispatcher at {address} cannot be reached. Check that it runs there, then try again."
    match error.reason:
        case "BUDGET_EXHAUSTED":
            sentence = f"The budget has no room for this: {said}."
        case "RATE_LIMITED" | "OVERLOADED":
            sentence = f"Too many requests: {said}."
        case "UNAUTHENTICATED":
            sentence = (
                f"The dispatcher at {address} does not know this tenant or its credential. Start the page with another "
                "--tenant, or with POINTSMAN_CREDENTIAL set."
            )
        case "FORBIDDEN" if said.startswith("alpha:"):
            sentence = (
                "This tenant's policy does not allow an α of your own. Leave α to the tenant, or set "
                "allow_alpha_override = true in its policy."
            )
        case reason if reason.startswith("UPSTREAM"):
            sentence = f"The model did not answer: {said}."
        case _:
            sentence = f"The dispatcher refused this: {said}."
    if error.cost_nano_usd:
        sentence += f" It cost ${Decimal(error.cost_nano_usd) / _NANO:f} all the same."
    return sentence
