"""A dispatcher as it is run, between a real scorer and an upstream: what every row about it measures."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from benchmarks import h2load, machine, prompts, servers
from benchmarks.h2load import Load, Target
from pointsman.dispatcher.v1 import dispatcher_pb2
from pointsman.dispatcher.v1.chat_pb2 import Chat
from tests.dispatchers import chat
from tests.processes import ServiceProcess

_COMPLETE = "pointsman.dispatcher.v1.DispatcherService/Complete"
_STREAM = "pointsman.dispatcher.v1.DispatcherService/StreamComplete"
_REQUESTS = "pointsman_dispatcher_requests_total"
_TYPICAL = chat(prompts.TYPICAL)


@dataclass(frozen=True, slots=True)
class Rig:
    """A dispatcher, its scorer and its upstream."""

    dispatcher: ServiceProcess
    scorer: ServiceProcess
    upstream: str
    upstream_pid: int
    folder: Path

    def complete(
        self, calls: int, clients: int, tenant: int = 0, *, asked: Chat | None = None, may_refuse: bool = False
    ) -> Load:
        """Unary calls of a typical prompt, or what is `asked`. Each must end with OK, unless some may be refused.

        Raises:
            h2load.LoadFailed: one was not.
        """
        message = dispatcher_pb2.CompleteRequest(chat=asked or _TYPICAL)
        if may_refuse:
            target = Target.grpc(self.dispatcher.grpc, _COMPLETE, message, tenant=servers.tenant(tenant))
            return h2load.run(target, calls=calls, clients=clients)
        return self._run(_COMPLETE, message, calls, clients, tenant)

    def target(self, address: str = "", *, timeout: float = 0.0, tls: bool = False) -> Target:
        """What an open loop sends: `Complete` of the first tenant, to the dispatcher or to what stands before it."""
        message = dispatcher_pb2.CompleteRequest(chat=_TYPICAL)
        where = address or self.dispatcher.grpc
        return Target.grpc(where, _COMPLETE, message, tenant=servers.tenant(), timeout=timeout, tls=tls)

    def stream_target(self, address: str) -> Target:
        """What `stream` sends, for another server."""
        message = dispatcher_pb2.StreamCompleteRequest(chat=_TYPICAL)
        return Target.grpc(address, _STREAM, message, tenant=servers.tenant())

    def answered(self, status: str = "OK") -> float:
        """`Complete` calls that have ended so, since the dispatcher began."""
        return self._answered(_COMPLETE, status)

    def stream(self, calls: int, clients: int) -> Load:
        """Streams, likewise."""
        message = dispatcher_pb2.StreamCompleteRequest(chat=_TYPICAL)
        return self._run(_STREAM, message, calls, clients, 0)

    def _run(self, method: str, message: Message, calls: int, clients: int, tenant: int) -> Load:
        target = Target.grpc(self.dispatcher.grpc, method, message, tenant=servers.tenant(tenant))
        name, before = method.partition("/")[2], self._answered(method)
        load = h2load.run(target, calls=calls, clients=clients)
        answered = self._answered(method) - before
        if answered != calls:
            raise h2load.LoadFailed(f"{name}: {calls - answered:g} of {calls} calls did not end with OK")
        return load

    def _answered(self, method: str, status: str = "OK") -> float:
        return servers.counter(self.dispatcher.metrics, _REQUESTS, method=method.partition("/")[2], status=status)


@contextlib.contextmanager
def rig(
    *, upstream: str | None = None, tenants: int = 1, cores: frozenset[int] = machine.MEASURED, **env: str
) -> Iterator[Rig]:
    """A warm rig; without an `upstream` its own is nginx. The dispatcher runs on `cores`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, pid = (upstream, 0) if upstream else stack.enter_context(servers.nginx(folder))
        scorer = stack.enter_context(servers.scorer(measured=False))
        dispatcher = stack.enter_context(
            servers.dispatcher(folder, scorer=scorer.grpc, upstream=address, tenants=tenants, cores=cores, **env)
        )
        made = Rig(dispatcher, scorer, address, pid, folder)
        if upstream is None:
            made.complete(500, 16, may_refuse=True)
        yield made
