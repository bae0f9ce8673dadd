"""Everything a request can end with, other than an answer.

    ScorerError
    ├── InvalidRequest       INVALID_ARGUMENT     a field cannot be used; names it and the mend
    │   └── PayloadTooLarge  INVALID_ARGUMENT     too much text
    ├── NotFound             NOT_FOUND            no such scorer or model; names the field and what is known
    ├── WrongTask            FAILED_PRECONDITION  the scorer named has another task; names the field and which do
    ├── Overloaded           RESOURCE_EXHAUSTED   the queue is full; carries when to come back
    ├── Loading              UNAVAILABLE          the artefacts are not loaded yet
    └── DeadlineExpired      DEADLINE_EXCEEDED    the caller's deadline passed in the queue

`status` is the name of the gRPC status, `reason` the ErrorInfo reason. A directory that cannot be served is
`artifact.ArtifactError`: it ends a start, never a request.
"""

from typing import ClassVar, Final


class ScorerError(Exception):
    """Base of the hierarchy. `str(error)` is safe to show to the caller."""

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    retry_after: ClassVar[float | None] = None
    """Seconds after which a retry can help, `None` if it cannot."""


class InvalidRequest(ScorerError):
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


class NotFound(ScorerError):
    """`field` names a scorer or model that this process does not have; `mend` lists those it has."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"

    def __init__(self, field: str, mend: str) -> None:
        super().__init__(f"{field}: {mend}")
        self.field = field
        self.mend = mend


class WrongTask(ScorerError):
    """`field` names a scorer that cannot do what the method asks; `mend` says which can, or how to get one."""

    status = "FAILED_PRECONDITION"
    reason = "WRONG_TASK"

    def __init__(self, field: str, mend: str) -> None:
        super().__init__(f"{field}: {mend}")
        self.field = field
        self.mend = mend


class Overloaded(ScorerError):
    """The queue has no room for what the request brings."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    # About what a full queue of the shipped artefact takes; another replica may answer at once.
    retry_after = 0.1


class Loading(ScorerError):
    """The process listens, but has not yet loaded and proved its artefacts."""

    status = "UNAVAILABLE"
    reason = "LOADING"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the scorer is still loading its artefacts")


class DeadlineExpired(ScorerError):
    """Nobody waits for the answer any more, so that it was not computed."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXPIRED"

    def __init__(self) -> None:
        super().__init__("the deadline passed while the conversation waited for a worker")


ALL_ERRORS: Final = (InvalidRequest, PayloadTooLarge, NotFound, WrongTask, Overloaded, Loading, DeadlineExpired)
"""Every error a caller can get: their statuses and reasons are closed sets, and so metric labels."""
