"""Everything a request can end with, other than an answer.

    PointsmanError
    ├── InvalidRequest            INVALID_ARGUMENT   a field cannot be used; names it and the mend
    │   ├── PayloadTooLarge       INVALID_ARGUMENT   too much text
    │   └── IdempotencyConflict   INVALID_ARGUMENT   the request id was used for another body
    ├── Unauthenticated           UNAUTHENTICATED    no usable credential; says nothing that tells which
    ├── IdentityUnavailable       UNAVAILABLE        who calls cannot be told: the token issuer's keys cannot be read
    ├── Forbidden                 PERMISSION_DENIED  the tenant's policy does not allow it
    ├── NotFound                  NOT_FOUND          what is asked about is not there, or not there any more
    ├── InFlight                  ABORTED            the same request is being answered; carries when to come back
    ├── FirstFailed               the first status   the same request failed before, and that cost something
    ├── BudgetExhausted           RESOURCE_EXHAUSTED a limit has no room; says which, what is left, when it ends
    ├── RateLimited               RESOURCE_EXHAUSTED the tenant asks for more per minute, or at once, than it may
    ├── Overloaded                RESOURCE_EXHAUSTED this process has too much to do; another replica may answer at once
    ├── LedgerUnavailable         UNAVAILABLE        the money book cannot be reached or trusted: nothing is granted
    ├── Busy                      ABORTED            others change the same policies at the same time
    ├── ModelsOff                 UNAVAILABLE        operators have turned off the models that could answer
    ├── ScorerUnavailable         UNAVAILABLE        no prediction in time, and the policy is to reject
    └── UpstreamError             UNAVAILABLE        a model could not be reached
        ├── UpstreamUnavailable   UNAVAILABLE        refused, broke off, or answered nonsense
        │   └── UpstreamSkipped   UNAVAILABLE        not called: left alone after failures, or it has no room
        ├── UpstreamRateLimited   UNAVAILABLE        429; carries when to come back
        ├── UpstreamTimeout       DEADLINE_EXCEEDED  no answer in time
        └── UpstreamRejected      INVALID_ARGUMENT   4xx that is the caller's fault; carries the upstream's words

`status` is the name of the gRPC status, `reason` the ErrorInfo reason and the metric label: a closed set.
"""

from typing import ClassVar


class PointsmanError(Exception):
    """Base of the hierarchy. `str(error)` is safe to show to the caller."""

    status: str = "INTERNAL"
    reason: str = "INTERNAL"
    retry_after: float | None = None
    """Seconds after which a retry can help, `None` if it cannot."""
    cost: int = 0
    """What the request had cost when it ended in this error, in nano-USD."""


class InvalidRequest(PointsmanError):
    """A field cannot be used. `field` is its path in the request, `mend` says what to write instead."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"

    def __init__(self, field: str, mend: str) -> None:
        super().__init__(f"{field}: {mend}")
        self.field = field
        self.mend = mend


class PayloadTooLarge(InvalidRequest):
    """More text than one conversation may hold."""

    reason = "PAYLOAD_TOO_LARGE"


class Unauthenticated(PointsmanError):
    """No credential, a wrong one, or a tenant that does not exist: the caller is not told which."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("no valid tenant credential")


class IdentityUnavailable(PointsmanError):
    """The keys of the tokens' issuer cannot be read. Nothing is wrong with the caller's token that we know of."""

    status = "UNAVAILABLE"
    reason = "IDENTITY_UNAVAILABLE"
    retry_after = 10.0

    def __init__(self) -> None:
        super().__init__("tokens cannot be verified now: the issuer's keys cannot be read")


class Forbidden(PointsmanError):
    """The tenant is known, but its policy does not allow this."""

    status = "PERMISSION_DENIED"
    reason = "FORBIDDEN"


class NotFound(PointsmanError):
    """What is asked about is not there, or belongs to someone else: the caller is not told which."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class IdempotencyConflict(InvalidRequest):
    """The request id stands for another body, whose result is kept or still being made."""

    reason = "IDEMPOTENCY_CONFLICT"

    def __init__(self) -> None:
        super().__init__("request_id", "this id was used for another request: choose a new one for each request")


class InFlight(PointsmanError):
    """The same request, by its id and body, is being answered right now."""

    status = "ABORTED"
    reason = "IN_FLIGHT"

    def __init__(self, retry_after: float) -> None:
        super().__init__("request_id: the same request is being answered: its result will be repeated once it is there")
        self.retry_after = retry_after


class FirstFailed(PointsmanError):
    """The same request failed before, and that cost something: its error again, with its status and reason."""

    def __init__(self, status: str, reason: str, message: str) -> None:
        super().__init__(f"{message} (repeated: the first try failed so, at a cost; try again under a new request_id)")
        self.status = status
        self.reason = reason


class BudgetExhausted(PointsmanError):
    """A limit of the tenant has no room for the worst case of the call. Amounts are exact, in US dollars.

    `period` is `hour`, `day` or `month`; `window_end` is in seconds since the epoch; `retry_after` is until then.
    """

    status = "RESOURCE_EXHAUSTED"
    reason = "BUDGET_EXHAUSTED"

    def __init__(self, *, period: str, limit: str, left: str, needed: str, window_end: int, retry_after: float) -> None:
        super().__init__(
            f"the limit of ${limit} per {period} has ${left} left, and this call may cost ${needed}: "
            f"the window ends in {retry_after:.0f} s"
        )
        self.period = period
        self.limit = limit
        self.left = left
        self.needed = needed
        self.window_end = window_end
        self.retry_after = retry_after


class RateLimited(PointsmanError):
    """The tenant asks for too much. `rate` is the configuration's key, such as `requests_per_minute`."""

    status = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"

    def __init__(self, rate: str, *, limit: int, retry_after: float) -> None:
        super().__init__(f"{rate} is {limit}, and it is used up: come back in {retry_after:.1f} s")
        self.rate = rate
        self.limit = limit
        self.retry_after = retry_after


