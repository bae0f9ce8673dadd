"""What is known of one request while it runs. However it ends, it becomes exactly one `Outcome`."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

from dispatcher_service import pricing
from dispatcher_service.answer import FinishReason
from dispatcher_service.catalogue import Deployment, Model
from dispatcher_service.chat import Request
from dispatcher_service.errors import PointsmanError, UpstreamError
from dispatcher_service.outcome import Bill, Choice, Outcome, Record
from dispatcher_service.pricing import Usage


class Progress:
    """What is known of one request so far. A context manager: leaving it, in whatever way, records the outcome."""

    def __init__(
        self,
        request: Request,
        method: str,
        *,
        models: Mapping[str, Model],
        record: Record,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.choice: Choice | None = None
        self.deployment: Deployment | None = None
        self.scorer_seconds = 0.0
        self.request = request
        self._method = method
        self._models = models
        self._record = record
        self._clock = clock
        self._started = clock()
        self._received_at = wall_clock()
        self._called_at: float | None = None
        self._upstream_seconds = 0.0
        self._first_token_seconds: float | None = None
        self._answer_bytes = 0
        self._finish_reasons: tuple[FinishReason, ...] = ()
        self._bill: Bill | None = None
        self._error: PointsmanError | None = None

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._started

    @contextlib.contextmanager
    def calling_upstream(self) -> Iterator[None]:
        """Counts the time inside as the upstream's. From the first entry on the upstream may bill us."""
        entered = self._clock()
        if self._called_at is None:
            self._called_at = entered
        try:
            yield
        finally:
            self._upstream_seconds += self._clock() - entered

    def received(self, text_bytes: int) -> None:
        """This many bytes of an answer arrived from the upstream."""
        assert self._called_at is not None
        if self._first_token_seconds is None:
            self._first_token_seconds = self._clock() - self._called_at
        self._answer_bytes += text_bytes

    def settle(self, finish_reasons: tuple[FinishReason, ...], usage: Usage | None) -> Bill:
        """The answer is complete: bill what the upstream reported, or the estimate if it reported nothing."""
        self._finish_reasons = finish_reasons
        self._bill = self._make_bill(usage)
        return self._bill

    def break_off(self, error: PointsmanError) -> Bill | None:
        """The answer ends with this error after a piece of it: what it has cost, `None` if certainly nothing."""
        self._error = error
        if self._called_at is not None and _may_be_billed(error):
            self._bill = self._make_bill(None)
        return self._bill

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._error is not None:
            error = self._error
        elif isinstance(error, GeneratorExit):
            # The consumer of a stream went away between two events.
            error = asyncio.CancelledError() if self._bill is None else None
        if self._bill is None and self._called_at is not None and _may_be_billed(error):
            self._bill = self._make_bill(None)
        if self._bill is not None and isinstance(error, PointsmanError):
            error.cost = self._bill.cost
        self._record(
            Outcome(
                request=self.request,
                method=self._method,
                received_at=self._received_at,
                choice=self.choice,
                deployment=self.deployment,
                bill=self._bill,
                finish_reasons=self._finish_reasons,
                error=error,
                total_seconds=self.elapsed(),
                scorer_seconds=self.scorer_seconds,
                upstream_seconds=self._upstream_seconds,
                first_token_seconds=self._first_token_seconds,
            )
        )

    def _make_bill(self, usage: Usage | None) -> Bill:
        choice = self.choice
        assert choice is not None
        if usage is None:
            usage = pricing.estimate_usage(prompt_bytes=self.request.chat.text_bytes, answer_bytes=self._answer_bytes)
        pair = choice.pair
        return Bill(
            usage=usage,
            cost=pricing.cost(self._models[choice.model].price, usage),
            other_tier_cost=pricing.cost(self._models[pair.of(choice.decision.tier.other)].price, usage),
            all_strong_cost=pricing.cost(self._models[pair.strong].price, usage),
        )


def _may_be_billed(error: BaseException | None) -> bool:
    return not isinstance(error, UpstreamError) or error.may_be_billed
