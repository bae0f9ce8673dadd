"""One call of an upstream: how long it takes, and what it comes to."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from dispatcher_service import pricing
from dispatcher_service.catalogue import Deployment, Model
from dispatcher_service.errors import UpstreamError
from dispatcher_service.outcome import Attempted
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
        self.cost: NanoUsd = 0
        """Of that; 0 where nothing was used."""
        self.error: BaseException | None = None
        self.contacted_at: float | None = None
        """From when on the upstream may bill us, on the monotonic clock."""
        self.seconds = 0.0
        self.first_token_seconds: float | None = None
        self._prompt_bytes = prompt_bytes
        self._answer_bytes = 0
        self._over = False
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
        self._used(self._estimate() if usage is None else usage)

    def ended(self, error: BaseException | None) -> None:
        """It is over. One that did not answer is billed at the estimate, unless it certainly used nothing."""
        self.error = error
        self._over = True
        if self.usage is None and self.contacted_at is not None and _may_be_billed(error):
            self._used(self._estimate())

    @property
    def under_way(self) -> bool:
        """Whether the upstream is answering."""
        return self.contacted_at is not None and not self._over and self.usage is None

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

    def _used(self, usage: Usage) -> None:
        self.usage, self.cost = usage, pricing.cost(self.price, usage)

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


def _may_be_billed(error: BaseException | None) -> bool:
    return not isinstance(error, UpstreamError) or error.may_be_billed
