"""Traces, as a port: one span per gRPC call, one child per scorer call and one per upstream attempt.

Spans are made by hand around our own ports: gRPC's instrumentation for asyncio leaks streams (its issue
3066). `NoTracing` hands back what it is given, so that tracing costs nothing where it is off; the other
implementation is `otel_tracing`, which alone imports OpenTelemetry.
"""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from dispatcher_service.outcome import Outcome
from dispatcher_service.ports import Judge, Scorer, Upstream
from pointsman.runtime.boundary import Ended


class Tracing(Protocol):
    """What the composition root wires in."""

    def call(self, method: str, context: Any) -> AbstractContextManager[Ended]:
        """A span for a gRPC call with its full method name, child of what the caller's metadata names."""

    def scorer(self, inner: Scorer) -> Scorer:
        """The same scorer, with a span for each call."""

    def judge(self, inner: Judge) -> Judge:
        """The same judge, with a span for each call."""

    def upstream(self, inner: Upstream) -> Upstream:
        """The same upstream, with a span for each attempt."""

    def observe(self, outcome: Outcome) -> None:
        """Write decision and cost into the call's span. See `outcome.Record`."""

    def headers(self) -> Mapping[str, str]:
        """The W3C context to send along with a call that is made now."""

    def trace_id(self) -> str:
        """The trace of the call that is answered now, 32 hexadecimal digits; empty without one."""

    async def close(self) -> None:
        """Send what is held back."""


class NoTracing:
    """Implements `Tracing` by doing nothing."""

    def call(self, method: str, context: Any) -> AbstractContextManager[Ended]:
        return contextlib.nullcontext(_ignore)

    def scorer(self, inner: Scorer) -> Scorer:
        return inner

    def judge(self, inner: Judge) -> Judge:
        return inner

    def upstream(self, inner: Upstream) -> Upstream:
        return inner

    def observe(self, outcome: Outcome) -> None:
        pass

    def headers(self) -> Mapping[str, str]:
        return {}

    def trace_id(self) -> str:
        return ""

    async def close(self) -> None:
        pass


def _ignore(_: str) -> None:
    pass
