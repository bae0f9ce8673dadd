"""Calling a model: which deployments are tried, one after the other, until one answers.

What comes next is `failover`'s to say, whether a deployment may be called `gates`'. A stream fails over as long as it
has brought nothing; once the caller has seen a piece of an answer, another model's would not continue it.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from dispatcher_service import failover
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Catalogue, Deployment, RetryPolicy
from dispatcher_service.errors import UpstreamError, UpstreamTimeout
from dispatcher_service.failover import Failure, Route, Step
from dispatcher_service.gates import Gates
from dispatcher_service.outcome import Choice
from dispatcher_service.ports import Upstream
from dispatcher_service.progress import Progress

Sleep = Callable[[float], Awaitable[None]]


class Attempts:
    """Calls models. What each attempt came to is told to the request's `Progress`."""

    def __init__(
        self, *, catalogue: Catalogue, upstream: Upstream, gates: Gates, sleep: Sleep, draw: Callable[[], float]
    ) -> None:
        """`sleep` waits so many seconds; `draw` gives uniform numbers in [0, 1)."""
        self._catalogue = catalogue
        self._upstream = upstream
        self._gates = gates
        self._sleep = sleep
        self._draw = draw

    async def complete(self, choice: Choice, progress: Progress) -> Completion:
        """The whole answer of the first deployment that gives one. `progress.choice` says which model's it is.

        Raises:
            UpstreamError: none did.
        """
        search = self._search(choice, progress)
        while True:
            deployment = await search.next()
            try:
                with self._gates.calling(deployment):
                    timeout = _call_timeout(deployment, progress)
                    with progress.calling_upstream():
                        completion = await self._upstream.complete(deployment, progress.request.chat, timeout=timeout)
            except UpstreamError as error:
                search.failed(error)
            else:
                progress.received(sum(choice.text_bytes for choice in completion.choices))
                return completion

    async def stream(self, choice: Choice, progress: Progress) -> AsyncGenerator[Delta | End, None]:
        """The answer as it is written: deltas, then exactly one end.

        Raises:
            UpstreamError: no deployment answered, or one broke off after its first delta.
        """
        search = self._search(choice, progress)
        while True:
            deployment = await search.next()
            begun = False
            try:
                with self._gates.calling(deployment):
                    timeout = _call_timeout(deployment, progress)
                    events = self._upstream.stream(deployment, progress.request.chat, timeout=timeout)
                    async with contextlib.aclosing(events):
                        while True:
                            with progress.calling_upstream():
                                event = await anext(events)
                            begun = True
                            if isinstance(event, Delta):
                                progress.received(event.text_bytes)
                            yield event
                            if isinstance(event, End):
                                return
            except UpstreamError as error:
                if begun:
                    raise
                search.failed(error)

    def _search(self, choice: Choice, progress: Progress) -> "_Search":
        chat = progress.request.chat
        policy = self._catalogue.tenants[progress.request.tenant_id]
        route = failover.route(
            tier=choice.decision.tier,
            pair=choice.pair,
            models=self._catalogue.models,
            deployments=self._catalogue.deployments,
            fallback_to_other_tier=policy.fallback_to_other_tier,
            in_tool_loop=chat.in_tool_loop,
            kinds=frozenset(kind for _, kind in chat.other_parts()),
            draw=self._draw,
        )
        return _Search(
            route=route,
            choice=choice,
            progress=progress,
            policy=self._catalogue.retries,
            sleep=self._sleep,
            draw=self._draw,
        )


class _Search:
    """The attempts of one request so far."""

    def __init__(
        self,
        *,
        route: Route,
        choice: Choice,
        progress: Progress,
        policy: RetryPolicy,
        sleep: Sleep,
        draw: Callable[[], float],
    ) -> None:
        self._route = route
        self._choice = choice
        self._progress = progress
        self._policy = policy
        self._sleep = sleep
        self._draw = draw
        self._failures: list[Failure] = []
        self._step: Step | None = None

    async def next(self) -> Deployment:
        """The deployment to call now, after the wait that it needs.

        Raises:
            UpstreamError: nothing is left to try: what the last call of a deployment came to.
        """
        step = failover.next_step(
            self._route,
            self._failures,
            now=self._progress.elapsed(),
            deadline=self._progress.request.timeout,
            policy=self._policy,
            draw=self._draw,
        )
        if step is None:
            raise self._error()
        if step.wait > 0:
            await self._sleep(step.wait)
        self._step = step
        self._progress.deployment = step.deployment
        self._progress.choice = self._choice.answered_by(step.leg.tier, step.leg.model)
        return step.deployment

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


def _call_timeout(deployment: Deployment, progress: Progress) -> float:
    """The deployment's timeout, or what is left of the caller's deadline if that is less."""
    if progress.request.timeout is None:
        return deployment.timeout
    left = progress.request.timeout - progress.elapsed()
    if left <= 0:
        what = "the caller's deadline passed before the call"
        raise UpstreamTimeout(deployment.name, what, may_be_billed=False, out_of_time=True)
    return min(deployment.timeout, left)
