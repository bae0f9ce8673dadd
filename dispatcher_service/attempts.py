"""Calling a model: which deployments are tried, one after the other, until one answers.

What comes next is `search`'s to say, whether a deployment may be called `gates`', and whether there is money for it
the ledger's, which is asked before each attempt (`booking`). A stream fails over as long as it has brought nothing;
once the caller has seen a piece of an answer, another model's would not continue it.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from dispatcher_service import budget, costing
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.booking import Book, Booking
from dispatcher_service.calls import Call
from dispatcher_service.catalogue import Model, OnLedgerFailure
from dispatcher_service.costing import Expectations, Prompt
from dispatcher_service.errors import (
    BudgetExhausted,
    InvalidRequest,
    LedgerUnavailable,
    UpstreamError,
    UpstreamTimeout,
)
from dispatcher_service.failover import Step
from dispatcher_service.gates import Gates
from dispatcher_service.ports import Pacer, Upstream
from dispatcher_service.pricing import Price, Usage
from dispatcher_service.progress import Asked
from dispatcher_service.routing import Reason
from dispatcher_service.search import Search, Sleep, call_timeout


class Attempts:
    """Calls models. What each attempt came to is told to `Asked` and the request's `Progress`."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        book: Book,
        pacer: Pacer,
        expectations: Expectations,
        gates: Gates,
        sleep: Sleep,
        draw: Callable[[], float],
    ) -> None:
        """`sleep` waits so many seconds; `draw` gives uniform numbers in [0, 1)."""
        self._upstream = upstream
        self._book = book
        self._pacer = pacer
        self._expectations = expectations
        self._gates = gates
        self._sleep = sleep
        self._draw = draw

    async def complete(self, asked: Asked) -> Completion:
        """The whole answer of the first deployment that gives one. `asked.choice` says which model's it is.

        Raises:
            BudgetExhausted: no model that the policy allows fits the tenant's limits.
            LedgerUnavailable: whether one does is not known, and the policy is to reject.
            UpstreamError: no deployment answered.
        """
        search = Search(asked, sleep=self._sleep, draw=self._draw)
        while True:
            step = await search.next()
            try:
                with self._gates.calling(step.deployment):
                    async with await self._booked(asked, step) as attempt:
                        timeout = await attempt.start()
                        with attempt.call.waiting():
                            completion = await self._upstream.complete(
                                step.deployment, asked.chat, max_tokens=attempt.max_tokens, timeout=timeout
                            )
                        attempt.call.received(sum([choice.text_bytes for choice in completion.choices]))
                        self._answered(attempt.call, completion.usage, asked)
                        return completion
            except UpstreamError as error:
                search.failed(error)
            except (BudgetExhausted, LedgerUnavailable) as error:
                search.unaffordable(step, self._cheapest_instead(asked, step, error), error)

    async def stream(self, asked: Asked) -> AsyncGenerator[Delta | End, None]:
        """The answer as it is written: deltas, then exactly one end, which comes after the money is settled.

        Raises:
            BudgetExhausted, LedgerUnavailable: as for `complete`.
            UpstreamError: no deployment answered, or one broke off after its first delta.
        """
        search = Search(asked, sleep=self._sleep, draw=self._draw)
        while True:
            step = await search.next()
            begun = False
            try:
                with self._gates.calling(step.deployment):
                    async with await self._booked(asked, step) as attempt:
                        timeout = await attempt.start()
                        events = self._upstream.stream(
                            step.deployment, asked.chat, max_tokens=attempt.max_tokens, timeout=timeout
                        )
                        async with contextlib.aclosing(events):
                            while True:
                                with attempt.call.waiting():
                                    event = await anext(events)
                                begun = True
                                if isinstance(event, End):
                                    break
                                attempt.call.received(event.text_bytes)
                                yield event
                        self._answered(attempt.call, event.usage, asked)
                yield event
                return
            except UpstreamError as error:
                if begun:
                    raise
                search.failed(error)
            except (BudgetExhausted, LedgerUnavailable) as error:
                search.unaffordable(step, self._cheapest_instead(asked, step, error), error)

    async def reserve(self, asked: Asked) -> None:
        """Puts the money of the first call of the asked model aside before any model is called. `release` what is left.

        Raises:
            BudgetExhausted, LedgerUnavailable: as for `complete`.
            UpstreamTimeout: no time is left.
        """
        progress, choice = asked.progress, asked.choice
        model = progress.catalogue.models[choice.model]
        timeout = max(call_timeout(deployment, asked) for deployment in progress.catalogue.deployments[model.name])
        price = model.price_at(progress.received_at)
        cheapest = choice.decision.rung == choice.fitting[0]
        asked.booking = await self._reserved(asked, model, price, cheapest=cheapest, timeout=timeout)

    async def release(self, asked: Asked) -> None:
        """Gives back what `reserve` put aside, if no call has taken it."""
        if asked.booking is not None:
            booking, asked.booking = asked.booking, None
            await self._book.release(booking)

    async def _booked(self, asked: Asked, step: Step) -> "_Attempt":
        """The attempt with its money put aside.

        Raises:
            BudgetExhausted: it does not fit a limit.
            LedgerUnavailable: nobody can say, and this tenant's calls of this tier are not made on a guess.
        """
        model = asked.progress.catalogue.models[step.leg.model]
        price = model.price_at(asked.progress.received_at)
        booking = asked.take_booking(model.name)
        if booking is None:
            timeout = call_timeout(step.deployment, asked)
            booking = await self._reserved(asked, model, price, cheapest=_is_cheapest(asked, step), timeout=timeout)
        if asked.choice.price_version != price.version:
            asked.choice = replace(asked.choice, price_version=price.version)
        call = asked.begin(model, step.deployment, price)
        return _Attempt(asked, call, costing.output_bound(model, asked.chat.max_tokens), self._book, booking)

    async def _reserved(self, asked: Asked, model: Model, price: Price, *, cheapest: bool, timeout: float) -> Booking:
        """The worst case of a call, put aside. Raises as `_booked` does."""
        policy, chat = asked.progress.policy, asked.chat
        worst_case = costing.worst_case(model, price, chat)
        if worst_case is None:
            if policy.limits:  # A tool loop keeps its model, and that one came from an earlier configuration.
                raise InvalidRequest("chat.max_tokens", f"model {model.name} bounds no answer, your limits do: set it")
            (worst_case,) = self._expectations.costs((model,), (price,), Prompt.of(chat))
        try:
            return await self._book.reserve(policy, model.name, worst_case, timeout=timeout)
        except LedgerUnavailable:
            on_failure = policy.on_ledger_failure
            if on_failure is OnLedgerFailure.REJECT:
                raise
            if on_failure is OnLedgerFailure.WEAK and not cheapest:
                raise
            return self._book.unbooked(policy, model.name, worst_case)

    def _answered(self, call: Call, usage: Usage | None, asked: Asked) -> None:
        call.answered(usage)
        if usage is not None:
            self._expectations.observe(call.model, usage, asked.chat.choices)

    def _cheapest_instead(self, asked: Asked, step: Step, error: BudgetExhausted | LedgerUnavailable) -> Reason | None:
        """Why the cheapest model is to answer; `None` where the policy, or the strategy, does not say so."""
        if asked.stage:
            return None
        policy, in_tool_loop = asked.progress.policy, asked.progress.in_tool_loop
        cheapest = _is_cheapest(asked, step)
        if isinstance(error, BudgetExhausted):
            if policy.pacing is not None:
                self._pacer.refused(policy, until=error.window_end)
            degrades = budget.degrades(policy.on_exhausted, cheapest=cheapest, in_tool_loop=in_tool_loop)
            return Reason.BUDGET_DEGRADED if degrades else None
        turns = policy.on_ledger_failure is OnLedgerFailure.WEAK and not cheapest
        return Reason.LEDGER_UNAVAILABLE if turns and not in_tool_loop else None


