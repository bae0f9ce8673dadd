"""Calling a model: which deployments are tried until one answers. The money of each attempt is put aside first."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from dispatcher_service import budget, costing
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.booking import Book, Booking
from dispatcher_service.catalogue import Deployment, Model, OnLedgerFailure
from dispatcher_service.chat import Chat
from dispatcher_service.costing import Expectations
from dispatcher_service.errors import BudgetExhausted, LedgerUnavailable, UpstreamTimeout
from dispatcher_service.outcome import Choice
from dispatcher_service.ports import Pacer, Upstream
from dispatcher_service.pricing import NanoUsd, Price, Usage
from dispatcher_service.progress import Call, Progress
from dispatcher_service.routing import Reason, Tier


class Attempt:
    """One attempt whose money is put aside. A context manager: leaving it, in whatever way, settles or releases."""

    def __init__(self, call: Call, *, chat: Chat, book: Book, booking: Booking) -> None:
        self.call = call
        self.chat = chat
        """The conversation as this model is to get it."""
        self._book = book
        self._booking = booking

    async def start(self) -> None:
        """The upstream is about to be called.

        Raises:
            UpstreamTimeout: the reservation has expired meanwhile.
            LedgerUnavailable: nobody can say.
        """
        if not await self._book.start(self._booking):
            raise UpstreamTimeout(self.call.deployment.name, "the call came too late", may_be_billed=False)

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


class Attempts:
    """Calls the model of a choice. What each attempt came to is told to the request's `Progress`."""

    def __init__(self, *, upstream: Upstream, book: Book, pacer: Pacer, expectations: Expectations) -> None:
        self._upstream = upstream
        self._book = book
        self._pacer = pacer
        self._expectations = expectations

    async def complete(self, progress: Progress) -> Completion:
        """The whole answer of the first deployment that gives one.

        Raises:
            BudgetExhausted: no model that the policy allows fits the tenant's limits.
            LedgerUnavailable: whether one does is not known, and the policy is to reject.
            UpstreamError: no deployment answered.
        """
        async with await self._open(progress) as attempt:
            call = attempt.call
            await attempt.start()
            timeout = _call_timeout(call.deployment, progress)
            with call.waiting():
                completion = await self._upstream.complete(call.deployment, attempt.chat, timeout=timeout)
            call.received(sum(choice.text_bytes for choice in completion.choices))
            self._answered(call, completion.usage, progress)
            return completion

    async def stream(self, progress: Progress) -> AsyncGenerator[Choice | Delta | End, None]:
        """The answer as it is written: the choice that is called, deltas, then exactly one end.

        Raises:
            BudgetExhausted, LedgerUnavailable: as for `complete`.
            UpstreamError: no deployment answered, or one broke off after its first delta.
        """
        async with await self._open(progress) as attempt:
            call = attempt.call
            assert progress.choice is not None
            yield progress.choice
            await attempt.start()
            timeout = _call_timeout(call.deployment, progress)
            events = self._upstream.stream(call.deployment, attempt.chat, timeout=timeout)
            async with contextlib.aclosing(events):
                while True:
                    with call.waiting():
                        event = await anext(events)
                    if isinstance(event, Delta):
                        call.received(event.text_bytes)
                        yield event
                    else:
                        break
            self._answered(call, event.usage, progress)
        yield event

    def _answered(self, call: Call, usage: Usage | None, progress: Progress) -> None:
        call.answered(usage)
        if usage is not None:
            self._expectations.observe(call.model, usage, progress.request.chat.choices)

    async def _open(self, progress: Progress) -> Attempt:
        """An attempt at the progress's choice with its money put aside; the policy may replace the choice by weak."""
        policy, in_tool_loop = progress.policy, progress.request.chat.in_tool_loop
        while True:
            offer = self._offer(progress)
            try:
                booking = await self._book.reserve(
                    policy, offer.model.name, offer.worst_case, timeout=_call_timeout(offer.deployment, progress)
                )
            except BudgetExhausted as error:
                if policy.pacing is not None:
                    self._pacer.refused(policy, until=error.window_end)
                tier = budget.fallback(policy.on_exhausted, offer.tier, in_tool_loop=in_tool_loop)
                if tier is None:
                    raise
                self._reroute(progress, tier, Reason.BUDGET_DEGRADED)
                continue
            except LedgerUnavailable:
                if policy.on_ledger_failure is OnLedgerFailure.REJECT:
                    raise
                if policy.on_ledger_failure is OnLedgerFailure.WEAK and offer.tier is Tier.STRONG:
                    if in_tool_loop:
                        raise
                    self._reroute(progress, Tier.WEAK, Reason.LEDGER_UNAVAILABLE)
                    offer = self._offer(progress)
                booking = self._book.unbooked(policy, offer.model.name, offer.worst_case)
            call = progress.begin(offer.model, offer.deployment, offer.price)
            return Attempt(call, chat=offer.chat, book=self._book, booking=booking)

    def _offer(self, progress: Progress) -> "_Offer":
        choice, chat, catalogue = progress.choice, progress.request.chat, progress.catalogue
        assert choice is not None
        model = catalogue.models[choice.model]
        price = model.price_at(progress.received_at)
        worst_case = costing.worst_case(model, price, chat)
        if worst_case is None:  # Only of tenants without limits: the configuration is refused otherwise.
            worst_case = self._expectations.cost(model, price, chat)
        return _Offer(
            tier=choice.decision.tier,
            model=model,
            deployment=catalogue.deployments[choice.model][0],
            price=price,
            chat=costing.with_output_bound(model, chat),
            worst_case=worst_case,
        )

    def _reroute(self, progress: Progress, tier: Tier, reason: Reason) -> None:
        """Go to the other tier than was decided. The decision keeps what it was made from."""
        choice = progress.choice
        assert choice is not None
        model = progress.catalogue.models[choice.pair.of(tier)]
        progress.choice = replace(
            choice,
            decision=replace(choice.decision, tier=tier, reason=reason),
            price_version=model.price_at(progress.received_at).version,
        )
        if progress.policy.pacing is not None:
            self._pacer.rerouted(progress.policy, strong=tier is Tier.STRONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """What would be called next, and what that may cost."""

    tier: Tier
    model: Model
    deployment: Deployment
    price: Price
    chat: Chat
    worst_case: NanoUsd


def _call_timeout(deployment: Deployment, progress: Progress) -> float:
    """The deployment's timeout, or what is left of the caller's deadline if that is less."""
    if progress.request.timeout is None:
        return deployment.timeout
    left = progress.request.timeout - progress.elapsed()
    if left <= 0:
        raise UpstreamTimeout(deployment.name, "the caller's deadline passed before the call", may_be_billed=False)
    return min(deployment.timeout, left)
