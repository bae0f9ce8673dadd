"""What is known of one request while it runs. However it ends, it becomes exactly one `Outcome`."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dispatcher_service import pricing
from dispatcher_service.answer import FinishReason
from dispatcher_service.catalogue import Catalogue, Deployment, Model, OnDisconnect, TenantPolicy
from dispatcher_service.chat import Request
from dispatcher_service.errors import PointsmanError, UpstreamError
from dispatcher_service.outcome import Attempted, Bill, Choice, Outcome, Record
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.pricing import NanoUsd, Price, Usage


class Call:
    """One attempt: which deployment, how long it takes, and what it comes to."""

    def __init__(
        self, *, model: Model, deployment: Deployment, price: Price, prompt_bytes: int, clock: Callable[[], float]
    ) -> None:
        self.model = model
        self.deployment = deployment
        self.price = price
        self.usage: Usage | None = None
        """What it used; `None` as long as that may be nothing."""
        self.error: BaseException | None = None
        self.contacted_at: float | None = None
        """From when on the upstream may bill us, on the monotonic clock."""
        self.seconds = 0.0
        self.first_token_seconds: float | None = None
        self._prompt_bytes = prompt_bytes
        self._answer_bytes = 0
        self._clock = clock
        self._waiting = _Waiting(self, clock)

    def waiting(self) -> AbstractContextManager[None]:
        """Counts the time inside as the upstream's. From the first entry on it may bill us."""
        return self._waiting

    def received(self, text_bytes: int) -> None:
        """This many bytes of an answer arrived."""
        assert self.contacted_at is not None
        if self.first_token_seconds is None:
            self.first_token_seconds = self._clock() - self.contacted_at
        self._answer_bytes += text_bytes

    def answered(self, usage: Usage | None) -> None:
        """The answer is complete: what the upstream reported is used, or the estimate if it reported nothing."""
        self.usage = self._estimate() if usage is None else usage

    def ended(self, error: BaseException | None) -> None:
        """It is over. One that did not answer is billed at the estimate, unless it certainly used nothing."""
        self.error = error
        if self.usage is None and self.contacted_at is not None and _may_be_billed(error):
            self.usage = self._estimate()

    @property
    def cost(self) -> NanoUsd:
        """0 where nothing was used."""
        return 0 if self.usage is None else pricing.cost(self.price, self.usage)

    def attempted(self) -> Attempted:
        """The attempt as a value."""
        return Attempted(
            model=self.model.name,
            deployment=self.deployment,
            price_version=self.price.version,
            usage=self.usage,
            cost=self.cost,
            error=self.error,
            seconds=self.seconds,
        )

    def _estimate(self) -> Usage:
        return pricing.estimate_usage(prompt_bytes=self._prompt_bytes, answer_bytes=self._answer_bytes)


