"""From the outcome of a request to everything that is kept of it, off the request's path.

    outcome -> bounded queue -> shadow decisions -> line of the log
                                                 -> record where any replica finds it -> redacted text, by opt-in

A request only puts its outcome into the queue. What cannot be taken or kept is lost and counted by where it was lost:
answering a caller who has paid comes first. A request that is looked up on this replica is found from the moment on
at which it ended.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dispatcher_service.catalogue import Catalogue, TenantPolicy
from dispatcher_service.chat import Chat
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.outcome import Outcome
from dispatcher_service.ports import Scorer
from dispatcher_service.records import messages, shadows
from dispatcher_service.records.decision_log import Lines
from dispatcher_service.records.redaction import Redact
from dispatcher_service.records.shadows import ShadowChoice
from dispatcher_service.records.store import RecordStore
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

MAX_QUEUE_BYTES = 64 * 1024 * 1024
"""Text of conversations that may wait to be redacted or scored in a shadow."""
_BATCH = 256
_GATHER_SECONDS = 0.02
_AT_ONCE = 16
_SHADOW_TIMEOUT = 1.0
_STORE_PAUSE = 5.0
_TEND_SECONDS = 60.0
_SECONDS_BETWEEN_WARNINGS = 10.0

Lost = Callable[[str, int], None]
"""Called with where records were lost (see `metrics.PLACES`) and how many."""
Shadowed = Callable[[Outcome, ShadowChoice], None]
"""Called once per shadow decision."""


@dataclass(slots=True)
class _Entry:
    """What waits. `outcome` is let go of where nothing needs the conversation any more."""

    record: messages.Record
    policy: TenantPolicy
    outcome: Outcome | None
    text_bytes: int


class Recorder:
    """Keeps outcomes and feedback. `run` must be running; `record` and `feedback` may be called at any time."""

    def __init__(
        self,
        *,
        lines: Lines | None,
        store: RecordStore | None,
        catalogue: Callable[[], Catalogue],
        scorer: Scorer,
        redact: Redact,
        lost: Lost,
        shadowed: Shadowed,
        trace_id: Callable[[], str],
        max_queue: int,
    ) -> None:
        """Make one.

        Args:
            lines: the log; `None` writes none.
            store: where records are looked up; `None` keeps none.
            catalogue: the configuration as it is now.
            scorer: for shadow scorers.
            redact: applied to every text that is kept.
            lost: counts losses.
            shadowed: told of every shadow decision.
            trace_id: the trace of the request that calls `record`; empty without one.
            max_queue: records that may wait.
        """
        self._lines = lines
        self._store = store
        self._catalogue = catalogue
        self._scorer = scorer
        self._redact = redact
        self._lost = lost
        self._shadowed = shadowed
        self._trace_id = trace_id
        self._max_queue = max_queue
        self._queue: deque[_Entry | messages.Feedback] = deque()
        self._text_bytes = 0
        self._news = asyncio.Event()
        self._stopping = False
        self._pending: dict[tuple[str, str], messages.Record] = {}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")
        self._store_paused_until = 0.0
        self._next_warning = 0.0

    def record(self, outcome: Outcome) -> None:
        """See `outcome.Record`."""
        policy = self._catalogue().tenants.get(outcome.request.tenant_id)
        if policy is None or (self._lines is None and self._store is None and policy.shadow is None):
            return
        record = messages.record(outcome, trace_id=self._trace_id())
        # The conversation waits along only where it is needed: a megabyte each would soon be much.
        needed = outcome if self._needs_text(policy) or policy.shadow is not None else None
        text_bytes = outcome.request.chat.text_bytes if needed is not None else 0
        if self._text_bytes + text_bytes > MAX_QUEUE_BYTES:
            self._lose("text", 1, "too much text waits")
            needed, text_bytes = None, 0
        if self._put(_Entry(record, policy, needed, text_bytes)):
            self._text_bytes += text_bytes
            self._pending[record.tenant_id, record.request_id] = record

    def feedback(self, feedback: messages.Feedback) -> None:
        """Write a feedback's line. Keeping it for look-ups is the caller's, who waits for that."""
        if self._lines is not None:
            self._put(feedback)

    def pending(self, tenant_id: str, request_id: str) -> messages.Record | None:
        """A record that still waits to be kept."""
        return self._pending.get((tenant_id, request_id))

    @property
    def waiting(self) -> int:
        """Records that are not kept yet."""
        return len(self._pending)

    async def run(self) -> None:
        """Work until `stop` is called and nothing waits any more."""
        while self._queue or not self._stopping:
            try:
                async with asyncio.timeout(_TEND_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                await self._tend()
                continue
            if not self._stopping:
                # A batch costs little more than a record: under load many share one.
                await asyncio.sleep(_GATHER_SECONDS)
            await self._work()

    def stop(self) -> None:
        """Let `run` come to its end. Call it when no request is left; shadow scorers are not asked any more."""
        self._stopping = True
        self._news.set()

    async def close(self) -> None:
        """Let go of the log. What still waits, because `run` was cancelled, is lost and counted."""
        if self._queue:
            self._lose("queue", len(self._queue), "there was no time left")
        if self._lines is not None:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._lines.close)
        self._writer.shutdown()

    def _needs_text(self, policy: TenantPolicy) -> bool:
        return policy.log_text and self._store is not None

    def _put(self, item: _Entry | messages.Feedback) -> bool:
        if len(self._queue) >= self._max_queue:
            self._lose("queue", 1, "the queue is full")
            return False
        self._queue.append(item)
        self._news.set()
        return True

    async def _work(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
        if not self._queue and not self._stopping:
            self._news.clear()
        entries = [item for item in batch if isinstance(item, _Entry)]
        limit = asyncio.Semaphore(_AT_ONCE)
        try:
            await asyncio.gather(*(self._try_shadow(entry, limit) for entry in entries if entry.outcome is not None))
            await self._write([item.record if isinstance(item, _Entry) else item for item in batch])
            await self._keep(entries, limit)
        except Exception:
            # Whatever it was: the next batch is not to wait for a restart.
            logger.exception("decision records are lost")
            self._lost("queue", len(batch))
        finally:
            for entry in entries:
                self._text_bytes -= entry.text_bytes
                if self._pending.get(key := (entry.record.tenant_id, entry.record.request_id)) is entry.record:
                    del self._pending[key]

    async def _tend(self) -> None:
        if self._lines is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._lines.tend)
        except OSError as error:
            logger.warning("the decision log cannot be tended", extra=fields(error=str(error)))

    async def _try_shadow(self, entry: _Entry, limit: asyncio.Semaphore) -> None:
        outcome, policy = entry.outcome, entry.policy
        choice = None if outcome is None else outcome.choice
        if outcome is None or policy.shadow is None or choice is None or choice.prediction is None:
            return
        found = [shadows.by_dial(policy, choice)]
        if policy.shadow.scorer and not self._stopping:
            async with limit:
                prediction = await self._scorer.score(
                    outcome.request.chat,
                    tenant_id=policy.tenant_id,
                    pair=choice.ladder.ends,
                    every_model=choice.ladder.top > 1,
                    scorer=policy.shadow.scorer,
                    timeout=_SHADOW_TIMEOUT,
                )
            if prediction is None:
                self._lose("shadow", 1, "the shadow scorer gave no prediction")
            else:
                found.append(shadows.by_scorer(policy, choice, prediction))
        for shadow in found:
            if shadow is not None:
                messages.add_shadow(entry.record, shadow)
                self._shadowed(outcome, shadow)

    async def _write(self, records: Sequence[messages.Record | messages.Feedback]) -> None:
        lines = self._lines
        if lines is None or not records:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._writer, lambda: lines.write([messages.line(record) for record in records])
            )
        except OSError as error:
            self._lose("log", len(records), str(error))

    async def _keep(self, entries: Sequence[_Entry], limit: asyncio.Semaphore) -> None:
        store = self._store
        if store is None or store.retention == 0 or not entries:
            return
        if time.monotonic() < self._store_paused_until:
            self._lost("lookup", len(entries))
            return
        try:
            await store.put_decisions([(entry.record, _lifetime(entry.policy, store)) for entry in entries])
        except LedgerUnavailable as error:
            # The rest would wait for the same time-out, one after the other.
            self._store_paused_until = time.monotonic() + _STORE_PAUSE
            self._lose("lookup", len(entries), str(error))
            return
        await asyncio.gather(*(self._try_keep_text(store, entry, limit) for entry in entries if entry.policy.log_text))

    async def _try_keep_text(self, store: RecordStore, entry: _Entry, limit: asyncio.Semaphore) -> None:
        if entry.outcome is None:
            return
        async with limit:
            try:
                await self._keep_text(store, entry, entry.outcome.request.chat)
            except LedgerUnavailable as error:
                self._lose("lookup", 1, str(error))

    async def _keep_text(self, store: RecordStore, entry: _Entry, chat: Chat) -> None:
        try:
            text = await asyncio.get_running_loop().run_in_executor(
                self._writer, lambda: messages.text(chat, self._redact)
            )
        except Exception as error:  # noqa: BLE001  # the hook is someone else's code: without it nothing is kept
            self._lose("text", 1, f"the redaction failed: {type(error).__name__}")
            return
        await store.put_text(entry.record, text, lifetime=entry.policy.text_ttl)

    def _lose(self, where: str, count: int, why: str) -> None:
        self._lost(where, count)
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _SECONDS_BETWEEN_WARNINGS
            logger.warning("decision records are lost", extra=fields(where=where, why=why))


def _lifetime(policy: TenantPolicy, store: RecordStore) -> float:
    return max(store.retention, policy.text_ttl) if policy.log_text else store.retention
