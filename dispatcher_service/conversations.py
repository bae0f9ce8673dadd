"""Conversations over many requests: a layer around the use case that recalls who answered before, and remembers.

What is remembered are documents beside the ledger, per tenant and with a time to live, so that replicas agree:

- of a conversation with a `conversation_id`: who answered last, the strongest that ever did, and which requests of it
  may have a replayable result (so that an erasure finds those);
- of every answer that called tools: who made the calls, under a hash of the calls' ids and names and the user's last
  words. So a tool loop keeps its model without a `conversation_id` too, and whichever of several branches it is in.

Names are hashes: no document holds text of a conversation or the caller's name for it.

*Failure*: a store that fails or is slow fails no request. The turn is then decided as if nothing were remembered, and
what happened is not remembered; both are counted. Between two turns at once the later write wins, except that having
been strong is never lost.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dispatcher_service import stickiness
from dispatcher_service.answer import Delta
from dispatcher_service.catalogue import Catalogue, TenantPolicy
from dispatcher_service.chat import Message, Request, Role
from dispatcher_service.dispatch import Answer, Finished, StreamEvent
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.layers import Dispatching, Documents
from dispatcher_service.ledger.contract import Document
from dispatcher_service.outcome import Choice
from dispatcher_service.routing import Tier
from dispatcher_service.stickiness import Held, Sticky
from dispatcher_service.strategies import Replaced
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

STORE_TIMEOUT = 0.25
"""Seconds that recalling or remembering may hold up a request."""

_KEPT_REQUESTS = 64
_WRITE_TRIES = 3
_SECONDS_BETWEEN_WARNINGS = 10.0

_T = TypeVar("_T")
Observe = Callable[[str, str, float], None]
"""Called with `recall` or `remember`, `ok` or `failed`, and seconds."""


class Conversations:
    """See the top of the file. Methods and errors are those of `dispatch.Dispatcher`."""

    def __init__(
        self,
        inner: Dispatching,
        *,
        documents: Documents,
        catalogue: Callable[[], Catalogue],
        observe: Observe,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = STORE_TIMEOUT,
    ) -> None:
        self._inner = inner
        self._documents = documents
        self._catalogue = catalogue
        self._observe = observe
        self._clock = clock
        self._timeout = timeout
        self._late: set[asyncio.Task[None]] = set()
        self._next_warning = 0.0

    async def route(self, request: Request) -> Choice:
        """Reads what is remembered, and remembers nothing."""
        return await self._inner.route(await self._recalled(request))

    async def complete(self, request: Request) -> Answer:
        """Has remembered when it returns, so that the next turn may be answered elsewhere."""
        answer = await self._inner.complete(await self._recalled(request))
        calls = [tuple((call.id, call.name) for call in choice.tool_calls) for choice in answer.completion.choices]
        await self._remember(request, answer.choice, calls)
        return answer

    async def stream(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """Has remembered when `Finished` comes. An answer that the caller breaks off is remembered after that."""
        choice, calls = None, _StreamedCalls()
        finished = False
        events = self._inner.stream(await self._recalled(request))
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Delta):
                        calls.add(event)
                    else:
                        choice = event.choice
                        if isinstance(event, Replaced):
                            calls = _StreamedCalls(begun=True)
                        if isinstance(event, Finished):
                            finished = True
                            await self._remember(request, choice, calls.by_choice())
                    yield event
        finally:
            if choice is not None and not finished and calls.begun:
                late = asyncio.create_task(self._remember(request, choice, []))
                self._late.add(late)
                late.add_done_callback(self._late.discard)

    async def close(self) -> None:
        """Wait for what is still being remembered."""
        await asyncio.gather(*self._late)

    async def _recalled(self, request: Request) -> Request:
        policy = self._catalogue().tenants.get(request.tenant_id)
        if policy is None:
            return request  # the use case refuses it
        names = _names_to_recall(request, policy)
        if not names:
            return request
        held = await self._guarded("recall", self._recall(request.tenant_id, names))
        return request if held is None else replace(request, held=held)

    async def _recall(self, tenant_id: str, names: Sequence[str]) -> Held | None:
        for name in names:
            document = await self._documents.get_document(tenant_id, name)
            if document is not None:
                return _Memory.read(document.body).held
        return None

    async def _remember(self, request: Request, choice: Choice, calls: Iterable["_Calls"]) -> None:
        policy = self._catalogue().tenants.get(request.tenant_id)
        if policy is None:
            return
        words = _last_words(request.chat.messages)
        loops = [_loop_document(words, made) for made in calls if made]
        if loops or request.conversation_id:
            await self._guarded("remember", self._write(request, policy, choice, loops))

    async def _write(self, request: Request, policy: TenantPolicy, choice: Choice, loops: Sequence[str]) -> bool:
        ladder, rung, model = choice.ladder, choice.decision.rung, choice.model
        now = stickiness.first(ladder, rung, model)
        for name in loops:
            await self._update(request.tenant_id, name, policy, lambda _: _Memory(now))
        if request.conversation_id:

            def after(before: _Memory | None) -> _Memory:
                held = now if before is None else before.held.then(ladder, rung, model)
                requests = () if before is None else before.requests
                if request.request_id not in requests:
                    requests = (*requests, request.request_id)[-_KEPT_REQUESTS:]
                return _Memory(held, requests)

            await self._update(request.tenant_id, conversation_document(request.conversation_id), policy, after)
        return True

    async def _update(
        self, tenant_id: str, name: str, policy: TenantPolicy, after: Callable[["_Memory | None"], "_Memory"]
    ) -> None:
        for _ in range(_WRITE_TRIES):
            document = await self._documents.get_document(tenant_id, name)
            before = None if document is None else _Memory.read(document.body)
            if await self._documents.put_document(
                tenant_id,
                name,
                after(before).write(),
                expected=document.version if document else 0,
                lifetime=policy.conversation_ttl,
            ):
                return
        raise LedgerUnavailable("a conversation's document is written by too many at once")

    async def _guarded(self, operation: str, work: Awaitable[_T]) -> _T | None:
        """The result, or `None` where the store failed: whoever has paid for an answer gets it."""
        started, result = self._clock(), "ok"
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except (LedgerUnavailable, TimeoutError, ValueError) as error:
            result = "failed"
            if started >= self._next_warning:
                self._next_warning = started + _SECONDS_BETWEEN_WARNINGS
                logger.warning(
                    "conversations cannot be stored: turns are decided one by one",
                    extra=fields(operation=operation, error=str(error) or type(error).__name__),
                )
            return None
        finally:
            self._observe(operation, result, self._clock() - started)


def conversation_document(conversation_id: str) -> str:
    """The name of a conversation's document."""
    return f"conversation:{_hash(conversation_id)}"


