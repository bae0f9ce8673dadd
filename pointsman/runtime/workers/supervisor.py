"""The parent of several workers: it starts them, replaces those that die, passes signals on, and shows their metrics.

It holds no gRPC and spawns, never forks: every worker is a program of its own. They share the gRPC port by
SO_REUSEPORT: the kernel gives each new *connection* to one of them.
"""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pointsman.runtime.endpoint import metrics_endpoint
from pointsman.runtime.logs import fields
from pointsman.runtime.starting import StartError, split_address
from pointsman.runtime.workers.merging import Families, GaugeRule, Merged
from pointsman.runtime.workers.spawning import Worker

_START_SECONDS = 120.0
"""A worker that neither serves nor ends within this time is ended."""
_STEADY_SECONDS = 60.0
"""A worker that served so long before it died is replaced without a growing pause."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_MOST_FAILURES = 5
"""Ends in a row, with no worker serving: then the parent gives up, so that whoever started it notices."""
_ANSWER_SECONDS = 2.0
"""How long a scrape waits for a worker's metrics; one that says nothing is shown as it was."""
_KEEP_UP_SECONDS = 5.0
"""Workers are asked so often without a scrape: it bounds what a killed one takes with it."""
_LAST_SECONDS = 30.0
"""Beyond the drain, for what a worker does after its last call, before it is killed."""

_ENDED_AS_ASKED = (0, -signal.SIGTERM, -signal.SIGINT)
"""A worker that has not come so far as to drain is ended by the signal itself."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What `supervise` runs.

    Attributes:
        service: short name for logs and metrics, such as `dispatcher`.
        module: run as `python -m MODULE FD`, FD being the worker's end of the line.
        count: how many.
        listen: `host:port` that they share; port 0 takes a free one.
        listen_variable: the environment variable that tells it to them.
        metrics_listen: `host:port` of the one Prometheus endpoint.
        drain_seconds: how long workers may take to finish their calls.
        gauges: how their gauges combine, by name.
    """

    service: str
    module: str
    count: int
    listen: str
    listen_variable: str
    metrics_listen: str
    drain_seconds: float
    gauges: Mapping[str, GaugeRule]


