"""Calling a model: which deployments are tried, one after the other, until one answers."""

import contextlib
from collections.abc import AsyncGenerator

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Catalogue, Deployment
from dispatcher_service.chat import Request
from dispatcher_service.errors import UpstreamTimeout
from dispatcher_service.outcome import Choice
from dispatcher_service.ports import Upstream
from dispatcher_service.progress import Progress


class Attempts:
    """Calls the model of a choice. What each attempt came to is told to the request's `Progress`."""

    def __init__(self, *, catalogue: Catalogue, upstream: Upstream) -> None:
        self._catalogue = catalogue
        self._upstream = upstream

    async def complete(self, choice: Choice, progress: Progress) -> Completion:
        """The whole answer of the first deployment that gives one.

        Raises:
            UpstreamError: none did.
        """
        deployment, timeout = self._first(choice, progress)
        with progress.calling_upstream():
            completion = await self._upstream.complete(deployment, progress.request.chat, timeout=timeout)
        progress.received(sum(choice.text_bytes for choice in completion.choices))
        return completion

    async def stream(self, choice: Choice, progress: Progress) -> AsyncGenerator[Delta | End, None]:
        """The answer as it is written: deltas, then exactly one end.

        Raises:
            UpstreamError: no deployment answered, or one broke off after its first delta.
        """
        deployment, timeout = self._first(choice, progress)
        events = self._upstream.stream(deployment, progress.request.chat, timeout=timeout)
        async with contextlib.aclosing(events):
            while True:
                with progress.calling_upstream():
                    event = await anext(events)
                if isinstance(event, Delta):
                    progress.received(event.text_bytes)
                yield event
                if isinstance(event, End):
                    return

    def _first(self, choice: Choice, progress: Progress) -> tuple[Deployment, float]:
        deployment = progress.deployment = self._catalogue.deployments[choice.model][0]
        return deployment, _call_timeout(deployment, progress.request, progress.elapsed())


def _call_timeout(deployment: Deployment, request: Request, elapsed: float) -> float:
    """The deployment's timeout, or what is left of the caller's deadline if that is less."""
    if request.timeout is None:
        return deployment.timeout
    left = request.timeout - elapsed
    if left <= 0:
        raise UpstreamTimeout(deployment.name, "the caller's deadline passed before the call", may_be_billed=False)
    return min(deployment.timeout, left)