class Overloaded(PointsmanError):
    """The process has too much to do, for all tenants."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"

    def __init__(self, *, retry_after: float) -> None:
        super().__init__("this dispatcher has too much to do: come back, or ask another replica")
        self.retry_after = retry_after


class LedgerUnavailable(PointsmanError):
    """The ledger's backend cannot be reached in time, or what it holds cannot be trusted."""

    status = "UNAVAILABLE"
    reason = "LEDGER_UNAVAILABLE"
    retry_after = 1.0

    def __init__(self, what: str) -> None:
        super().__init__(f"the ledger is unavailable: {what}")


class Busy(PointsmanError):
    """Others change the same thing at the same time."""

    status = "ABORTED"
    reason = "BUSY"
    retry_after = 0.1


class ModelsOff(PointsmanError):
    """Operators have turned off every model that could answer, or the one whose tool calls are answered."""

    status = "UNAVAILABLE"
    reason = "MODELS_OFF"

    def __init__(self, *models: str) -> None:
        which = f"model {models[0]} is" if len(models) == 1 else f"models {' and '.join(models)} are"
        super().__init__(f"{which} turned off for the time being")


class ScorerUnavailable(PointsmanError):
    """There is no win probability, and the tenant's policy is to reject."""

    status = "UNAVAILABLE"
    reason = "SCORER_UNAVAILABLE"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the scorer gave no prediction in time, and this tenant's on_scorer_failure is reject")


class UpstreamError(PointsmanError):
    """A model's deployment failed.

    Attributes:
        deployment: its name in the configuration.
        may_be_billed: it may have done work that it bills, so that the call is accounted for at the documented estimate
            and not at zero.
        called: false if it was not even called.
        retryable: another call of the same deployment may succeed.
        out_of_time: the caller's own deadline has passed: nothing can help.
        asked_to_wait: seconds for which the upstream wants to be left alone; 0 if it did not say.
    """

    status = "UNAVAILABLE"
    reason = "UPSTREAM_ERROR"
    called: ClassVar[bool] = True
    retryable: bool = True
    out_of_time: bool = False
    asked_to_wait: float = 0.0

    def __init__(self, deployment: str, what: str, *, may_be_billed: bool) -> None:
        super().__init__(f"deployment {deployment}: {what}")
        self.deployment = deployment
        self.may_be_billed = may_be_billed


class UpstreamUnavailable(UpstreamError):
    """It refused the connection or our key, failed, broke off, or answered what is no chat completion.

    `retryable` is false where the same call would fail alike, as with a key that it does not take.
    """

    reason = "UPSTREAM_UNAVAILABLE"

    def __init__(
        self, deployment: str, what: str, *, may_be_billed: bool, retryable: bool = True, asked_to_wait: float = 0.0
    ) -> None:
        super().__init__(deployment, what, may_be_billed=may_be_billed)
        self.retryable = retryable
        self.asked_to_wait = asked_to_wait
        self.retry_after = max(asked_to_wait, 1.0)


class UpstreamSkipped(UpstreamUnavailable):
    """It was not called: it failed so often that it is left alone, or it has all the calls that it may have."""

    called = False

    def __init__(self, deployment: str, what: str, *, asked_to_wait: float) -> None:
        super().__init__(deployment, what, may_be_billed=False, asked_to_wait=asked_to_wait)


class UpstreamRateLimited(UpstreamError):
    """It answered 429. `retry_after` is its Retry-After, or 1 s where it gave none."""

    reason = "UPSTREAM_RATE_LIMITED"

    def __init__(self, deployment: str, retry_after: float | None) -> None:
        super().__init__(deployment, "rate limited by the upstream", may_be_billed=False)
        self.asked_to_wait = retry_after or 0.0
        self.retry_after = 1.0 if retry_after is None else retry_after


class UpstreamTimeout(UpstreamError):
    """No answer within one of the deployment's timeouts or the caller's deadline, whichever was sooner."""

    status = "DEADLINE_EXCEEDED"
    reason = "UPSTREAM_TIMEOUT"

    def __init__(self, deployment: str, what: str, *, may_be_billed: bool, out_of_time: bool = False) -> None:
        super().__init__(deployment, what, may_be_billed=may_be_billed)
        self.out_of_time = out_of_time


class UpstreamRejected(UpstreamError):
    """It found fault with the request itself, so that a retry would fail alike."""

    status = "INVALID_ARGUMENT"
    reason = "UPSTREAM_REJECTED"
    retryable = False

    def __init__(self, deployment: str, what: str) -> None:
        super().__init__(deployment, what, may_be_billed=False)
