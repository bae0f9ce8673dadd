"""Calling a model: which deployments are tried, one after the other, until one answers.

What comes next is `failover`'s to say, whether a deployment may be called `gates`', and whether there is money for it
the ledger's, which is asked before each attempt (`booking`). A stream fails over as long as it has brought nothing;
once the caller has seen a piece of an answer, another model's would not continue it.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from dispatcher_service import budget, costing, failover, overrides
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.booking import Book, Booking
from dispatcher_service.catalogue import Deployment, OnDisconnect, OnLedgerFailure
from dispatcher_service.chat import Chat
from dispatcher_service.costing import Expectations
from dispatcher_service.errors import (
    BudgetExhausted,
    InvalidRequest,
    LedgerUnavailable,
    UpstreamError,
    UpstreamTimeout,
)
from dispatcher_service.failover import Failure, Route, Step
from dispatcher_service.gates import Gates
from dispatcher_service.ports import Pacer, Upstream
from dispatcher_service.pricing import Usage
from dispatcher_service.progress import Call, Progress
from dispatcher_service.routing import Reason, Tier

Sleep = Callable[[float], Awaitable[None]]


class Attempts:
    """Calls models. What each attempt came to is told to the request's `Progress`."""

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

    async def complete(self, progress: Progress) -> Completion:
        """The whole answer of the first deployment that gives one. `progress.choice` says which model's it is.

        Raises:
            BudgetExhausted: no model that the policy allows fits the tenant's limits.
            LedgerUnavailable: whether one does is not known, and the policy is to reject.
            UpstreamError: no deployment answered.
        """
        search = _Search(progress, sleep=self._sleep, draw=self._draw)
        while True:
            step = await search.next()
            try:
                with self._gates.calling(step.deployment):
                    async with await self._booked(progress, step) as attempt:
                        timeout = await attempt.start()
                        with attempt.call.waiting():
                            completion = await self._upstream.complete(step.deployment, attempt.chat, timeout=timeout)
                        attempt.call.received(sum(choice.text_bytes for choice in completion.choices))
                        self._answered(attempt.call, completion.usage, progress)
                        return completion
            except UpstreamError as error:
                search.failed(error)
            except (BudgetExhausted, LedgerUnavailable) as error:
                search.turn_weak(self._weak_instead(progress, step, error))

    async def stream(self, progress: Progress) -> AsyncGenerator[Delta | End, None]:
        """The answer as it is written: deltas, then exactly one end, which comes after the money is settled.

        Raises:
            BudgetExhausted, LedgerUnavailable: as for `complete`.
            UpstreamError: no deployment answered, or one broke off after its first delta.
        """
        search = _Search(progress, sleep=self._sleep, draw=self._draw)
        while True:
            step = await search.next()
            begun = False
            try:
                with self._gates.calling(step.deployment):
                    async with await self._booked(progress, step) as attempt:
                        timeout = await attempt.start()
                        events = self._upstream.stream(step.deployment, attempt.chat, timeout=timeout)
                        async with contextlib.aclosing(events):
                            while True:
                                with attempt.call.waiting():
                                    event = await anext(events)
                                begun = True
                                if isinstance(event, End):
                                    break
                                attempt.call.received(event.text_bytes)
                                yield event
                        self._answered(attempt.call, event.usage, progress)
                yield event
                return
            except UpstreamError as error:
                if begun:
                    raise
                search.failed(error)
            except (BudgetExhausted, LedgerUnavailable) as error:
                search.turn_weak(self._weak_instead(progress, step, error))

    async def _booked(self, progress: Progress, step: Step) -> "_Attempt":
        """The attempt with its money put aside.

        Raises:
            BudgetExhausted: it does not fit a limit.
            LedgerUnavailable: nobody can say, and this tenant's calls of this tier are not made on a guess.
        """
        choice, policy, catalogue = progress.choice, progress.policy, progress.catalogue
        assert choice is not None
        model = catalogue.models[step.leg.model]
        price = model.price_at(progress.received_at)
        chat = progress.request.chat
        worst_case = costing.worst_case(model, price, chat)
        if worst_case is None:
            if policy.limits:  # A tool loop keeps its model, and that one came from an earlier configuration.
                raise InvalidRequest("chat.max_tokens", f"model {model.name} bounds no answer, your limits do: set it")
            worst_case = self._expectations.cost(model, price, chat)
        timeout = _call_timeout(step.deployment, progress)
        try:
            booking = await self._book.reserve(policy, model.name, worst_case, timeout=timeout)
        except LedgerUnavailable:
            on_failure = policy.on_ledger_failure
            if on_failure is OnLedgerFailure.REJECT:
                raise
            if on_failure is OnLedgerFailure.WEAK and step.leg.tier is Tier.STRONG:
                raise
            booking = self._book.unbooked(policy, model.name, worst_case)
        progress.choice = replace(choice, price_version=price.version)
        call = progress.begin(model, step.deployment, price)
        return _Attempt(progress, call, costing.with_output_bound(model, chat), self._book, booking)

    def _answered(self, call: Call, usage: Usage | None, progress: Progress) -> None:
        call.answered(usage)
        if usage is not None:
            self._expectations.observe(call.model, usage, progress.request.chat.choices)

    def _weak_instead(self, progress: Progress, step: Step, error: BudgetExhausted | LedgerUnavailable) -> Reason:
        """Why the weak model is to answer. Where the policy does not say so, raises the error."""
        policy, in_tool_loop = progress.policy, progress.request.chat.in_tool_loop
        off = overrides.models_off(policy.overrides, now=progress.received_at)
        if policy.pair.weak in off:
            raise error
        if isinstance(error, BudgetExhausted):
            if policy.pacing is not None:
                self._pacer.refused(policy, until=error.window_end)
            if budget.fallback(policy.on_exhausted, step.leg.tier, in_tool_loop=in_tool_loop) is None:
                raise error
            return Reason.BUDGET_DEGRADED
        turns = policy.on_ledger_failure is OnLedgerFailure.WEAK and step.leg.tier is Tier.STRONG
        if in_tool_loop or not turns:
            raise error
        return Reason.LEDGER_UNAVAILABLE


