"""One result per request id: a layer around the use case that runs a request once, and after that repeats its result.

Only a request that the caller has named takes part, and only while its tenant keeps results (`idempotency_retention`).
Per tenant and request id there is one document beside the ledger, so that replicas agree:

    none ──claim──> running ──answer──> done ──retention──> none
                       │ └──error that cost something──> done
                       └──error that cost nothing, too large, cancelled, crash──> none

- *Done*, same body: the first result again, marked as replayed. It costs nothing and moves nothing.
- *Running*: `InFlight`. A claim lapses by itself `LEASE` seconds after its process stopped renewing it, so that the
  request of a crashed dispatcher runs anew; what both runs cost stands in the ledger.
- Another body under the same id, running or done: `IdempotencyConflict`.

A document holds the answer's text: text at rest, for as long as results are kept. Its name is a hash.

*Failure*: a request is not begun while its document cannot be read or claimed, unless its tenant's `on_ledger_failure`
would rather have answers than none. An answer that cannot be kept is given all the same, and says so.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from dispatcher_service import kept, tasks
from dispatcher_service.answer import Delta, Idempotency
from dispatcher_service.assembly import Assembly
from dispatcher_service.catalogue import Catalogue, OnLedgerFailure, TenantPolicy
from dispatcher_service.chat import Request
from dispatcher_service.dispatch import Answer, Finished, StreamEvent
from dispatcher_service.errors import FirstFailed, IdempotencyConflict, InFlight, LedgerUnavailable, PointsmanError
from dispatcher_service.kept import KeptError, Result
from dispatcher_service.layers import Dispatching, Documents
from dispatcher_service.outcome import Choice
from dispatcher_service.strategies import Replaced
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds after which a claim that is not renewed lapses."""

PREFIX = "result:"
"""Of the names of all documents that are written here."""

EVENTS = ("kept", "replayed", "in_flight", "conflict", "too_large", "not_kept", "released")
"""What `observe` is called with. Closed: a metric label."""

_RENEWALS_PER_LEASE = 3
_TRIES = 3
_RETRY_AFTER = 1.0


def result_document(request_id: str) -> str:
    """The name of the document of a request, under its tenant."""
    return PREFIX + hashlib.sha256(request_id.encode()).hexdigest()


@dataclass(slots=True)
class _Claim:
    """Our hold on a request id while it runs."""

    tenant_id: str
    name: str
    hash: str
    owner: str
    retention: float
    ended: bool = False
    renewing: asyncio.Task[None] | None = None

    def body(self, result: Result | None = None) -> bytes:
        written = None if result is None else kept.write(result)
        return json.dumps({"hash": self.hash, "owner": self.owner, "result": written}).encode()


