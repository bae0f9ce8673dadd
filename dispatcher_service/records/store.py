"""Records where any replica finds them: documents beside the ledger, per tenant, each with a time to live.

| document | body | lives |
|---|---|---|
| `decision:<request>` | DecisionRecord without text | `retention`, or the tenant's `text_ttl` where that is longer |
| `feedback:<request>` | the latest FeedbackRecord | the same |
| `text:<conversation>:<request>` | RecordedText, redacted | the tenant's `text_ttl` |
| `erased:<conversation>`, `erased:` | nothing: texts of requests received before are not to be kept | an hour or so |

Names are hashes of what callers named. Text of conversations is in `text:` documents and nowhere else here. Every
method may raise `LedgerUnavailable`.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dispatcher_service import idempotency, layers
from dispatcher_service.conversations import CONVERSATION_PREFIXES, conversation_document, requests_of
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.contract import Document, DocumentWrite
from pointsman.dispatcher.v1 import decision_pb2

_TRIES = 4
_LONGEST_REQUEST = 2 * 3600.0
"""Seconds that a request can be answered and then waited to be recorded; generously."""


class Documents(layers.Documents, Protocol):
    """What a layer needs of a ledger, and writing several, and finding and forgetting by prefix."""

    def documents(self, tenant_id: str, prefix: str) -> AsyncIterator[tuple[str, Document]]: ...

    async def put_documents(self, writes: Sequence[DocumentWrite]) -> list[bool]: ...

    async def delete_documents(self, tenant_id: str, prefix: str) -> int: ...

    async def scrub(self) -> None: ...


class RecordStore:
    """See the top of the file."""

    def __init__(self, documents: Documents, *, retention: float) -> None:
        """Put records beside a ledger; `retention` is in seconds, and 0 keeps none."""
        self._documents = documents
        self.retention = retention

    async def put_decisions(self, records: Sequence[tuple[decision_pb2.DecisionRecord, float]]) -> None:
        """Keep records, each with its lifetime in seconds; the latest one of a request id counts."""
        writes = [
            DocumentWrite(
                record.tenant_id, f"decision:{_hash(record.request_id)}", record.SerializeToString(), 0, lifetime
            )
            for record, lifetime in records
        ]
        for write, written in zip(writes, await self._documents.put_documents(writes), strict=True):
            if not written:  # The request id has been used before.
                await self._put(write.tenant_id, write.name, write.body, write.lifetime)

    async def put_text(
        self,
        record: decision_pb2.DecisionRecord,
        text: decision_pb2.RecordedText,
        *,
        lifetime: float,
    ) -> None:
        """Keep the text of a request, unless its conversation or its tenant was erased after it was received."""
        name = _text_document(record.conversation_id, record.request_id)
        await self._put(record.tenant_id, name, text.SerializeToString(), lifetime)
        # Looked up after writing: an erasure marks first and deletes then, so that one of the two sees the other.
        for mark in (_mark(""), _mark(record.conversation_id)):
            erased = await self._documents.get_document(record.tenant_id, mark)
            if erased is not None and record.received_at.ToNanoseconds() <= int(erased.body):
                await self._documents.delete_document(record.tenant_id, name)
                return

    async def put_feedback(self, feedback: decision_pb2.FeedbackRecord, *, lifetime: float) -> None:
        """Keep a feedback; the latest one of a request counts."""
        name = f"feedback:{_hash(feedback.request_id)}"
        await self._put(feedback.tenant_id, name, feedback.SerializeToString(), lifetime)

    async def get(self, tenant_id: str, request_id: str) -> decision_pb2.DecisionRecord | None:
        """A record with its text and feedback, as far as they are kept; `None` if the tenant has no such request."""
        document = await self._documents.get_document(tenant_id, f"decision:{_hash(request_id)}")
        return None if document is None else await self._joined(document)

    async def all(self, tenant_id: str) -> AsyncIterator[decision_pb2.DecisionRecord]:
        """Every record that is kept of a tenant, joined likewise, in no order."""
        async for _, document in self._documents.documents(tenant_id, "decision:"):
            yield await self._joined(document)

    async def erase_conversation(self, tenant_id: str, conversation_id: str, *, now: float) -> int:
        """Forget texts and replayable answers of a conversation, and which model it keeps; returns how many items."""
        await self._mark_erased(tenant_id, conversation_id, now)
        erased = await self._documents.delete_documents(tenant_id, f"text:{_hash(conversation_id)}:")
        name = conversation_document(conversation_id)
        document = await self._documents.get_document(tenant_id, name)
        names = [name]
        if document is not None:
            names += map(idempotency.result_document, requests_of(document))
        for each in names:
            erased += await self._documents.delete_document(tenant_id, each)
        await self._documents.scrub()
        return erased

    async def erase_tenant(self, tenant_id: str, *, now: float) -> int:
        """The same for all of a tenant's conversations, and its records and feedback too."""
        await self._mark_erased(tenant_id, "", now)
        prefixes = ("text:", idempotency.PREFIX, *CONVERSATION_PREFIXES, "decision:", "feedback:")
        erased = sum([await self._documents.delete_documents(tenant_id, prefix) for prefix in prefixes])
        await self._documents.scrub()
        return erased

    async def _joined(self, document: Document) -> decision_pb2.DecisionRecord:
        record = decision_pb2.DecisionRecord.FromString(document.body)
        tenant_id = record.tenant_id
        text = await self._documents.get_document(tenant_id, _text_document(record.conversation_id, record.request_id))
        if text is not None:
            record.text.MergeFromString(text.body)
        feedback = await self._documents.get_document(tenant_id, f"feedback:{_hash(record.request_id)}")
        if feedback is not None:
            record.feedback.MergeFromString(feedback.body)
        return record

    async def _mark_erased(self, tenant_id: str, conversation_id: str, now: float) -> None:
        await self._put(tenant_id, _mark(conversation_id), str(int(now * 1e9)).encode(), _LONGEST_REQUEST)

    async def _put(self, tenant_id: str, name: str, body: bytes, lifetime: float | None) -> None:
        expected = 0
        for _ in range(_TRIES):
            if await self._documents.put_document(tenant_id, name, body, expected=expected, lifetime=lifetime):
                return
            known = await self._documents.get_document(tenant_id, name)
            expected = 0 if known is None else known.version
        raise LedgerUnavailable("a record is written by too many at once")


def _text_document(conversation_id: str, request_id: str) -> str:
    return f"text:{_hash(conversation_id)}:{_hash(request_id)}"


def _mark(conversation_id: str) -> str:
    return f"erased:{_hash(conversation_id) if conversation_id else ''}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
