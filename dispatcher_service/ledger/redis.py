"""The ledger in Redis or Valkey: for many dispatchers. One script per step (see redis_script.py), one slot per tenant.

*Durability* is the server's: run it with `appendonly yes`. With `appendfsync always` a killed server has every step
that it answered. With `everysec` a power cut may lose a second, and where the disk is behind with its syncs the server
holds writes back for up to two, which a kill then loses as well. A failover to a replica may lose what was not
replicated yet. A server that evicts keys is refused. A server that came back empty is not believed: a dispatcher that
has seen a tenant's book gets no grant from one that was born later, and fails closed until it is restarted.

*Trying again*: never by itself. A step whose answer was lost may have been made; reserving again by the same id, and
settling again, are safe.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, cast
from urllib.parse import quote

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from dispatcher_service.budget import Limit, Period, Windows, windows_at
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.contract import (
    RETENTION,
    SETTLED_RETENTION,
    TOKEN_CLASSES,
    WINDOWS_KEPT,
    Attempt,
    Balance,
    Balances,
    Charge,
    ChargeSource,
    Document,
    DocumentWrite,
    Overrun,
    OverrunCause,
    Refusal,
    Reservation,
    Settled,
    UsageRow,
)
from dispatcher_service.ledger.redis_script import PUT_DOCUMENT, SCRIPT

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Of the keys. The database holds the highest that has used it, and the oldest that may still run beside that."""
OLDEST_COMPATIBLE = 1

_PREFIX = "pointsman:ledger"
_RETENTION_MS = int(RETENTION * 1000)
_KEPT_MS = tuple(int(WINDOWS_KEPT[period] * 1000) for period in Period)
_CLOCK_TRIES = 3
_STEPS_AT_ONCE = 16
"""A step takes a fraction of a millisecond: more connections at once would only make a burst wait for their setup."""
_GLOB = re.compile(r"[*?\[\]\\^-]")

Client = redis.asyncio.Redis | redis.asyncio.RedisCluster


def connect(url: str, *, timeout: float = 1.0, max_connections: int = 64) -> Client:
    """A client for `redis://`, `rediss://`, or either with `+cluster`, such as `redis+cluster://host:6379`.

    `timeout` is in seconds, for connecting and for each step. Connects on first use.
    """
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": max_connections,
    }
    plain, cluster, _ = scheme.partition("+cluster")
    if cluster:
        del options["retry"]
        return redis.asyncio.RedisCluster.from_url(f"{plain}://{rest}", **options)
    return redis.asyncio.Redis.from_url(url, **options)


