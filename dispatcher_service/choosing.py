"""Who decides: the caller, the scorer against the tenant's alpha, or the policy for when there is no prediction."""

from collections.abc import Callable

from dispatcher_service import routing, stickiness
from dispatcher_service.catalogue import Catalogue, FixedAlpha, OnScorerFailure, TenantPolicy
from dispatcher_service.chat import Chat, Request
from dispatcher_service.errors import Forbidden, InvalidRequest, ScorerUnavailable, Unauthenticated
from dispatcher_service.outcome import Choice, Prediction
from dispatcher_service.ports import Scorer
from dispatcher_service.progress import Progress
from dispatcher_service.routing import AlphaSource, Decision, ModelPair, Reason, Tier


class Chooser:
    """Chooses a tier for a request. Calls the scorer and nothing else."""

    def __init__(self, *, catalogue: Catalogue, scorer: Scorer, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._catalogue = catalogue
        self._scorer = scorer
        self._clock = clock

    async def choose(self, request: Request, progress: Progress | None) -> Choice:
        """Decide. Without a `progress` (`Route`) it leaves no trace.

        Raises:
            Unauthenticated: there is no such tenant.
            Forbidden: the tenant's policy does not allow what is asked.
            InvalidRequest: a model of the tenant cannot take the request.
            ScorerUnavailable: there is no prediction, and the tenant's policy is to reject.
        """
        policy = self._catalogue.tenants.get(request.tenant_id)
        if policy is None:
            raise Unauthenticated
        if request.alpha is not None and not policy.allow_alpha_override:
            raise Forbidden("alpha: this tenant's policy allows no override; leave it unset")
        past = stickiness.forced(
            request.held,
            in_tool_loop=request.chat.in_tool_loop,
            sticky=policy.sticky,
            pair=policy.pair,
            models=self._catalogue.deployments,
        )
        if past is not None:
            decision, pair = past
            self._check_fit(policy, pair, request.chat)
            return Choice(decision=decision, pair=pair, alpha_source=None, prediction=None)
        self._check_fit(policy, policy.pair, request.chat)
        timeout = self._catalogue.scorer.timeout
        if request.timeout is not None:
            timeout = min(timeout, request.timeout)
        started = self._clock()
        prediction = await self._scorer.score(request.chat, pair=policy.pair, scorer=policy.scorer, timeout=timeout)
        if progress is not None:
            progress.scorer_seconds = self._clock() - started
        if prediction is None:
            return Choice(decision=_without_prediction(policy), pair=policy.pair, alpha_source=None, prediction=None)
        alpha, source = _alpha(policy, request, prediction)
        return Choice(
            decision=routing.decide(prediction.win_probability, alpha=alpha),
            pair=policy.pair,
            alpha_source=source,
            prediction=prediction,
        )

    def _check_fit(self, policy: TenantPolicy, pair: ModelPair, chat: Chat) -> None:
        """Either model may be chosen, so that both must take what the request holds."""
        for key in chat.extra_body:
            if key not in policy.extra_body_keys:
                raise InvalidRequest(
                    "chat.extra_body_json", f"this tenant's extra_body_keys do not list {key[:64]!r}: remove it"
                )
        for path, kind in chat.other_parts():
            for model in (pair.strong, pair.weak):
                if kind not in self._catalogue.models[model].part_tokens:
                    raise InvalidRequest(
                        path, f"model {model} has no part_tokens.{kind.value}, so that its cost has no bound: send text"
                    )


def _alpha(policy: TenantPolicy, request: Request, prediction: Prediction) -> tuple[float, AlphaSource]:
    if request.alpha is not None:
        return request.alpha, AlphaSource.OVERRIDE
    if isinstance(policy.dial, FixedAlpha):
        return policy.dial.alpha, AlphaSource.FIXED
    return routing.alpha_for_share(prediction.quantiles, policy.dial.share), AlphaSource.SHARE


def _without_prediction(policy: TenantPolicy) -> Decision:
    if policy.on_scorer_failure is OnScorerFailure.REJECT:
        raise ScorerUnavailable
    tier = Tier.STRONG if policy.on_scorer_failure is OnScorerFailure.STRONG else Tier.WEAK
    return routing.forced(tier, Reason.SCORER_UNAVAILABLE)
