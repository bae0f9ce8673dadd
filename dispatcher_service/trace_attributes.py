"""What spans say: values of calls, attempts and predictions, under the names of attributes. Needs no OpenTelemetry.

Names are of GenAI's and RPC's semantic conventions where there are some, and `pointsman.…` for routing and cost. No
attribute holds text of a conversation, a credential or an error's words.
"""

from urllib.parse import urlsplit

from dispatcher_service.answer import FinishReason, Origin
from dispatcher_service.catalogue import Api, Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.outcome import Outcome, Prediction, Ranking, Verdict
from dispatcher_service.pricing import Usage

Attribute = str | bool | int | float | list[str]


def of_call(deployment: Deployment, chat: Chat, max_tokens: int | None) -> dict[str, Attribute]:
    """What is asked of a deployment, and where it is."""
    address = urlsplit(deployment.base_url)
    found: dict[str, Attribute | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai" if deployment.api is Api.AZURE else "openai",
        "gen_ai.request.model": deployment.upstream_model,
        "gen_ai.request.choice.count": chat.n,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.request.temperature": chat.temperature,
        "gen_ai.request.top_p": chat.top_p,
        "gen_ai.request.seed": chat.seed,
        "gen_ai.request.frequency_penalty": chat.frequency_penalty,
        "gen_ai.request.presence_penalty": chat.presence_penalty,
        "server.address": address.hostname or "",
        "server.port": address.port or (443 if address.scheme == "https" else 80),
        "pointsman.model": deployment.model,
        "pointsman.deployment": deployment.name,
    }
    return {key: value for key, value in found.items() if value is not None}


def of_answer(reasons: list[FinishReason], usage: Usage | None, origin: Origin) -> dict[str, Attribute]:
    """How a call of a deployment ended; `usage` is `None` where it reported none."""
    found: dict[str, Attribute] = {"gen_ai.response.finish_reasons": [reason.value for reason in reasons]}
    if origin.completion_id:
        found["gen_ai.response.id"] = origin.completion_id
    if origin.model:
        found["gen_ai.response.model"] = origin.model
    return found | _usage(usage)


def _usage(usage: Usage | None) -> dict[str, Attribute]:
    """GenAI's names count cached tokens as input too, and reasoning as output too; our classes are disjoint."""
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens + usage.cached_input_tokens + usage.cache_write_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens + usage.reasoning_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def of_prediction(prediction: Prediction) -> dict[str, Attribute]:
    """What the scorer said of a conversation."""
    return {
        "pointsman.win_probability": prediction.win_probability,
        "pointsman.scorer": prediction.scorer,
        "pointsman.scorer_version": prediction.scorer_version,
        "pointsman.pair_mismatch": prediction.pair_mismatch,
    }


def of_verdict(verdict: Verdict) -> dict[str, Attribute]:
    """What the scorer said of an answer."""
    return {
        "pointsman.acceptance_probability": verdict.acceptance,
        "pointsman.scorer": verdict.scorer,
        "pointsman.scorer_version": verdict.scorer_version,
    }


def of_ranking(ranking: Ranking) -> dict[str, Attribute]:
    """Who compared answers."""
    return {"pointsman.scorer": ranking.scorer, "pointsman.scorer_version": ranking.scorer_version}


def of_outcome(outcome: Outcome) -> dict[str, Attribute]:
    """What became of a request; there is no choice where it was refused before, and no bill where it was a preview."""
    request, choice, bill = outcome.request, outcome.choice, outcome.bill
    found: dict[str, Attribute] = {
        "pointsman.tenant_id": request.tenant_id,
        "pointsman.request_id": request.request_id,
        "pointsman.in_tool_loop": request.chat.in_tool_loop,
    }
    if request.conversation_id:
        found["gen_ai.conversation.id"] = request.conversation_id
    if outcome.error_reason:
        found["pointsman.error_reason"] = outcome.error_reason
    if choice is not None:
        found["pointsman.tier"] = choice.decision.tier.value
        found["pointsman.model"] = choice.model
        found["pointsman.reason"] = choice.decision.reason.value
        found["pointsman.strategy"] = choice.strategy.value
        if choice.decision.alpha is not None:
            found["pointsman.alpha"] = choice.decision.alpha
        if choice.alpha_source is not None:
            found["pointsman.alpha_source"] = choice.alpha_source.value
        if choice.prediction is not None:
            found |= of_prediction(choice.prediction)
    if bill is not None:
        found["pointsman.cost_nano_usd"] = bill.cost
        found["pointsman.other_tier_cost_nano_usd"] = bill.other_tier_cost
        found["pointsman.usage_source"] = bill.usage.source.value
        found |= _usage(bill.usage)
    return found