def _is_cheapest(asked: Asked, step: Step) -> bool:
    """Whether no model of the tenant that may answer instead is cheaper. In a tool loop none may."""
    return step.leg.rung == (0 if asked.progress.in_tool_loop else asked.choice.fitting[0])


class _Attempt:
    """One attempt whose money is put aside. A context manager: leaving it, in whatever way, settles or releases."""

    def __init__(self, asked: Asked, call: Call, max_tokens: int | None, book: Book, booking: Booking) -> None:
        self.call = call
        self.max_tokens = max_tokens
        """What this model may answer at most, as it is told."""
        self._asked = asked
        self._book = book
        self._booking = booking

    async def start(self) -> float:
        """The upstream is about to be called; returns how many seconds it has.

        Raises:
            UpstreamTimeout: there are none left.
            LedgerUnavailable: nobody can say whether the money is still put aside, and the policy is to reject.
        """
        name = self.call.deployment.name
        try:
            if not await self._book.start(self._booking):
                raise UpstreamTimeout(name, "the call came too late", may_be_billed=False, out_of_time=True)
        except LedgerUnavailable:
            if self._asked.progress.policy.on_ledger_failure is OnLedgerFailure.REJECT:
                raise
        return call_timeout(self.call.deployment, self._asked)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        call = self.call
        call.ended(error)
        if call.usage is None:
            await self._book.release(self._booking)
        else:
            await self._book.settle(self._booking, call.cost, call.usage)