async def supervise(workers: Workers, environ: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT, then let the workers drain.

    Returns:
        The exit code: 0 after a drain of all, otherwise that of the worker that did not start (it has said why), or 1.

    Raises:
        StartError: an address cannot be used, or this system does not spread connections.
    """
    if sys.platform != "linux":
        raise StartError("several workers need Linux: elsewhere one of them would get every connection; set one")
    host, _ = split_address(workers.listen)
    with _reserve(workers.listen) as held:
        port = held.getsockname()[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return await _Parent(workers, {**environ, workers.listen_variable: address}).run(address)


def _reserve(listen: str) -> socket.socket:
    """A socket that holds an address which nobody else has. Workers may bind it beside us; we never listen."""
    host, port = split_address(listen)
    try:
        family, kind, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        held = socket.socket(family, kind)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Alone: a stranger on this port is found here, and not by losing half of the calls to it.
            held.bind(found)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            held.close()
            raise
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: is another process there? Choose another port") from error
    return held


class _Parent(Collector):
    """See `supervise`. As a collector it is the workers' metrics together."""

    def __init__(self, spec: Workers, environ: Mapping[str, str]) -> None:
        self._spec = spec
        self._environ = environ
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._numbers = itertools.count(1)
        self._workers: dict[int, Worker] = {}
        self._code = 0
        self._merged = Merged(spec.gauges)
        self._turn = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        name = f"pointsman_{spec.service}_workers"
        Gauge(name, "Workers that answer calls.", registry=self._registry).set_function(self._serving)
        self._died = Counter(f"{name}_died", "Workers that ended by themselves.", registry=self._registry)

    async def run(self, address: str) -> int:
        """See `supervise`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end)
        self._loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        with metrics_endpoint(self._spec.metrics_listen, self._registry) as metrics:
            keeping_up = asyncio.create_task(self._keep_up())
            try:
                await self._fill(address, metrics)
            finally:
                keeping_up.cancel()
                await asyncio.gather(keeping_up, return_exceptions=True)
        if self._stop.is_set():
            logger.info("stopped", extra=fields(service=self._spec.service))
        return self._code

    def collect(self) -> Iterable[Metric]:
        """Called on the endpoint's threads."""
        return asyncio.run_coroutine_threadsafe(self._look(), self._loop).result(2 * _ANSWER_SECONDS)

    async def _fill(self, address: str, metrics: str) -> None:
        """Start all workers and keep them until the end."""
        # The first one alone: what keeps a worker from starting is said once.
        first = await self._started()
        if not await first.serves(_START_SECONDS):
            first.send(signal.SIGKILL)
            code = await self._buried(first)
            self._code = 0 if self._stop.is_set() else max(code, 1)
            return
        rest = [await self._started() for _ in range(self._spec.count - 1)]
        await asyncio.gather(*(worker.serves(_START_SECONDS) for worker in rest))
        if not self._stop.is_set():
            logger.info(
                "serving",
                extra=fields(service=self._spec.service, grpc=address, metrics=metrics, workers=int(self._serving())),
            )
        places = [asyncio.create_task(self._keep(worker)) for worker in (first, *rest)]
        for place in places:
            # The end of one is the end of all: asked for, given up, or a fault of ours, which is raised below.
            place.add_done_callback(lambda _: self._end())
        await self._stop.wait()
        logger.info("draining", extra=fields(service=self._spec.service, seconds=self._spec.drain_seconds))
        _, late = await asyncio.wait(places, timeout=self._spec.drain_seconds + _LAST_SECONDS)
        if late:
            logger.error("workers do not end: killing them", extra=fields(workers=len(late)))
            for worker in self._workers.values():
                worker.send(signal.SIGKILL)
        await asyncio.gather(*places)

    async def _keep(self, worker: Worker) -> None:
        """Fill one place until the end, with this worker first."""
        failures = 0
        while True:
            since = self._loop.time()
            if not await worker.serves(_START_SECONDS):
                worker.send(signal.SIGKILL)
            code = await self._buried(worker)
            if self._stop.is_set():
                self._code = self._code or int(code not in _ENDED_AS_ASKED)
                return
            self._died.inc()
            failures = failures + 1 if self._loop.time() - since < _STEADY_SECONDS else 1
            if failures >= _MOST_FAILURES and not self._serving():
                logger.error("no worker stays: giving up", extra=fields(exit_code=code))
                self._code = 1
                return
            pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
            logger.error(
                "a worker died and will be replaced",
                extra=fields(worker=worker.number, pid=worker.pid, exit_code=code, pause_seconds=pause),
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
                return
            worker = await self._started()

    async def _started(self) -> Worker:
        number = next(self._numbers)
        worker = await Worker.started(number, self._spec.module, self._environ, self._took)
        self._workers[number] = worker
        if self._stop.is_set():
            worker.send(signal.SIGTERM)
        return worker

    async def _buried(self, worker: Worker) -> int:
        """Wait for a worker's end; returns its exit code."""
        code = await worker.ended()
        del self._workers[worker.number]
        self._merged.retire(worker.number)
        return code

    def _end(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            # One that starts reads its configuration anyhow, and SIGHUP would end it.
            if worker.is_serving or number is not signal.SIGHUP:
                worker.send(number)

    def _serving(self) -> float:
        return float(sum(worker.is_serving for worker in list(self._workers.values())))

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_UP_SECONDS)
            await self._look()

    async def _look(self) -> Sequence[Metric]:
        """Ask every worker, and merge what they have."""
        self._turn += 1
        await asyncio.gather(*(worker.tell(_ANSWER_SECONDS) for worker in self._workers.values()))
        return list(self._merged.collect())

    def _took(self, worker: int, found: Families) -> None:
        self._merged.update(worker, found, turn=self._turn)
