"""What a dispatcher does with more calls than it can answer.

    python -m benchmarks.overload --rate 3000

`Route` calls, so that nothing but the dispatcher itself is measured: open loop, whether or not those before are
answered, with admission as it is by default and with admission that never refuses. Choose a rate of several times what
the machine answers. An answer that comes late is of little use: look at how many come within a second.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio

from pointsman.dispatcher.v1 import dispatcher_pb2
from tests.dispatchers import Caller, chat, start_dispatcher
from tests.processes import ServiceProcess

_TIMEOUT = 30.0
_REQUEST = dispatcher_pb2.RouteRequest(chat=chat("Why is the sky blue?"))


async def _ask(caller: Caller, timeout: float = _TIMEOUT) -> str:
    """The call's status, with the deadline told as our client tells it."""
    metadata = (*caller.metadata, ("x-pointsman-timeout", f"{timeout:.3f}"))
    try:
        await caller.stub.Route(_REQUEST, metadata=metadata, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def _flood(caller: Caller, rate: float, seconds: float) -> list[tuple[str, float]]:
    """Status and seconds of each of `rate` calls per second, whether or not those before are answered."""
    ended: list[tuple[str, float]] = []

    async def ask() -> None:
        started = time.perf_counter()
        status = await _ask(caller)
        ended.append((status, time.perf_counter() - started))

    tasks: list[asyncio.Task[None]] = []
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        tasks += [asyncio.create_task(ask()) for _ in range(int(passed * rate) - len(tasks))]
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    return ended


def _print(name: str, ended: list[tuple[str, float]], seconds: float) -> None:
    times = sorted(taken for status, taken in ended if status == "OK")
    statuses = Counter(status for status, _ in ended)
    in_time = sum(taken <= 1 for taken in times)
    middle, late = (statistics.median(times), times[int(len(times) * 0.99)]) if times else (0.0, 0.0)
    print(
        f"{name}: {len(ended) / seconds:.0f}/s asked, {in_time / seconds:.0f}/s answered within 1 s, "
        f"median {middle:.2f} s, p99 {late:.2f} s; {dict(statuses)}"
    )


async def _measure(name: str, process: ServiceProcess, rate: float, seconds: float) -> None:
    async with Caller(process.wait_until_serving().grpc) as caller:
        await _flood(caller, 50, 1)
        _print(name, await _flood(caller, rate, seconds), seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Answers under more calls than can be answered.")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=3000.0)
    arguments = parser.parse_args()
    for name, env in (
        ("admission", {}),
        ("without", {"DISPATCHER_MAX_BACKLOG": "60", "DISPATCHER_MAX_CALLS": "1000000"}),
    ):
        with (
            tempfile.TemporaryDirectory() as directory,
            start_dispatcher(
                Path(directory),
                scorer="127.0.0.1:1",
                upstream="http://127.0.0.1:1/v1",
                environment={"DISPATCHER_LEDGER": "memory:", **env},
            ) as process,
        ):
            asyncio.run(_measure(name, process, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