class RedisLedger:
    """See `contract.Ledger`."""

    immediate = False

    def __init__(
        self,
        client: Client,
        *,
        clock_shift: Callable[[], float] = lambda: 0.0,
        schema: tuple[int, int] = (SCHEMA_VERSION, OLDEST_COMPATIBLE),
        script: str = SCRIPT,
        patience: float = 1.0,
    ) -> None:
        """`patience` is how long, in seconds, a step may wait for its turn.

        For tests: `clock_shift` seconds are added to the server's clock; `schema`, (version, oldest), and `script` are
        those of another version of this program.
        """
        # The client's own types depend on its options; the commands used here answer bytes.
        self._client = cast("Any", client)
        self._clock_shift = clock_shift
        self._schema = schema
        self._source = script
        self._sha = ""
        self._patience = patience
        self._turns = asyncio.Semaphore(_STEPS_AT_ONCE)
        self._ahead = 0.0
        """The server's clock minus ours, in seconds; corrected whenever the server finds it wrong."""
        self._born: dict[str, str] = {}

    async def reserve(self, attempt: Attempt) -> Reservation | Refusal:
        _check_name(attempt.tenant_id)
        _check_name(attempt.model)
        limits = {limit.period: limit for limit in attempt.limits}
        amounts = [str(limits[period].amount) if period in limits else "" for period in Period]
        if attempt.tenant_id not in self._born:
            await self._do(lambda: self._client.sadd(f"{_PREFIX}:tenants", attempt.tenant_id))

        def arguments(windows: Windows) -> Sequence[object]:
            hour, day, month = windows
            return (
                self._born.get(attempt.tenant_id, ""), _RETENTION_MS, attempt.id, attempt.model, attempt.worst_case,
                attempt.estimate, int(attempt.started), int(attempt.lifetime * 1000), hour.start, day.start,
                month.start, hour.end, *amounts, *_KEPT_MS,
            )  # fmt: skip

        windows, reply = await self._at_server_time("reserve", attempt.tenant_id, arguments)
        if reply[0] == b"lost":
            raise LedgerUnavailable("the book of this tenant is gone from the server: restart to begin a new one")
        if reply[0] == b"refused":
            now = int(reply[1]) / 1000
            balance = _balances(windows, reply[3:])[reply[2] - 1]
            return Refusal(
                limit=Limit(balance.window.period, limits[balance.window.period].amount),
                balance=balance,
                needed=attempt.worst_case,
                now=now,
            )
        _, born, worst_case, estimate, expires_ms, model, hour, *accounts = reply
        self._born[attempt.tenant_id] = born.decode()
        return Reservation(
            id=attempt.id,
            tenant_id=attempt.tenant_id,
            model=model.decode(),
            worst_case=int(worst_case),
            estimate=int(estimate),
            expires_at=int(expires_ms) / 1000,
            balances=_balances(windows_at(int(hour)), accounts),
        )

    async def mark_started(self, reservation: Reservation) -> bool:
        return bool(await self._script("mark", reservation.tenant_id, reservation.id))

    async def settle(self, reservation: Reservation, charge: Charge) -> Settled:
        status, charged, late, change, excess, *accounts = await self._script(
            "settle", reservation.tenant_id, reservation.id, int(SETTLED_RETENTION * 1000), charge.cost,
            charge.source.value, reservation.model, reservation.worst_case, reservation.estimate,
            round(reservation.expires_at * 1000), *(window.start for window in reservation.windows), *charge.counts(),
        )  # fmt: skip
        cause = OverrunCause.LATE_SETTLE if late else OverrunCause.ABOVE_RESERVATION
        return Settled(
            charged=int(charged),
            change=int(change or 0),
            repeated=status == b"repeated",
            late=bool(late),
            overrun=(cause, int(excess)) if int(excess) > 0 else None,
            balances=_balances(reservation.windows, accounts),
        )

    async def release(self, reservation: Reservation) -> bool:
        return bool(await self._script("release", reservation.tenant_id, reservation.id, _RETENTION_MS))

    async def expire(self) -> int:
        expired = 0
        for tenant_id in await self._tenants():
            expired += await self._script("expire", tenant_id, _RETENTION_MS)
        return expired

    async def balances(self, tenant_id: str) -> Balances:
        _check_name(tenant_id)

        def arguments(windows: Windows) -> Sequence[object]:
            hour, day, month = windows
            return _RETENTION_MS, hour.start, day.start, month.start, hour.end

        windows, reply = await self._at_server_time("balances", tenant_id, arguments)
        return _balances(windows, reply[1:])

    async def overruns(self, tenant_id: str) -> Mapping[OverrunCause, Overrun]:
        names = [f"{cause.value}:{what}" for cause in OverrunCause for what in ("count", "amount")]
        values = await self._do(lambda: self._client.hmget(_keys(tenant_id)[4], names))
        numbers = [int(value or 0) for value in values]
        return {cause: Overrun(*numbers[2 * index : 2 * index + 2]) for index, cause in enumerate(OverrunCause)}

    async def usage(self, first: date, last: date) -> list[UsageRow]:
        rows = []
        for tenant_id in await self._tenants():
            usage_key = _keys(tenant_id)[3]
            fields = await self._do(lambda key=usage_key: self._client.hgetall(key))  # type: ignore[misc]
            found: dict[tuple[date, str, ChargeSource], dict[str, int]] = {}
            for name, value in fields.items():
                start, model, source, what = name.decode().split("|")
                day = datetime.fromtimestamp(int(start), tz=UTC).date()
                if first <= day <= last:
                    found.setdefault((day, model, ChargeSource(source)), {})[what] = int(value)
            rows += [
                UsageRow(
                    tenant_id=tenant_id,
                    day=day,
                    model=model,
                    source=source,
                    calls=row.get("calls", 0),
                    cost=row.get("cost", 0),
                    tokens={name: row.get(name, 0) for name in TOKEN_CLASSES},
                )
                for (day, model, source), row in found.items()
                if row.get("calls") or row.get("cost")
            ]
        return sorted(rows, key=lambda row: (row.tenant_id, row.day, row.model, row.source.value))

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        key = _document_key(tenant_id, name)
        version, body = await self._do(lambda: self._client.hmget(key, "version", "body"))
        return None if version is None else Document(int(version), body)

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        arguments = _put_arguments(DocumentWrite(tenant_id, name, body, expected, lifetime))
        return bool(await self._do(lambda: self._client.eval(PUT_DOCUMENT, 1, *arguments)))

    async def put_documents(self, writes: Sequence[DocumentWrite]) -> list[bool]:
        def send() -> Awaitable[list[Any]]:
            pipeline = self._client.pipeline(transaction=False)
            for write in writes:
                pipeline.eval(PUT_DOCUMENT, 1, *_put_arguments(write))
            sent: Awaitable[list[Any]] = pipeline.execute()
            return sent

        return [bool(written) for written in await self._do(send)] if writes else []

    async def documents(self, tenant_id: str, prefix: str) -> AsyncIterator[tuple[str, Document]]:
        begin = len(_document_key(tenant_id, ""))
        async for key in self._document_keys(tenant_id, prefix):
            name = key.decode()[begin:]
            document = await self.get_document(tenant_id, name)
            if document is not None:
                yield name, document

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        key = _document_key(tenant_id, name)
        return bool(await self._do(lambda: self._client.unlink(key)))

    async def delete_documents(self, tenant_id: str, prefix: str) -> int:
        begin = len(_document_key(tenant_id, ""))
        # Gone through first: a scan may give a key twice, and deleting during it is not needed.
        names = {key.decode()[begin:] async for key in self._document_keys(tenant_id, prefix)}
        return sum([await self.delete_document(tenant_id, name) for name in names])

    async def _document_keys(self, tenant_id: str, prefix: str) -> AsyncIterator[bytes]:
        """Walks through the whole database, a thousand keys per step: for exports and erasures, not for requests."""
        pattern = _GLOB.sub(r"\\\g<0>", _document_key(tenant_id, prefix)) + "*"
        with _translated():
            async for key in self._client.scan_iter(match=pattern, count=1000):
                yield key

    async def scrub(self) -> None:
        """The server's files are its operator's (see the contract)."""

    async def close(self) -> None:
        await self._client.aclose()

    def _now(self) -> float:
        return time.monotonic() + self._ahead + self._clock_shift()

    async def _at_server_time(
        self, step: str, tenant_id: str, arguments: Callable[[Windows], Sequence[object]]
    ) -> tuple[Windows, list[Any]]:
        """Run a step that needs the windows of the server's now. Where ours were others, it says so: we ask again."""
        for _ in range(_CLOCK_TRIES):
            windows = windows_at(self._now())
            reply: list[Any] = await self._script(step, tenant_id, *arguments(windows))
            if reply[0] != b"clock":
                return windows, reply
            self._ahead = int(reply[1]) / 1000 - self._clock_shift() - time.monotonic()
        raise LedgerUnavailable("the server's clock and this host's disagree from one moment to the next")

    async def _script(self, step: str, tenant_id: str, *arguments: object) -> Any:
        keys = _keys(tenant_id)
        shift_ms = int(self._clock_shift() * 1000)

        async def run() -> Any:
            if not self._sha:
                await self._check_server()
            try:
                return await self._client.evalsha(self._sha, len(keys), *keys, step, shift_ms, *arguments)
            except NoScriptError:  # the server was restarted, or this is another node of the cluster
                return await self._client.eval(self._source, len(keys), *keys, step, shift_ms, *arguments)

        return await self._do(run)

    async def _do(self, call: Callable[[], Awaitable[Any]]) -> Any:
        with _translated():
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
            try:
                return await call()
            finally:
                self._turns.release()

    async def _tenants(self) -> list[str]:
        members = await self._do(lambda: self._client.smembers(f"{_PREFIX}:tenants"))
        return sorted(member.decode() for member in members)

    async def _check_server(self) -> None:
        """Once, before the first step: refuse a server that may forget, or a database of a newer version."""
        memory = await self._client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise LedgerUnavailable(f"the server's maxmemory-policy is {policy}, which drops money: set noeviction")
        persistence = await self._client.info("persistence")
        if not persistence.get("aof_enabled"):
            logger.warning(
                "the ledger's server has no append-only file: a restart forgets spending; set appendonly yes"
            )
        version, oldest = self._schema
        key = f"{_PREFIX}:schema"
        stored = await self._client.hmget(key, "version", "oldest")
        if int(stored[1] or 0) > version:
            raise LedgerUnavailable(
                f"the database has schema {int(stored[0])}, which programs of schema {int(stored[1])} or newer may "
                f"use; this one has {version}: upgrade it"
            )
        if int(stored[0] or 0) < version:
            await self._client.hset(key, mapping={"version": version, "oldest": oldest})
        sha = await self._client.script_load(self._source)
        self._sha = sha.decode() if isinstance(sha, bytes) else sha


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise LedgerUnavailable(f"Redis: {error or type(error).__name__}") from error


def _keys(tenant_id: str) -> tuple[str, str, str, str, str]:
    base = f"{_PREFIX}:{{{quote(tenant_id, safe='')}}}"
    return f"{base}:windows", f"{base}:reservations", f"{base}:due", f"{base}:usage", f"{base}:book"


def _document_key(tenant_id: str, name: str) -> str:
    return f"{_PREFIX}:{{{quote(tenant_id, safe='')}}}:document:{name}"


def _put_arguments(write: DocumentWrite) -> tuple[str, int, bytes, int | str]:
    lifetime_ms = "" if write.lifetime is None else int(write.lifetime * 1000)
    return _document_key(write.tenant_id, write.name), write.expected, write.body, lifetime_ms


def _check_name(name: str) -> None:
    if not name or "|" in name:
        raise ValueError(f"a tenant or model needs a name without '|': {name!r}")


def _balances(windows: Windows, accounts: Sequence[bytes | None]) -> Balances:
    """From spent, reserved and cap of each window."""
    hour, day, month = (
        Balance(window, int(accounts[3 * index] or 0), int(accounts[3 * index + 1] or 0))
        for index, window in enumerate(windows)
    )
    return hour, day, month