class Idempotent:
    """See the top of the file. Methods and errors are those of `dispatch.Dispatcher`, and three errors more."""

    def __init__(
        self,
        inner: Dispatching,
        *,
        documents: Documents,
        catalogue: Callable[[], Catalogue],
        observe: Callable[[str], None],
        lease: float = LEASE,
    ) -> None:
        """`observe` is told one of `EVENTS` for each thing that becomes of a named request."""
        self._inner = inner
        self._documents = documents
        self._catalogue = catalogue
        self._observe = observe
        self._lease = lease
        self._background: set[asyncio.Task[None]] = set()

    async def route(self, request: Request) -> Choice:
        """The decision that would be made: a route has no name, and keeps nothing."""
        return await self._inner.route(request)

    async def complete(self, request: Request) -> Answer:
        """The answer, or the first one again.

        Raises:
            IdempotencyConflict: the request id was used for another body.
            InFlight: the same request is being answered.
            FirstFailed: the first one ended in an error that cost something.
        """
        claim = await self._begin(request)
        if isinstance(claim, Result):
            return claim.answer()
        if isinstance(claim, Idempotency):
            answer = await self._inner.complete(request)
            return answer if answer.idempotency is claim else replace(answer, idempotency=claim)
        async with self._holding(claim):
            answer = await self._inner.complete(request)
            return replace(answer, idempotency=await self._keep(claim, Result.of(answer)))

    async def stream(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """The answer as it is written, or the first one again in one piece. Errors as for `complete`."""
        claim = await self._begin(request)
        if isinstance(claim, Result):
            for event in claim.events():
                yield event
            return
        if isinstance(claim, Idempotency):
            async with contextlib.aclosing(self._inner.stream(request)) as events:
                async for event in events:
                    yield replace(event, idempotency=claim) if isinstance(event, Finished) else event
            return
        assembly = Assembly()
        async with self._holding(claim), contextlib.aclosing(self._inner.stream(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    assembly.add(event)
                    yield event
                elif isinstance(event, Finished):
                    # Kept before the end is told: whoever has seen the end finds the result.
                    answer = Answer(choice=event.choice, completion=assembly.completion(event.end), bill=event.bill)
                    idempotency = await self._keep(claim, Result.of(answer))
                    yield replace(event, idempotency=idempotency)
                else:
                    if isinstance(event, Replaced):
                        assembly.clear()
                    yield event

    async def close(self) -> None:
        """Wait for claims that are being given up."""
        await asyncio.gather(*self._background)

    async def _begin(self, request: Request) -> _Claim | Result | Idempotency:
        """A claim; or the result that is kept; or what to say of a request that takes no part."""
        policy = self._catalogue().tenants.get(request.tenant_id)
        if policy is None or not request.caller_named or policy.idempotency_retention <= 0:
            return Idempotency.OFF
        try:
            return await self._claimed(request, policy)
        except LedgerUnavailable:
            if policy.on_ledger_failure is OnLedgerFailure.REJECT:
                raise
            self._observe("not_kept")
            return Idempotency.NOT_KEPT

    async def _claimed(self, request: Request, policy: TenantPolicy) -> _Claim | Result:
        claim = _Claim(
            tenant_id=request.tenant_id,
            name=result_document(request.request_id),
            hash=kept.body_hash(request),
            owner=uuid.uuid4().hex,
            retention=policy.idempotency_retention,
        )
        expected = 0
        for _ in range(_TRIES):
            if await self._put(claim, claim.body(), expected, self._lease):
                claim.renewing = asyncio.create_task(self._renew(claim, expected + 1))
                return claim
            document = await self._documents.get_document(claim.tenant_id, claim.name)
            if document is None:
                expected = 0  # its time was over just now
                continue
            result = self._known(document.body, claim.hash)
            if result is not None:
                return result
            expected = document.version
        raise self._refused("in_flight", InFlight(_RETRY_AFTER))

    def _known(self, body: bytes, hash_: str) -> Result | None:
        """What a document says of a request with this hash; `None` if it cannot be read.

        Raises:
            IdempotencyConflict, InFlight, FirstFailed: see `complete`.
        """
        try:
            raw = json.loads(body)
            known, written = raw["hash"], raw["result"]
            result = None if written is None else kept.read(written)
        except (ValueError, KeyError, TypeError):
            logger.warning("a kept result cannot be read, perhaps another version's: its request runs anew")
            return None
        if known != hash_:
            raise self._refused("conflict", IdempotencyConflict())
        if result is None:
            raise self._refused("in_flight", InFlight(_RETRY_AFTER))
        self._observe("replayed")
        if result.error is not None:
            raise FirstFailed(result.error.status, result.error.reason, result.error.message)
        return result

    def _refused(self, event: str, error: PointsmanError) -> PointsmanError:
        self._observe(event)
        return error

    @contextlib.asynccontextmanager
    async def _holding(self, claim: _Claim) -> AsyncGenerator[None, None]:
        """Ends the claim, however the request ends."""
        try:
            yield
        except PointsmanError as error:
            if error.cost == 0:
                # Given up before the caller hears of it: whoever tries again at once finds the id free.
                claim.ended = True
                await asyncio.shield(self._later(self._release(claim)))
            elif await self._keep(claim, _failed(error)) is Idempotency.KEPT:
                error.retry_after = None  # It would only be repeated.
            raise
        finally:
            if not claim.ended:
                # Cancelled, or broken: there is no result to repeat, whatever it cost.
                self._later(self._release(claim))

    async def _keep(self, claim: _Claim, result: Result) -> Idempotency:
        """Write the result in place of the claim."""
        claim.ended = True
        body = claim.body(result)
        if len(body) > kept.MAX_BYTES:
            self._observe("too_large")
            await self._release(claim)
            return Idempotency.TOO_LARGE
        try:
            version = await self._stop_renewing(claim)
            if version and await self._put(claim, body, version, claim.retention):
                self._observe("kept")
                return Idempotency.KEPT
            error = "the claim had lapsed"
        except LedgerUnavailable as unavailable:
            error = str(unavailable)
        self._observe("not_kept")
        logger.warning("a result could not be kept: a retry runs anew", extra=fields(error=error))
        return Idempotency.NOT_KEPT

    async def _release(self, claim: _Claim) -> None:
        """Give the request id up, so that the next one runs at once."""
        try:
            if await self._stop_renewing(claim):
                await self._documents.delete_document(claim.tenant_id, claim.name)
            self._observe("released")
        except LedgerUnavailable:
            logger.warning("a claim could not be given up: it lapses by itself", extra=fields(seconds=self._lease))

    async def _stop_renewing(self, claim: _Claim) -> int:
        """The version of our claim's document; 0 if it is not ours any more."""
        if claim.renewing is not None:
            await tasks.end([claim.renewing])
            claim.renewing = None
        document = await self._documents.get_document(claim.tenant_id, claim.name)
        return document.version if document is not None and document.body == claim.body() else 0

    async def _renew(self, claim: _Claim, version: int) -> None:
        while True:
            await asyncio.sleep(self._lease / _RENEWALS_PER_LEASE)
            try:
                if not await self._put(claim, claim.body(), version, self._lease):
                    return
            except LedgerUnavailable:
                continue  # there are more tries before it lapses
            version += 1

    async def _put(self, claim: _Claim, body: bytes, expected: int, lifetime: float) -> bool:
        return await self._documents.put_document(
            claim.tenant_id, claim.name, body, expected=expected, lifetime=lifetime
        )

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run beside the request, which may be cancelled again while it unwinds."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _failed(error: PointsmanError) -> Result:
    return Result(error=KeptError(error.status, error.reason, str(error)))
