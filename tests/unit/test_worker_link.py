"""The line between a parent and a worker."""

import asyncio
import socket
import threading

from prometheus_client import CollectorRegistry, Counter, Gauge

from pointsman.runtime.workers.link import METRICS, SERVING, ParentEnd, WorkerEnd
from pointsman.runtime.workers.merging import Merged


def _fails() -> float:
    raise RuntimeError("not now")


async def test_a_worker_says_that_it_serves_answers_for_its_metrics_and_notices_its_parents_end() -> None:
    ours, its = socket.socketpair()
    registry, gone = CollectorRegistry(), threading.Event()
    Counter("calls", "Calls.", registry=registry).inc(3)
    gauge = Gauge("tasks", "Tasks.", registry=registry)
    worker = WorkerEnd(its.detach())
    worker.open(registry, gone=gone.set)
    parent = await ParentEnd.opened(ours)
    async with asyncio.timeout(10):
        worker.serving()
        assert await parent.read() == {SERVING: True}
        parent.ask()
        merged = Merged({})
        merged.update(1, (await parent.read())[METRICS], turn=1)
        assert {sample.name: sample.value for metric in merged.collect() for sample in metric.samples} == {
            "calls_total": 3,
            "tasks": 0,
        }
        gauge.set_function(_fails)
        parent.ask()
        assert await parent.read() == {METRICS: None}, "and the worker lives on"
        gauge.set_function(lambda: 1.0)
        parent.ask()
        assert (await parent.read())[METRICS] is not None
        parent.close()
        assert await asyncio.to_thread(gone.wait, 10)
