"""The use case: one request, from a tenant's question to an answer with its decision and its cost."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.attempts import Attempts
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.chat import Request
from dispatcher_service.choosing import Chooser
from dispatcher_service.outcome import Bill, Choice, Record
from dispatcher_service.ports import Scorer, Upstream
from dispatcher_service.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `complete` returns."""

    choice: Choice
    completion: Completion
    bill: Bill


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a stream."""

    choice: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Last event of a stream."""

    choice: Choice
    end: End
    bill: Bill


class Dispatcher:
    """Answers requests of tenants."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        scorer: Scorer,
        upstream: Upstream,
        record: Record,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic seconds, `wall_clock` seconds since the epoch."""
        self._catalogue = catalogue
        self._chooser = Chooser(catalogue=catalogue, scorer=scorer, clock=clock)
        self._attempts = Attempts(catalogue=catalogue, upstream=upstream)
        self._record = record
        self._clock = clock
        self._wall_clock = wall_clock

    async def route(self, request: Request) -> Choice:
        """The decision alone: calls no upstream, spends nothing, changes no state, records nothing."""
        return await self._chooser.choose(request, None)

    async def complete(self, request: Request) -> Answer:
        """The whole answer.

        Raises:
            PointsmanError: see errors.py. What was spent until then is in the record.
        """
        with self._progress(request, "Complete") as progress:
            choice = progress.choice = await self._chooser.choose(request, progress)
            completion = await self._attempts.complete(choice, progress)
            finish_reasons = tuple(choice.finish_reason for choice in completion.choices)
            bill = progress.settle(finish_reasons, completion.usage)
            return Answer(choice=choice, completion=completion, bill=bill)

    async def stream(self, request: Request) -> AsyncGenerator[Started | Delta | Finished, None]:
        """The answer as it is written: `Started`, deltas, `Finished`.

        When the consumer goes away or the upstream breaks off, the upstream call is closed, and what it delivered is
        billed at the documented estimate.

        Raises:
            PointsmanError: see errors.py.
        """
        with self._progress(request, "StreamComplete") as progress:
            choice = progress.choice = await self._chooser.choose(request, progress)
            yield Started(choice)
            async with contextlib.aclosing(self._attempts.stream(choice, progress)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        yield event
                    else:
                        bill = progress.settle(event.finish_reasons, event.usage)
                        yield Finished(choice=choice, end=event, bill=bill)

    def _progress(self, request: Request, method: str) -> Progress:
        return Progress(
            request,
            method,
            models=self._catalogue.models,
            record=self._record,
            clock=self._clock,
            wall_clock=self._wall_clock,
        )
