"""Which call of a request comes next: what `failover` says, of the route that the choice and the money leave."""

from collections.abc import Awaitable, Callable

from dispatcher_service import failover, overrides
from dispatcher_service.capability import Needs
from dispatcher_service.catalogue import Deployment, OnDisconnect
from dispatcher_service.errors import PointsmanError, UpstreamError, UpstreamTimeout
from dispatcher_service.failover import Failure, Route, Step
from dispatcher_service.progress import Asked
from dispatcher_service.routing import Reason

Sleep = Callable[[float], Awaitable[None]]


class Search:
    """The attempts to have one model answer so far."""

    def __init__(self, asked: Asked, *, sleep: Sleep, draw: Callable[[], float]) -> None:
        """`sleep` waits so many seconds; `draw` gives uniform numbers in [0, 1)."""
        self._asked = asked
        self._progress = asked.progress
        self._sleep = sleep
        self._draw = draw
        self._failures: list[Failure] = []
        self._step: Step | None = None
        self._choice = asked.choice
        self._route = self._plan()

    def unaffordable(self, step: Step, cheapest: Reason | None, error: PointsmanError) -> None:
        """There is no money for a step, or nobody knows. `cheapest` is why the cheapest model that can take the request
        is to go on alone with its fallbacks, if it is.

        Raises:
            PointsmanError: that error, unless there is another way: a stand-in for a model that failed is passed over,
                and if nothing else answers, the caller is told of that failure.
        """
        if cheapest is not None:
            # What failed before counts on, and the decision keeps what it was made from.
            rung = self._choice.fitting[0]
            if self._choice.decision.rung != rung:
                self._choice = self._choice.on_rung(rung, cheapest)
            self._route = tuple(leg for leg in self._plan() if leg.rung == rung)
        elif self._failures and step.leg.model != self._choice.model:
            self._route = tuple(leg for leg in self._route if leg is not step.leg)
        else:
            raise error

    def _plan(self) -> Route:
        progress = self._progress
        chat, catalogue = progress.request.chat, progress.catalogue
        return failover.route(
            rung=self._choice.decision.rung,
            ladder=self._choice.ladder,
            fitting=self._choice.fitting,
            models=catalogue.models,
            deployments=catalogue.deployments,
            fallback_to_other_tier=progress.policy.fallback_to_other_tier and not self._asked.stage,
            in_tool_loop=progress.in_tool_loop,
            fits=lambda model: Needs(chat).unfit(model) is None,
            off=self._off(),
            draw=self._draw,
        )

    def _off(self) -> frozenset[str]:
        """Models that must not be called."""
        progress, choice = self._progress, self._choice
        off = overrides.models_off(progress.policy.overrides, now=progress.received_at)
        off |= progress.policy.closed(progress.catalogue.models)
        if self._asked.stage:
            # The strategy asks those itself.
            off |= frozenset(choice.ladder.models) - {choice.ladder.models[choice.decision.rung]}
        return off

    async def next(self) -> Step:
        """The call to make now, after the wait that it needs.

        Raises:
            UpstreamError: nothing is left to try: what the last call of a deployment came to.
        """
        if self._progress.left:
            # Nobody waits for another attempt.
            raise self._error()
        step = failover.next_step(
            self._route,
            self._failures,
            now=self._progress.elapsed(),
            deadline=self._asked.deadline,
            policy=self._progress.catalogue.retries,
            draw=self._draw,
        )
        if step is None:
            raise self._error()
        if step.wait > 0:
            await self._sleep(step.wait)
        self._step = step
        self._asked.choice = self._choice.answered_by(step.leg.rung, step.leg.model)
        return step

    def failed(self, error: UpstreamError) -> None:
        """The deployment that `next` gave did not answer."""
        assert self._step is not None
        self._failures.append(Failure(self._step.deployment.name, error, self._progress.elapsed()))

    def _error(self) -> UpstreamError:
        """The last failure of a call: that a deployment was left alone says less than why."""
        errors = [failure.error for failure in self._failures]
        called = [error for error in errors if error.called]
        if called or errors:
            return (called or errors)[-1]
        # Not one call: the time was over before the first.
        name = self._route[0].deployments[0].name
        what = "the caller's deadline passed before the call"
        return UpstreamTimeout(name, what, may_be_billed=False, out_of_time=True)


def call_timeout(deployment: Deployment, asked: Asked) -> float:
    """The deployment's timeout, or what is left of the time if that is less.

    A model that drains has its drain time on top of the caller's deadline: then the caller goes away, and the answer is
    read on. A time that ends earlier is one that a strategy set, and nothing is read after it.
    """
    if asked.deadline is None:
        return deployment.timeout
    progress = asked.progress
    left = asked.deadline - progress.elapsed()
    if left <= 0:
        what = "the caller's deadline passed before the call"
        raise UpstreamTimeout(deployment.name, what, may_be_billed=False, out_of_time=True)
    model = progress.catalogue.models[deployment.model]
    drains = model.on_disconnect is OnDisconnect.DRAIN and asked.deadline == progress.request.timeout
    drain = model.drain_timeout if drains else 0.0
    return min(deployment.timeout, left + drain)