class _Attempt:
    """One attempt whose money is put aside. A context manager: leaving it, in whatever way, settles or releases."""

    def __init__(self, progress: Progress, call: Call, chat: Chat, book: Book, booking: Booking) -> None:
        self.call = call
        self.chat = chat
        """The conversation as this model is to get it."""
        self._progress = progress
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
            if self._progress.policy.on_ledger_failure is OnLedgerFailure.REJECT:
                raise
        return _call_timeout(self.call.deployment, self._progress)

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


class _Search:
    """The attempts of one request so far."""

    def __init__(self, progress: Progress, *, sleep: Sleep, draw: Callable[[], float]) -> None:
        self._progress = progress
        self._sleep = sleep
        self._draw = draw
        self._failures: list[Failure] = []
        self._step: Step | None = None
        assert progress.choice is not None
        self._choice = progress.choice
        self._route = self._plan()

    def turn_weak(self, reason: Reason) -> None:
        """Go on with weak models alone. What failed before counts on, and the decision keeps what it was made from."""
        if self._choice.decision.tier is Tier.STRONG:
            decision = replace(self._choice.decision, tier=Tier.WEAK, reason=reason)
            self._choice = replace(self._choice, decision=decision)
        self._route = tuple(leg for leg in self._plan() if leg.tier is Tier.WEAK)

    def _plan(self) -> Route:
        progress = self._progress
        chat, catalogue = progress.request.chat, progress.catalogue
        return failover.route(
            tier=self._choice.decision.tier,
            pair=self._choice.pair,
            models=catalogue.models,
            deployments=catalogue.deployments,
            fallback_to_other_tier=progress.policy.fallback_to_other_tier,
            in_tool_loop=chat.in_tool_loop,
            kinds=frozenset(kind for _, kind in chat.other_parts()),
            off=overrides.models_off(progress.policy.overrides, now=progress.received_at),
            draw=self._draw,
        )

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
            deadline=self._progress.request.timeout,
            policy=self._progress.catalogue.retries,
            draw=self._draw,
        )
        if step is None:
            raise self._error()
        if step.wait > 0:
            await self._sleep(step.wait)
        self._step = step
        self._progress.choice = self._choice.answered_by(step.leg.tier, step.leg.model)
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


def _call_timeout(deployment: Deployment, progress: Progress) -> float:
    """The deployment's timeout, or what is left of the caller's deadline if that is less.

    A model that drains has its drain time on top: at its deadline the caller goes away, and the answer is read on.
    """
    if progress.request.timeout is None:
        return deployment.timeout
    left = progress.request.timeout - progress.elapsed()
    if left <= 0:
        what = "the caller's deadline passed before the call"
        raise UpstreamTimeout(deployment.name, what, may_be_billed=False, out_of_time=True)
    model = progress.catalogue.models[deployment.model]
    drain = model.drain_timeout if model.on_disconnect is OnDisconnect.DRAIN else 0.0
    return min(deployment.timeout, left + drain)
