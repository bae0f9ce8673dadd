"""Who decides: the caller, the scorer against the tenant's alpha, or the policy for when there is no prediction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dispatcher_service import comparing, contenders, routing
from dispatcher_service.capability import Needs
from dispatcher_service.catalogue import FixedAlpha, OnScorerFailure, TenantPolicy
from dispatcher_service.chat import Chat
from dispatcher_service.contenders import Contenders
from dispatcher_service.costing import Expectations
from dispatcher_service.errors import Forbidden, InvalidRequest, ScorerUnavailable, Unauthenticated
from dispatcher_service.outcome import Choice, Prediction
from dispatcher_service.pacing_targets import Estimate, Reference
from dispatcher_service.ports import Pacer, Scorer
from dispatcher_service.progress import Paced, Progress
from dispatcher_service.routing import (
    AlphaSource,
    Candidates,
    Decision,
    LeftOut,
    Objective,
    Reason,
)


@dataclass(frozen=True, slots=True)
class Opening:
    """A request that several models may be asked to answer: `rungs`, ascending, two or more, from the choice's on."""

    choice: Choice
    rungs: tuple[int, ...]


class Chooser:
    """Chooses a model for a request. Calls the scorer and moves the tenant's pace, and nothing else."""

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
            InvalidRequest: no model of the tenant can take the request.
            ModelsOff: operators have turned off the models that could answer.
            ScorerUnavailable: there is no prediction, and the tenant's policy is to reject.
        """
        field, estimate = self._look(progress)
        if field.forced is not None:
            return await self._forced(progress, field, field.forced, estimate, preview=preview)
        prediction = await self._predict(progress, field)
        return await self._route(progress, field, estimate, prediction, preview=preview)

    async def open(
        self, progress: Progress, reason: Reason, *, predict: bool, preview: bool = False
    ) -> Choice | Opening:
        """For a strategy that asks several models: those that it may ask, or a choice where there is nothing to ask.

        A tool loop, a sticky conversation, an override or a request that only one model can take makes a choice, and so
        does an alpha that the request brings: it is routed by that. Raises as `choose` does.

        Args:
            progress: the request.
            reason: of the choice that an opening begins with.
            predict: whether a prediction is wanted; if there is none, the opening says so.
            preview: as for `choose`.
        """
        field, estimate = self._look(progress)
        if field.forced is not None:
            return await self._forced(progress, field, field.forced, estimate, preview=preview)
        routed = progress.request.alpha is not None
        prediction = await self._predict(progress, field) if predict or routed else None
        if routed:
            return await self._route(progress, field, estimate, prediction, preview=preview)
        decision = routing.forced(field.ladder, field.rungs[0], reason)
        if prediction is not None:
            decision = replace(decision, win_probability=prediction.win_probability)
        choice = _chosen(
            progress, field, decision, estimate, source=None, prediction=prediction, candidates=None, left_out=None
        )
        return Opening(choice, field.rungs)

    def _look(self, progress: Progress) -> tuple[Contenders, Estimate]:
        """What may answer, once it is certain that something may."""
        request = progress.request
        policy = progress.catalogue.tenants.get(request.tenant_id)
        if policy is None:
            raise Unauthenticated
        if request.alpha is not None and not policy.allow_alpha_override:
            raise Forbidden("alpha: this tenant's policy allows no override; leave it unset")
        _check_extra_body(policy, request.chat)
        needs = Needs(request.chat)
        field = contenders.find(policy, progress, needs)
        prices = field.models.prices_at(progress.received_at)
        return field, Estimate(self._expectations.costs(field.models.models, prices, needs.prompt))

    async def _predict(self, progress: Progress, field: Contenders) -> Prediction | None:
        request, policy = progress.request, progress.policy
        timeout = progress.catalogue.scorer.timeout
        if request.timeout is not None:
            timeout = min(timeout, request.timeout)
        started = self._clock()
        prediction = await self._scorer.score(
            request.chat,
            tenant_id=policy.tenant_id,
            pair=field.ladder.ends,
            every_model=field.ladder.top > 1,
            scorer=policy.scorer,
            timeout=timeout,
        )
        progress.scorer_seconds = self._clock() - started
        return prediction

    async def _route(
        self,
        progress: Progress,
        field: Contenders,
        estimate: Estimate,
        prediction: Prediction | None,
        *,
        preview: bool,
    ) -> Choice:
        """The choice that the prediction makes, or what the policy says without one."""
        policy = progress.policy
        if prediction is None:
            decision = _without_prediction(policy, field)
            return await self._forced(progress, field, decision, estimate, preview=preview)
        candidates, not_compared = comparing.compare(prediction, field.ladder, field.rungs, policy.objective, estimate)
        left_out = {**field.left_out, **not_compared} if not_compared else field.left_out
        if candidates is None:
            decision = _without_prediction(policy, field)
            return await self._forced(
                progress, field, decision, estimate, preview=preview, prediction=prediction, left_out=left_out
            )
        decision, source = await self._decide(progress, prediction, candidates, estimate, preview=preview)
        return _chosen(
            progress,
            field,
            decision,
            estimate,
            source=source,
            prediction=prediction,
            candidates=candidates,
            left_out=left_out,
        )

    async def _decide(
        self,
        progress: Progress,
        prediction: Prediction,
        candidates: Candidates,
        estimate: Estimate,
        *,
        preview: bool,
    ) -> tuple[Decision, AlphaSource]:
        policy, asked = progress.policy, progress.request.alpha
        if asked is not None:
            decision = routing.decide_among(candidates, alpha=asked)
            await self._move(policy, decision, estimate, preview=preview)
            return decision, AlphaSource.OVERRIDE
        if policy.pacing is None:
            alpha, source = _fixed_alpha(policy, prediction)
            return routing.decide_among(candidates, alpha=alpha), source
        reference = _reference(prediction, policy.objective)
        if preview:
            alpha = await self._pacer.alpha(policy, reference)
            return routing.decide_among(candidates, alpha=alpha), AlphaSource.PACED
        return await self._pacer.decide(policy, reference, candidates, estimate), AlphaSource.PACED

    async def _forced(
        self,
        progress: Progress,
        field: Contenders,
        decision: Decision,
        estimate: Estimate,
        *,
        preview: bool,
        prediction: Prediction | None = None,
        left_out: Mapping[int, LeftOut] | None = None,
    ) -> Choice:
        await self._move(progress.policy, decision, estimate, preview=preview)
        return _chosen(
            progress, field, decision, estimate, source=None, prediction=prediction, candidates=None, left_out=left_out
        )

    async def _move(self, policy: TenantPolicy, decision: Decision, estimate: Estimate, *, preview: bool) -> None:
        """Tell pacing of a decision that it did not make."""
        if policy.pacing is not None and not preview:
            await self._pacer.forced(policy, rung=decision.rung, estimate=estimate)


def _chosen(
    progress: Progress,
    field: Contenders,
    decision: Decision,
    estimate: Estimate,
    *,
    source: AlphaSource | None,
    prediction: Prediction | None,
    candidates: Candidates | None,
    left_out: Mapping[int, LeftOut] | None,
) -> Choice:
    if progress.policy.pacing is not None:
        progress.paced = Paced(decision.rung, estimate)
    price = field.models.prices_at(progress.received_at)[decision.rung]
    return Choice(
        decision=decision,
        ladder=field.ladder,
        fitting=field.fitting,
        estimate=estimate,
        alpha_source=source,
        prediction=prediction,
        candidates=candidates,
        left_out=field.left_out if left_out is None else left_out,
        price_version=price.version,
        strategy=progress.policy.strategy,
    )


def _check_extra_body(policy: TenantPolicy, chat: Chat) -> None:
    for key in chat.extra_body:
        if key not in policy.extra_body_keys:
            raise InvalidRequest(
                "chat.extra_body_json", f"this tenant's extra_body_keys do not list {key[:64]!r}: remove it"
            )


def _reference(prediction: Prediction, objective: Objective) -> Reference:
    """What the tenant's distribution is of: under another objective requests are ranked by something else."""
    version = prediction.scorer_version
    if objective is not Objective.THRESHOLD:
        version = f"{version} {objective.value}"
    return Reference(version, prediction.quantiles)


def _fixed_alpha(policy: TenantPolicy, prediction: Prediction) -> tuple[float, AlphaSource]:
    if isinstance(policy.dial, FixedAlpha):
        return policy.dial.alpha, AlphaSource.FIXED
    assert policy.dial is not None  # Without a dial there is a limit that is paced.
    return routing.alpha_for_share(prediction.quantiles, policy.dial.share), AlphaSource.SHARE


def _without_prediction(policy: TenantPolicy, field: Contenders) -> Decision:
    if policy.on_scorer_failure is OnScorerFailure.REJECT:
        raise ScorerUnavailable
    strong = policy.on_scorer_failure is OnScorerFailure.STRONG
    return routing.forced(field.ladder, field.rungs[-1 if strong else 0], Reason.SCORER_UNAVAILABLE)
