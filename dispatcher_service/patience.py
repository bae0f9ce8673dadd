"""How long one call of a model may take, phase by phase."""

import asyncio
from types import TracebackType
from typing import Self

from dispatcher_service.catalogue import Deployment


class Patience:
    """The timeouts of one call, and which of them passed. A context manager around the reads of a stream."""

    def __init__(self, deployment: Deployment, timeout: float) -> None:
        """`timeout` is what is left of the caller's deadline and the deployment's own, whichever is less."""
        self._deployment = deployment
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._first_token_at = self._started + min(timeout, deployment.first_token_timeout)
        self._waiting_for = "answer"
        self._reads = _Waits(self._loop)

    @property
    def out_of_time(self) -> bool:
        """True if the timeout that passed was the caller's deadline and not the deployment's."""
        elapsed = self._loop.time() - self._started
        return self._timeout < self._deployment.timeout and elapsed >= self._timeout

    @property
    def what(self) -> str:
        """What did not come in time, for the error."""
        return f"no {self._waiting_for} in time"

    def whole(self) -> asyncio.Timeout:
        """For a call that answers in one piece."""
        return asyncio.timeout_at(self._started + self._timeout)

    def first_token(self) -> asyncio.Timeout:
        """Until a stream has its first content."""
        self._waiting_for = "first token"
        return asyncio.timeout_at(self._first_token_at)

    def read(self, *, begun: bool) -> "_Waits":
        """For one read of a stream whose content has begun, or has not."""
        if not begun:
            self._waiting_for = "first token"
            return self._reads.until(self._first_token_at)
        self._waiting_for = "further token"
        soon = self._loop.time() + self._deployment.idle_timeout
        return self._reads.until(min(self._started + self._timeout, soon))

    @property
    def connect_timeout(self) -> float:
        """Seconds in which a connection must be made."""
        return min(self._timeout, self._deployment.connect_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reads.close()


class _Waits:
    """What `asyncio.timeout_at` does, around each of many short waits one after the other.

    They share a timer, which is set anew when it rings too early or for nobody, and not for each of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """Whose wait is under way."""
        self._cancelling = 0
        self._passed = False

    def until(self, when: float) -> Self:
        """When the next wait is over, on the loop's clock."""
        self._until = when
        return self

    def close(self) -> None:
        """There are no more waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None
        self._cancelling = task.cancelling()
        self._passed = False
        if self._timer is None or self._timer.when() > self._until:
            self.close()
            self._timer = self._loop.call_at(self._until, self._ring)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._passed:
            assert task is not None
            # Someone else may have cancelled it as well: then that counts.
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # The caller reads what it got: the next wait sets the timer.
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._ring)
        else:
            self._passed = True
            self._task.cancel()
