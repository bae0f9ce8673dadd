"""Median time of reserve + settle with three windows, per backend, on one connection.

    python -m benchmarks.ledger_speed [--calls 5000]

Valkey runs in a process of its own on loopback with an append-only file, as it should in production.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from dispatcher_service.budget import Limit, Period
from dispatcher_service.ledger.contract import Attempt, Charge, ChargeSource, Ledger, Reservation
from dispatcher_service.ledger.opening import open_ledger
from tests.proofs import valkey

_LIMITS = tuple(Limit(period, 10**15) for period in Period)
_CHARGE = Charge(cost=40_000, source=ChargeSource.REPORTED, tokens={"input": 20, "output": 8})


async def measure(ledger: Ledger, calls: int) -> list[float]:
    """Seconds of each pair, after a tenth of them to warm up."""
    seconds = []
    for number in range(calls + calls // 10):
        attempt = Attempt(
            id=f"attempt-{number}",
            tenant_id="acme",
            model="strong",
            worst_case=100_000,
            estimate=100_000,
            limits=_LIMITS,
            lifetime=120.0,
        )
        started = time.perf_counter()
        reservation = await ledger.reserve(attempt)
        assert isinstance(reservation, Reservation)
        await ledger.settle(reservation, _CHARGE)
        seconds.append(time.perf_counter() - started)
    await ledger.close()
    return seconds[calls // 10 :]


def main(argv: list[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    calls = parser.parse_args(argv).calls
    print(f"{'backend':24}{'median':>10}{'p99':>10}")
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as server:
        urls = {
            "memory": "memory:",
            "SQLite": f"sqlite:{folder}/ledger.sqlite",
            "SQLite, durable=1": f"sqlite:{folder}/durable.sqlite?durable=1",
            "Valkey on loopback": server.url,
        }
        for name, url in urls.items():
            count = calls if "durable" not in name else max(calls // 20, 10)
            seconds = asyncio.run(measure(open_ledger(url), count))
            ranked = statistics.quantiles(seconds, n=100)
            print(f"{name:24}{ranked[49] * 1e6:>7.0f} µs{ranked[98] * 1e6:>7.0f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
