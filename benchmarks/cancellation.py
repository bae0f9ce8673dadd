"""How soon an upstream sees that the caller has gone.

    python -m benchmarks.cancellation

A caller cancels its call; the clock stops when the upstream's connection breaks. Both times are of one monotonic clock.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from tests import faults
from tests.dispatchers import Caller
from tests.integration.test_disconnects import Bench, leave


async def _measure(bench: Bench, calls: int, *, streaming: bool) -> list[float]:
    """Milliseconds from each cancellation to the end of its upstream call."""
    measured = []
    async with Caller(bench.process.grpc, "alone") as caller:
        for number in range(calls):
            user = f"{streaming}-{number}"
            left = await leave(bench, caller, "stall", user, streaming=streaming)
            measured.append(((await bench.call(user))["ended_at"] - left) * 1000)
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time from a caller's cancellation to the upstream's.")
    parser.add_argument("--calls", type=int, default=100)
    calls = parser.parse_args().calls
    with (
        tempfile.TemporaryDirectory() as directory,
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(Path(directory), upstream) as process,
    ):
        bench = Bench(process.wait_until_serving(), Path(directory), upstream)
        for streaming in (False, True):
            times = asyncio.run(_measure(bench, calls, streaming=streaming))
            kind = "streamed" if streaming else "unary"
            print(f"{kind}: {calls} calls, median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms")


if __name__ == "__main__":
    main()