CONVERSATION_PREFIXES = ("conversation:", "loop:")
"""Of the names of all documents that are written here."""


def requests_of(document: Document) -> tuple[str, ...]:
    """The latest request ids of a conversation, from its document; a replayable result may be kept for each."""
    return _Memory.read(document.body).requests


_Calls = tuple[tuple[str, str], ...]
"""The ids and names of the tool calls of one choice, in order."""


@dataclass(slots=True)
class _StreamedCalls:
    """Tool calls of a stream, from their first pieces."""

    begun: bool = False
    _calls: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def add(self, delta: Delta) -> None:
        self.begun = True
        for call in delta.tool_calls:
            known = self._calls.get((delta.index, call.index), ("", ""))
            self._calls[delta.index, call.index] = (known[0] or call.id, known[1] or call.name)

    def by_choice(self) -> list[_Calls]:
        choices: dict[int, list[tuple[str, str]]] = {}
        for (choice, _), call in sorted(self._calls.items()):
            choices.setdefault(choice, []).append(call)
        return [tuple(calls) for calls in choices.values()]


@dataclass(frozen=True, slots=True)
class _Memory:
    """The body of a document: JSON. `requests` are the latest request ids of a conversation."""

    held: Held
    requests: tuple[str, ...] = ()

    @classmethod
    def read(cls, body: bytes) -> "_Memory":
        """Raises ValueError for a body of another version's."""
        try:
            raw = json.loads(body)
            held = Held(
                tier=Tier(raw["tier"]),
                model=str(raw["model"]),
                was_strong=bool(raw["was_strong"]),
                highest=str(raw.get("highest", "")),
            )
            return cls(held, tuple(raw["requests"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no conversation's document: {error}") from error

    def write(self) -> bytes:
        held = self.held
        raw = {
            "tier": held.tier.value,
            "model": held.model,
            "was_strong": held.was_strong,
            "highest": held.highest,
            "requests": self.requests,
        }
        return json.dumps(raw, separators=(",", ":")).encode()


def _names_to_recall(request: Request, policy: TenantPolicy) -> list[str]:
    """Documents that can say what is held, the most exact one first; none where that could not matter."""
    names = []
    calling = request.chat.calling
    if calling is not None:
        made = tuple((call.id, call.name) for call in request.chat.messages[calling].tool_calls)
        names.append(_loop_document(_last_words(request.chat.messages[:calling]), made))
    if request.conversation_id and (calling is not None or policy.sticky is not Sticky.OFF):
        names.append(conversation_document(request.conversation_id))
    return names


def _loop_document(last_words: str, calls: _Calls) -> str:
    # Some servers number their calls from 0 in every answer: the user's words tell those apart.
    return f"loop:{_hash(json.dumps([last_words, calls]))}"


def _last_words(messages: Sequence[Message]) -> str:
    return next((message.text for message in reversed(messages) if message.role is Role.USER), "")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()