class _Waiting(AbstractContextManager[None]):
    """See `Call.waiting`. One for all the pieces of a stream."""

    def __init__(self, call: Call, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._entered = 0.0

    def __enter__(self) -> None:
        self._entered = self._clock()
        if self._call.contacted_at is None:
            self._call.contacted_at = self._entered

    def __exit__(self, *_: object) -> None:
        self._call.seconds += self._clock() - self._entered


@dataclass(frozen=True, slots=True)
class Paced:
    """A decision as pacing counted it: which rung, and what each was expected to cost."""

    rung: int
    estimate: Estimate

    @property
    def expected(self) -> NanoUsd:
        """What the decision was expected to cost."""
        return self.estimate.costs[self.rung]

    def moved_to(self, rung: int) -> float:
        """By how much of x another rung differs."""
        return self.estimate.fraction(rung) - self.estimate.fraction(self.rung)


class Asked:
    """One model that is asked for the answer, with those that stand in for it, and the calls that this took."""

    __slots__ = ("calls", "choice", "progress")

    def __init__(self, progress: "Progress", choice: Choice) -> None:
        self.progress = progress
        self.choice = choice
        """Whose answer it is: replaced by another as attempts fail."""
        self.calls: list[Call] = []

    def begin(self, model: Model, deployment: Deployment, price: Price) -> Call:
        """An attempt is about to be made."""
        call = self.progress.begin(model, deployment, price)
        self.calls.append(call)
        return call


class Progress:
    """What is known of one request so far. A context manager: leaving it, in whatever way, records the outcome."""

    def __init__(
        self,
        request: Request,
        method: str,
        *,
        catalogue: Catalogue,
        record: Record,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`catalogue` is the configuration that the whole request keeps to, whatever is reloaded meanwhile."""
        self.request = request
        self.catalogue = catalogue
        self.answering: Asked | None = None
        """Who gives the answer, as far as is known; `None` until a model was chosen."""
        self.paced: Paced | None = None
        """What pacing was told of the decision; `None` where nothing is paced."""
        self.scorer_seconds = 0.0
        self.calls: list[Call] = []
        self._method = method
        self._record = record
        self._clock = clock
        self._started = clock()
        self.received_at = wall_clock()
        """Seconds since the epoch; prices are those of this moment, for all attempts."""
        self._finish_reasons: tuple[FinishReason, ...] = ()
        self._error: PointsmanError | None = None
        self.left = False
        """The caller went away, and the work goes on without."""

    @property
    def choice(self) -> Choice | None:
        """Whose answer it is, and why; `None` until a model was chosen."""
        return None if self.answering is None else self.answering.choice

    @property
    def answered(self) -> Choice:
        """The choice of a request that has begun to be answered."""
        assert self.answering is not None
        return self.answering.choice

    @property
    def policy(self) -> TenantPolicy:
        """The tenant's policy. There is one: `Chooser` has refused other tenants."""
        return self.catalogue.tenants[self.request.tenant_id]

    @property
    def cost(self) -> NanoUsd:
        """What all attempts cost so far."""
        return sum(call.cost for call in self.calls)

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._started

    def ask(self, choice: Choice) -> Asked:
        """A model is about to be asked for the answer, which from now on is its own."""
        self.answering = Asked(self, choice)
        return self.answering

    def begin(self, model: Model, deployment: Deployment, price: Price) -> Call:
        """An attempt is about to be made. See `Asked.begin`."""
        call = Call(
            model=model,
            deployment=deployment,
            price=price,
            prompt_bytes=self.request.chat.text_bytes,
            clock=self._clock,
        )
        self.calls.append(call)
        return call

    def settle(self, finish_reasons: tuple[FinishReason, ...]) -> Bill:
        """The answer is complete."""
        self._finish_reasons = finish_reasons
        bill = self._bill()
        assert bill is not None
        return bill

    def break_off(self, error: PointsmanError) -> Bill | None:
        """The answer ends with this error after a piece of it: what it has cost, `None` if certainly nothing."""
        self._error = error
        return self._bill()

    def caller_gone(self) -> float:
        """See `drains.Leavable`: an upstream that is answering is read on, where its model's policy says so."""
        call = self.calls[-1] if self.calls else None
        if self._finish_reasons or call is None or call.contacted_at is None or call.usage is not None:
            return 0.0
        self.left = call.model.on_disconnect is OnDisconnect.DRAIN
        return call.model.drain_timeout if self.left else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        bill = self._bill()
        if self._error is not None:
            error = self._error
        elif isinstance(error, GeneratorExit):
            # The consumer of a stream went away between two events.
            error = None if self._finish_reasons else asyncio.CancelledError()
        if self.left:
            # Nobody heard how it ended.
            error = asyncio.CancelledError()
        if bill is not None and isinstance(error, PointsmanError):
            error.cost = bill.cost
        calls = [call for call in self.calls if call.contacted_at is not None]
        self._record(
            Outcome(
                request=self.request,
                method=self._method,
                received_at=self.received_at,
                choice=self.choice,
                attempts=tuple(call.attempted() for call in calls),
                bill=bill,
                finish_reasons=self._finish_reasons,
                error=error,
                total_seconds=self.elapsed(),
                scorer_seconds=self.scorer_seconds,
                upstream_seconds=sum(call.seconds for call in calls),
                first_token_seconds=calls[-1].first_token_seconds if calls else None,
            )
        )

    def _bill(self) -> Bill | None:
        used = [call for call in self.calls if call.usage is not None]
        choice = self.choice
        if not used or choice is None:
            return None
        usage = used[-1].usage
        assert usage is not None
        rung, ladder, now = choice.decision.rung, choice.ladder, self.received_at
        models = self.catalogue.models
        costs = tuple([pricing.cost(models[name].price_at(now), usage) for name in ladder.models])
        return Bill(
            usage=usage,
            cost=sum(call.cost for call in used),
            other_tier_cost=costs[ladder.other(rung)],
            all_strong_cost=costs[-1],
            ladder_costs=costs,
            attempts=sum(call.contacted_at is not None for call in self.calls),
        )


def _may_be_billed(error: BaseException | None) -> bool:
    return not isinstance(error, UpstreamError) or error.may_be_billed
