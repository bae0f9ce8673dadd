"""The use case: one request, from a tenant's question to an answer with its decision and its cost."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from dispatcher_service.answer import Completion, Delta, End, Idempotency
from dispatcher_service.attempts import Attempts
from dispatcher_service.booking import Book
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.chat import Request
from dispatcher_service.choosing import Chooser
from dispatcher_service.costing import Expectations
from dispatcher_service.drains import Drains
from dispatcher_service.errors import PointsmanError
from dispatcher_service.gates import Gates
from dispatcher_service.outcome import Bill, Choice, Record
from dispatcher_service.ports import Judge, Pacer, Scorer, Upstream
from dispatcher_service.progress import Progress
from dispatcher_service.search import Sleep
from dispatcher_service.strategies import Replaced, Strategy
from dispatcher_service.strategies.cascade import Cascade
from dispatcher_service.strategies.ensemble import Ensemble
from dispatcher_service.strategies.route import Route
from dispatcher_service.strategy_policies import StrategyName


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `complete` returns."""

    choice: Choice
    completion: Completion
    bill: Bill
    idempotency: Idempotency = Idempotency.OFF


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a stream."""

    choice: Choice
    idempotency: Idempotency = Idempotency.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Last event of a stream."""

    choice: Choice
    end: End
    bill: Bill
    idempotency: Idempotency = Idempotency.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Last event of a stream whose answer broke off. The error is raised next; `bill` is `None` if nothing was used."""

    choice: Choice
    error: PointsmanError
    bill: Bill | None


StreamEvent = Started | Delta | Replaced | Finished | Broken


class Dispatcher:
    """Answers requests of tenants."""

    def __init__(
        self,
        *,
        catalogue: Callable[[], Catalogue],
        scorer: Scorer,
        judge: Judge,
        upstream: Upstream,
        book: Book,
        pacer: Pacer,
        gates: Gates,
        drains: Drains,
        record: Record,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        sleep: Sleep,
        draw: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic seconds, `wall_clock` seconds since the epoch, `draw` uniform numbers in [0, 1).

        `catalogue` is asked once per request, which then keeps to that configuration to its end.
        """
        expectations = Expectations()
        self._catalogue = catalogue
        self._pacer = pacer
        chooser = Chooser(scorer=scorer, pacer=pacer, expectations=expectations, clock=clock)
        attempts = Attempts(
            upstream=upstream,
            book=book,
            pacer=pacer,
            expectations=expectations,
            gates=gates,
            sleep=sleep,
            draw=draw,
        )
        self._strategies: Mapping[StrategyName, Strategy] = {
            StrategyName.ROUTE: Route(chooser=chooser, attempts=attempts),
            StrategyName.CASCADE: Cascade(chooser=chooser, attempts=attempts, judge=judge, clock=clock),
            StrategyName.ENSEMBLE: Ensemble(chooser=chooser, attempts=attempts, judge=judge, clock=clock),
        }
        self._drains = drains
        self._record = record
        self._clock = clock
        self._wall_clock = wall_clock

    async def route(self, request: Request) -> Choice:
        """The decision alone: calls no upstream, spends nothing, changes no state, records nothing."""
        progress = self._progress(request, "Route")
        return await self._strategy(progress).preview(progress)

    async def complete(self, request: Request) -> Answer:
        """The whole answer.

        Raises:
            PointsmanError: see errors.py. What was spent until then is in the record.
        """
        progress = self._progress(request, "Complete")
        work = self._complete(progress)
        return await (self._drains.complete(work, progress) if progress.catalogue.drains else work)

    def stream(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """The answer as it is written: `Started`, deltas, `Finished`; or `Broken` and then the error. `Replaced` may
        stand between deltas, if the request accepts that.

        `Started` comes with the first piece of the answer, since until then another model may take over. When the
        consumer goes away, the upstream call is closed, and what it delivered is billed at the documented estimate; or,
        where the model's policy is to drain, it is read on for a while and billed as reported.

        Raises:
            PointsmanError: see errors.py.
        """
        progress = self._progress(request, "StreamComplete")
        events = self._stream(progress)
        return self._drains.stream(events, progress) if progress.catalogue.drains else events

    async def _complete(self, progress: Progress) -> Answer:
        with progress:
            try:
                completion = await self._strategy(progress).complete(progress)
                bill = progress.settle(tuple([choice.finish_reason for choice in completion.choices]))
                return Answer(choice=progress.answered, completion=completion, bill=bill)
            finally:
                self._tell_pacing(progress)

    async def _stream(self, progress: Progress) -> AsyncGenerator[StreamEvent, None]:
        with progress:
            try:
                async with contextlib.aclosing(await self._strategy(progress).stream(progress)) as events:
                    started = False
                    try:
                        async for event in events:
                            if not started:
                                started = True
                                yield Started(progress.answered)
                            if not isinstance(event, End):
                                yield event
                            else:
                                bill = progress.settle(event.finish_reasons)
                                yield Finished(choice=progress.answered, end=event, bill=bill)
                    except PointsmanError as error:
                        if started:
                            yield Broken(choice=progress.answered, error=error, bill=progress.break_off(error))
                        raise
            finally:
                self._tell_pacing(progress)

    def _strategy(self, progress: Progress) -> Strategy:
        policy = progress.catalogue.tenants.get(progress.request.tenant_id)
        # Whoever is no tenant is refused where a model would be chosen.
        return self._strategies[StrategyName.ROUTE if policy is None else policy.strategy]

    def _progress(self, request: Request, method: str) -> Progress:
        return Progress(
            request,
            method,
            catalogue=self._catalogue(),
            record=self._record,
            clock=self._clock,
            wall_clock=self._wall_clock,
        )

    def _tell_pacing(self, progress: Progress) -> None:
        """What became of the decision: the model that it went to in the end, and what it cost."""
        paced, answering = progress.paced, progress.answering
        if paced is not None and answering is not None:
            rung = answering.choice.decision.rung
            if rung != paced.rung:
                self._pacer.rerouted(progress.policy, by=paced.moved_to(rung))
            self._pacer.settled(progress.policy, estimated=paced.expected, actual=progress.cost)
