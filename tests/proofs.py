"""Proofs of the ledger's promises with whole processes: dispatchers, a server that bills, SQLite or Valkey, SIGKILL.

Each proof returns what it measured; `benchmarks.budget_proofs` prints it, and tests hold it to the promise. Every call
that reaches the upstream is billed there, whether its answer is waited for or not: that is the truth that the ledger
is compared with.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio

from dispatcher_service.budget import Period, format_usd
from dispatcher_service.ledger.contract import ChargeSource, Ledger, OverrunCause
from dispatcher_service.ledger.opening import open_ledger
from dispatcher_service.ledger.redis import RedisLedger, connect
from dispatcher_service.ledger.sqlite import SqliteLedger
from tests.dispatchers import Caller
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import DISPATCHER_PORTS, ServiceProcess
from tests.valkey import ValkeyServer

TENANT = "acme"
MAX_TOKENS = 8
# The test server reports 20 prompt and 8 completion tokens for every answer; only the latter are priced.
COST = MAX_TOKENS * 1_000_000
"""What a call costs, in nano-USD: at $1,000 per million tokens, so that the limits of a proof are readable dollars."""
WORST_CASE = COST
_EXPIRED_BY_THEN = 600.0
"""Seconds after which every reservation of a proof has expired: its ledgers look that far ahead instead of waiting."""

_CONFIG = """
[scorer]
address = "127.0.0.1:1"
timeout = 0.05

[retries]
tries = 1

[[models]]
name = "strong"
price = {{ input = 0, output = 1000 }}
max_output_tokens = 8

[[models]]
name = "weak"
price = {{ input = 0, output = 1000 }}
max_output_tokens = 8

[[deployments]]
name = "strong-1"
model = "strong"
base_url = "{upstream}"
timeout = 5
breaker_failures = 1000

[[deployments]]
name = "weak-1"
model = "weak"
base_url = "{upstream}"
timeout = 5
breaker_failures = 1000

[tenants.acme]
strong_model = "strong"
weak_model = "weak"
alpha = 0.5
pace = false
usd_per_month = {limit}
on_exhausted = "reject"
"""


@dataclass
class Load:
    """What became of calls."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        return self.statuses["OK"]


@dataclass(frozen=True)
class Books:
    """The ledger beside the truth, in calls and nano-USD, once every reservation has expired."""

    limit: int
    received: int
    """Calls that reached the upstream, each billed at COST."""
    answered: int
    settled: int
    expired_calls: int
    expired: int
    reserved: int
    overruns: int

    @property
    def billed(self) -> int:
        return self.received * COST

    @property
    def ledger(self) -> int:
        return self.settled + self.expired

    def check(self) -> None:
        """The promises that hold whatever was killed."""
        assert self.answered * COST <= self.settled, "no settled spend is lost"
        assert self.billed <= self.ledger <= self.billed + self.expired_calls * WORST_CASE
        assert self.ledger <= self.limit, "no grant above the limit"
        assert self.reserved == 0, "nothing is reserved after expiry"
        assert self.overruns == 0

    def __str__(self) -> str:
        highest = self.billed + self.expired_calls * WORST_CASE
        return (
            f"billed ${format_usd(self.billed)} <= ledger ${format_usd(self.ledger)} <= billed + "
            f"{self.expired_calls} killed calls' estimates ${format_usd(highest)}; "
            f"answered {self.answered}, received {self.received}, reserved after expiry {self.reserved}, "
            f"overruns {self.overruns}, limit ${format_usd(self.limit)}"
        )


