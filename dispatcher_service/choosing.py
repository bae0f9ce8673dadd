"""Who decides: the caller, the scorer against the tenant's alpha, or the policy for when there is no prediction."""

from collections.abc import Callable

from dispatcher_service import overrides, routing, stickiness
from dispatcher_service.catalogue import Catalogue, FixedAlpha, OnScorerFailure, TenantPolicy
from dispatcher_service.chat import Chat, Request
from dispatcher_service.costing import Expectations
from dispatcher_service.errors import Forbidden, InvalidRequest, ModelsOff, ScorerUnavailable, Unauthenticated
from dispatcher_service.outcome import Choice, Prediction
from dispatcher_service.pacing_targets import Estimate, Reference
from dispatcher_service.ports import Pacer, Scorer
from dispatcher_service.pricing import NanoUsd
from dispatcher_service.progress import Paced, Progress
from dispatcher_service.routing import AlphaSource, Decision, ModelPair, Reason, Tier


class Chooser:
    """Chooses a tier for a request. Calls the scorer and moves the tenant's pace, and nothing else."""

    def __init__(self, *, scorer: Scorer, pacer: Pacer, expectations: Expectations, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._scorer = scorer
        self._pacer = pacer
        self._expectations = expectations
        self._clock = clock

    async def choose(self, progress: Progress, *, preview: bool = False) -> Choice:
        """Decide. A `preview` decides alike, and moves nothing.

        Raises:
            Unauthenticated: there is no such tenant.
            Forbidden: the tenant's policy does not allow what is asked.
            InvalidRequest: a model of the tenant cannot take the request.
            ModelsOff: operators have turned off the models that could answer.
            ScorerUnavailable: there is no prediction, and the tenant's policy is to reject.
        """
        request, catalogue = progress.request, progress.catalogue
        policy = catalogue.tenants.get(request.tenant_id)
        if policy is None:
            raise Unauthenticated
        if request.alpha is not None and not policy.allow_alpha_override:
            raise Forbidden("alpha: this tenant's policy allows no override; leave it unset")
        off = overrides.models_off(policy.overrides, now=progress.received_at)
        if request.chat.in_tool_loop and request.held is not None and request.held.model in off:
            raise ModelsOff(request.held.model)  # In a tool loop the model never changes.
        past = stickiness.forced(
            request.held,
            in_tool_loop=request.chat.in_tool_loop,
            sticky=policy.sticky,
            pair=policy.pair,
            models=catalogue.deployments.keys() - policy.closed(catalogue.models),
        )
        if policy.overrides and (past is None or past[0].reason is not Reason.TOOL_LOOP):
            override = overrides.forced(policy.overrides, policy.pair, now=progress.received_at)
            past = past if override is None else (override, policy.pair)
        pair = policy.pair if past is None else past[1]
        _check_fit(policy, pair, catalogue, request.chat)
        estimate = self._estimate(pair, progress)
        if past is not None:
            await self._forced(policy, past[0], estimate, preview=preview)
            return _chosen(progress, past[0], pair, estimate, source=None, prediction=None)
        timeout = catalogue.scorer.timeout
        if request.timeout is not None:
            timeout = min(timeout, request.timeout)
        started = self._clock()
        prediction = await self._scorer.score(
            request.chat, tenant_id=policy.tenant_id, pair=policy.pair, scorer=policy.scorer, timeout=timeout
        )
        progress.scorer_seconds = self._clock() - started
        decision, source = await self._decide(policy, request, prediction, estimate, preview=preview)
        return _chosen(progress, decision, pair, estimate, source=source, prediction=prediction)

    async def _decide(
        self,
        policy: TenantPolicy,
        request: Request,
        prediction: Prediction | None,
        estimate: Estimate,
        *,
        preview: bool,
    ) -> tuple[Decision, AlphaSource | None]:
        if prediction is None:
            decision, source = _without_prediction(policy), None
        elif request.alpha is not None:
            decision = routing.decide(prediction.win_probability, alpha=request.alpha)
            source = AlphaSource.OVERRIDE
        elif policy.pacing is None:
            alpha, source = _fixed_alpha(policy, prediction)
            return routing.decide(prediction.win_probability, alpha=alpha), source
        else:
            reference = Reference(prediction.scorer_version, prediction.quantiles)
            if preview:
                alpha = await self._pacer.alpha(policy, reference)
                return routing.decide(prediction.win_probability, alpha=alpha), AlphaSource.PACED
            decision = await self._pacer.decide(policy, reference, prediction.win_probability, estimate)
            return decision, AlphaSource.PACED
        await self._forced(policy, decision, estimate, preview=preview)
        return decision, source

    async def _forced(self, policy: TenantPolicy, decision: Decision, estimate: Estimate, *, preview: bool) -> None:
        if policy.pacing is not None and not preview:
            await self._pacer.forced(policy, strong=decision.tier is Tier.STRONG, estimate=estimate)

    def _estimate(self, pair: ModelPair, progress: Progress) -> Estimate:
        def cost(name: str) -> NanoUsd:
            model = progress.catalogue.models[name]
            return self._expectations.cost(model, model.price_at(progress.received_at), progress.request.chat)

        return Estimate(weak=cost(pair.weak), strong=cost(pair.strong))


def _chosen(
    progress: Progress,
    decision: Decision,
    pair: ModelPair,
    estimate: Estimate,
    *,
    source: AlphaSource | None,
    prediction: Prediction | None,
) -> Choice:
    if progress.policy.pacing is not None:
        progress.paced = Paced(decision.tier, estimate.strong if decision.tier is Tier.STRONG else estimate.weak)
    price = progress.catalogue.models[pair.of(decision.tier)].price_at(progress.received_at)
    return Choice(decision=decision, pair=pair, alpha_source=source, prediction=prediction, price_version=price.version)


def _check_fit(policy: TenantPolicy, pair: ModelPair, catalogue: Catalogue, chat: Chat) -> None:
    """Either model may be chosen, so that both must take what the request holds."""
    for key in chat.extra_body:
        if key not in policy.extra_body_keys:
            raise InvalidRequest(
                "chat.extra_body_json", f"this tenant's extra_body_keys do not list {key[:64]!r}: remove it"
            )
    for path, kind in chat.other_parts():
        for model in (pair.strong, pair.weak):
            if kind not in catalogue.models[model].part_tokens:
                raise InvalidRequest(
                    path, f"model {model} has no part_tokens.{kind.value}, so that its cost has no bound: send text"
                )


def _fixed_alpha(policy: TenantPolicy, prediction: Prediction) -> tuple[float, AlphaSource]:
    if isinstance(policy.dial, FixedAlpha):
        return policy.dial.alpha, AlphaSource.FIXED
    assert policy.dial is not None  # Without a dial there is a limit that is paced.
    return routing.alpha_for_share(prediction.quantiles, policy.dial.share), AlphaSource.SHARE


def _without_prediction(policy: TenantPolicy) -> Decision:
    if policy.on_scorer_failure is OnScorerFailure.REJECT:
        raise ScorerUnavailable
    tier = Tier.STRONG if policy.on_scorer_failure is OnScorerFailure.STRONG else Tier.WEAK
    return routing.forced(tier, Reason.SCORER_UNAVAILABLE)
