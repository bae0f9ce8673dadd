"""What is known of one request while it runs. However it ends, it becomes exactly one `Outcome`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from dispatcher_service import pricing
from dispatcher_service.answer import FinishReason
from dispatcher_service.booking import Booking
from dispatcher_service.calls import Call
from dispatcher_service.catalogue import Catalogue, Deployment, Model, OnDisconnect, TenantPolicy
from dispatcher_service.chat import Chat, Request
from dispatcher_service.errors import PointsmanError
from dispatcher_service.outcome import Bill, Choice, Outcome, Record, Stage
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.pricing import NanoUsd, Price, UsageSource


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
    """One model that is asked for the answer, with those that stand in for it, and the calls that this took.

    Attributes:
        choice: whose answer it is: replaced by another as attempts fail.
        calls: made so far.
        stage: whether it is one of several that a strategy asks: none of the others takes its place then, be it for a
            failure or for want of money, since that is the strategy's to say.
        deadline: when its time is over, in seconds after the request's arrival; `None` without an end.
        chat: what it is asked: the request's conversation, or what a strategy made of it.
        booking: money that is put aside for its first call already; `None` where that is still to come.
    """

    __slots__ = ("booking", "calls", "chat", "choice", "deadline", "progress", "stage")

    def __init__(
        self, progress: "Progress", choice: Choice, *, stage: bool, deadline: float | None, chat: Chat | None = None
    ) -> None:
        self.progress = progress
        self.choice = choice
        self.calls: list[Call] = []
        self.stage = stage
        self.deadline = deadline
        self.chat = progress.request.chat if chat is None else chat
        self.booking: Booking | None = None

    @property
    def cost(self) -> NanoUsd:
        """What its calls cost so far."""
        return sum([call.cost for call in self.calls])

    @property
    def cost_source(self) -> UsageSource | None:
        """Estimated as soon as one of its calls is; `None` if certainly nothing was used."""
        sources = {call.usage.source for call in self.calls if call.usage is not None}
        return UsageSource.ESTIMATED if UsageSource.ESTIMATED in sources else next(iter(sources), None)

    def take_booking(self, model: str) -> Booking | None:
        """What was put aside for a call of this model; whoever takes it settles or releases it."""
        if self.booking is None or self.booking.reservation.model != model:
            return None
        booking, self.booking = self.booking, None
        return booking

    def begin(self, model: Model, deployment: Deployment, price: Price) -> Call:
        """An attempt is about to be made."""
        call = self.progress.begin(model, deployment, price, prompt_bytes=self.chat.text_bytes)
        self.calls.append(call)
        return call


class Progress:
    """What is known of one request so far. A context manager: leaving it, in whatever way, records the outcome."""

    policy: TenantPolicy
    """The tenant's policy. There is one: `Chooser` has refused whoever is no tenant."""

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
        policy = catalogue.tenants.get(request.tenant_id)
        if policy is not None:
            self.policy = policy
        self.in_tool_loop = request.chat.in_tool_loop
        """See `Chat.in_tool_loop`."""
        self.answering: Asked | None = None
        """Who gives the answer, as far as is known; `None` until a model was chosen."""
        self.stages: list[Stage] = []
        """What became of each model that the strategy asked, or would have; empty where it asks but one."""
        self.judged_by: tuple[str, str] | None = None
        """Name and version of the scorer that judged answers."""
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
        self._settled: Bill | None = None
        self._error: PointsmanError | None = None
        self.left = False
        """The caller went away, and the work goes on without."""

    @property
    def choice(self) -> Choice | None:
        """Whose answer it is, and why; `None` until a model was chosen."""
        return None if self.answering is None else self.answered

    @property
    def answered(self) -> Choice:
        """The choice of a request that has begun to be answered."""
        assert self.answering is not None
        choice = self.answering.choice
        if not self.stages:
            return choice
        return replace(choice, stages=tuple(self.stages), judged_by=self.judged_by)

    @property
    def cost(self) -> NanoUsd:
        """What all attempts cost so far."""
        return sum([call.cost for call in self.calls])

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._started

    def ask(self, choice: Choice) -> Asked:
        """A model is about to be asked for the answer, which is its own, or that of whoever stands in for it."""
        self.answering = Asked(self, choice, stage=False, deadline=self.request.timeout)
        return self.answering

    def ask_stage(self, choice: Choice, *, deadline: float | None, chat: Chat | None = None) -> Asked:
        """The same of one of several models. Whose answer is given in the end is in `answering`: set it then."""
        self.answering = Asked(self, choice, stage=True, deadline=deadline, chat=chat)
        return self.answering

    def begin(self, model: Model, deployment: Deployment, price: Price, *, prompt_bytes: int) -> Call:
        """An attempt is about to be made. See `Asked.begin`."""
        call = Call(
            model=model,
            deployment=deployment,
            price=price,
            prompt_bytes=prompt_bytes,
            clock=self._clock,
        )
        self.calls.append(call)
        return call

    def settle(self, finish_reasons: tuple[FinishReason, ...]) -> Bill:
        """The answer is complete, and every call has ended."""
        self._finish_reasons = finish_reasons
        self._settled = self._bill()
        assert self._settled is not None
        return self._settled

    def break_off(self, error: PointsmanError) -> Bill | None:
        """The answer ends with this error after a piece of it: what it has cost, `None` if certainly nothing."""
        self._error = error
        return self._bill()

    def caller_gone(self) -> float:
        """See `drains.Leavable`: an upstream that is answering is read on, where its model's policy says so."""
        if self._finish_reasons:
            return 0.0
        drained = [
            call.model.drain_timeout
            for call in self.calls
            if call.under_way and call.model.on_disconnect is OnDisconnect.DRAIN
        ]
        self.left = bool(drained)
        return max(drained, default=0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        bill = self._bill() if self._settled is None else self._settled
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
        calls, choice = [call for call in self.calls if call.contacted_at is not None], self.choice
        self._record(
            Outcome(
                request=self.request,
                method=self._method,
                received_at=self.received_at,
                choice=choice,
                prices=() if choice is None else self._prices(choice),
                attempts=tuple([call.attempted() for call in calls]),
                bill=bill,
                finish_reasons=self._finish_reasons,
                error=error,
                total_seconds=self.elapsed(),
                scorer_seconds=self.scorer_seconds,
                upstream_seconds=sum([call.seconds for call in calls]),
                first_token_seconds=calls[-1].first_token_seconds if calls else None,
            )
        )

    def _bill(self) -> Bill | None:
        used = [call for call in self.calls if call.usage is not None]
        answering = self.answering
        if not used or answering is None:
            return None
        answers = [call for call in answering.calls if call.usage is not None]
        usage = (answers or used)[-1].usage
        assert usage is not None
        prices, ladder = self._prices(answering.choice), answering.choice.ladder
        return Bill(
            usage=usage,
            cost=self.cost,
            other_tier_cost=pricing.cost(prices[ladder.other(answering.choice.decision.rung)], usage),
            all_strong_cost=pricing.cost(prices[ladder.top], usage),
            attempts=len([call for call in self.calls if call.contacted_at is not None]),
            tokens=sum([call.usage.total for call in used if call.usage is not None]),
        )

    def _prices(self, choice: Choice) -> tuple[Price, ...]:
        """Of the models of the choice's ladder."""
        return self.catalogue.models_of(choice.ladder).prices_at(self.received_at)