@contextmanager
def fleet(
    folder: Path, upstream: OpenAIServer, ledger: str, *, size: int, limit: int
) -> Iterator[list[ServiceProcess]]:
    """Serving dispatchers over one ledger; `limit` is the tenant's per month, in nano-USD."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start(folder, upstream, ledger, limit=limit)) for _ in range(size)]
        for process in processes:
            process.wait_until_serving()
        yield processes


def start(folder: Path, upstream: OpenAIServer, ledger: str, *, limit: int) -> ServiceProcess:
    """A dispatcher that begins to start."""
    config = folder / "proof.toml"
    config.write_text(_CONFIG.format(upstream=upstream.base_url, limit=format_usd(limit)))
    env = {
        **DISPATCHER_PORTS,
        "DISPATCHER_CONFIG": str(config),
        "DISPATCHER_LEDGER": ledger,
        "DISPATCHER_DRAIN": "2",
        "DISPATCHER_DECISION_RETENTION": "0",
    }
    return ServiceProcess("dispatcher_service", env=env)


async def load(
    addresses: Sequence[str],
    *,
    calls: int,
    concurrency: int,
    stop: asyncio.Event | None = None,
    into: Load | None = None,
) -> Load:
    """So many calls over all addresses, `concurrency` at once, each with a deadline; ends early at `stop`."""
    result, left, started = into or Load(), iter(range(calls)), time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(address, TENANT)) for address in addresses]

        async def worker(caller: Caller) -> None:
            for _ in left:
                if stop is not None and stop.is_set():
                    return
                try:
                    await caller.complete("hi")
                    result.statuses["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    result.statuses[error.code().name] += 1
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        await asyncio.sleep(0.02)

        await asyncio.gather(*(worker(callers[index % len(callers)]) for index in range(concurrency)))
    result.seconds = time.monotonic() - started
    return result


async def books(ledger_url: str, upstream: OpenAIServer, *, answered: int, limit: int) -> Books:
    """Open the ledger with its clock set ahead, so that everything open has expired, and read it."""
    ledger = _ahead(ledger_url)
    try:
        while await ledger.expire():
            pass
        today = datetime.now(UTC).date()
        rows = await ledger.usage(today - timedelta(days=1), today + timedelta(days=1))
        month = (await ledger.balances(TENANT))[2]
        overruns = await ledger.overruns(TENANT)
    finally:
        await ledger.close()
    expired = [row for row in rows if row.source is ChargeSource.EXPIRED]
    settled = sum(row.cost for row in rows if row.source is not ChargeSource.EXPIRED)
    assert month.window.period is Period.MONTH
    assert month.spent == settled + sum(row.cost for row in expired), "the report's rows sum to the window"
    return Books(
        limit=limit,
        received=len(upstream.bodies),
        answered=answered,
        settled=settled,
        expired_calls=sum(row.calls for row in expired),
        expired=sum(row.cost for row in expired),
        reserved=month.reserved,
        overruns=sum(overruns[cause].count for cause in OverrunCause),
    )


@dataclass(frozen=True)
class FleetResult:
    """What `one_limit_for_many` measured."""

    books: Books
    load: Load
    highest_committed: int

    @property
    def usable(self) -> float:
        return self.books.ledger / self.books.limit


def one_limit_for_many(folder: Path, *, dispatchers: int, calls: int, concurrency: int) -> FleetResult:
    """Several dispatchers spend one limit on Valkey until it is used up; it has room for 95 % of the calls."""
    limit = calls * 95 // 100 * COST
    assert limit >= 200 * concurrency * WORST_CASE, "the promise is about such limits"
    with valkey(folder) as server, openai_server_thread() as upstream:
        with fleet(folder, upstream, server.url, size=dispatchers, limit=limit) as processes:

            async def run() -> tuple[Load, int]:
                ended = asyncio.Event()
                watching = asyncio.create_task(_highest_committed(server.url, ended))
                done = await load([process.grpc for process in processes], calls=calls, concurrency=concurrency)
                ended.set()
                return done, await watching

            done, highest = asyncio.run(run())
        found = asyncio.run(books(server.url, upstream, answered=done.answered, limit=limit))
    return FleetResult(found, done, highest)


async def _highest_committed(url: str, ended: asyncio.Event) -> int:
    ledger, highest = open_ledger(url, timeout=5.0), 0
    while not ended.is_set():
        highest = max(highest, (await ledger.balances(TENANT))[2].committed)
        await asyncio.sleep(0.002)
    await ledger.close()
    return highest


def killed_under_load(folder: Path, backend: str, *, kills: int, seed: int = 1) -> Books:
    """A dispatcher is killed with SIGKILL at a random moment under load, and another takes over, so many times."""
    random_, answered, limit = random.Random(seed), 0, 10**15
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(openai_server_thread())
        upstream.delay = 0.01
        url = f"sqlite:{folder / 'ledger.db'}" if backend == "sqlite" else stack.enter_context(valkey(folder)).url
        following = start(folder, upstream, url, limit=limit)
        for number in range(kills):
            process = following.wait_until_serving()
            # The next one starts meanwhile, and shares the ledger.
            following = start(folder, upstream, url, limit=limit) if number + 1 < kills else process
            with process:
                answered += asyncio.run(_until_killed(process, after=random_.uniform(0.05, 0.8)))
        return asyncio.run(books(url, upstream, answered=answered, limit=limit))


async def _until_killed(process: ServiceProcess, *, after: float) -> int:
    async with Caller(process.grpc, TENANT) as caller:
        answered, first = 0, asyncio.Event()

        async def worker() -> None:
            nonlocal answered
            with contextlib.suppress(grpc.aio.AioRpcError):
                while True:
                    await caller.complete("hi")
                    answered += 1
                    first.set()

        workers = [asyncio.create_task(worker()) for _ in range(8)]
        async with asyncio.timeout(30):
            await first.wait()
        await asyncio.sleep(after)
        await asyncio.to_thread(process.kill)
        await asyncio.wait(workers, timeout=10)
        for task in workers:
            task.cancel()
    return answered


@dataclass(frozen=True)
class RestartResult:
    """What `server_restarted` measured."""

    books: Books
    load: Load


def server_restarted(folder: Path, *, restarts: int) -> RestartResult:
    """Valkey with an append-only file is killed with SIGKILL under load and started again on its data.

    A call that reaches the upstream meanwhile was granted before, or it would be billed without being in the book.
    The file is synced before each answer: with `everysec` a killed server can take two seconds along on a slow disk.
    """
    limit = 10**15
    with valkey(folder, "--appendfsync", "always") as server, openai_server_thread() as upstream:
        upstream.delay = 0.005
        with fleet(folder, upstream, server.url, size=1, limit=limit) as processes:

            async def run() -> Load:
                done, stop = Load(), asyncio.Event()
                address = processes[0].grpc
                running = asyncio.create_task(load([address], calls=10**9, concurrency=8, stop=stop, into=done))
                for _ in range(restarts):
                    await _more(done, "OK")
                    await asyncio.to_thread(server.kill)
                    await _more(done, "UNAVAILABLE")
                    await asyncio.to_thread(server.start)
                await _more(done, "OK")
                stop.set()
                await running
                return done

            done = asyncio.run(run())
        found = asyncio.run(books(server.url, upstream, answered=done.answered, limit=limit))
    return RestartResult(found, done)


async def _more(result: Load, status: str, calls: int = 20) -> None:
    """Wait until so many more calls have ended in a status."""
    wanted = result.statuses[status] + calls
    async with asyncio.timeout(60):
        while result.statuses[status] < wanted:  # noqa: ASYNC110  nobody tells of a count
            await asyncio.sleep(0.01)


@contextmanager
def valkey(folder: Path, *options: str) -> Iterator[ValkeyServer]:
    """A Valkey with an append-only file, and more of its command line's options."""
    server = ValkeyServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _ahead(url: str) -> Ledger:
    kind, _, path = url.partition(":")
    if kind == "sqlite":
        return SqliteLedger(Path(path), clock=lambda: time.time() + _EXPIRED_BY_THEN)
    return RedisLedger(connect(url, timeout=5.0), clock_shift=lambda: _EXPIRED_BY_THEN)
