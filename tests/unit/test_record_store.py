"""Records among documents: joined, replaced by later ones, and erased for good."""

from dispatcher_service.conversations import conversation_document
from dispatcher_service.idempotency import result_document
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.records.store import RecordStore
from pointsman.dispatcher.v1 import decision_pb2

NOW = 1e9
TEXT = decision_pb2.RecordedText(messages=[decision_pb2.RecordedMessage(text="kept")])


class Shelf:
    """A store on a ledger in memory whose clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW
        self.ledger = MemoryLedger(lambda: self.now)
        self.store = RecordStore(self.ledger, retention=3600)

    async def put(
        self, request_id: str, conversation_id: str = "", *, tenant_id: str = "acme", received_at: float = NOW
    ) -> decision_pb2.DecisionRecord:
        record = decision_pb2.DecisionRecord(
            request_id=request_id, tenant_id=tenant_id, conversation_id=conversation_id
        )
        record.received_at.FromNanoseconds(int(received_at * 1e9))
        await self.store.put_decisions([(record, 7200)])
        await self.store.put_text(record, TEXT, lifetime=7200)
        return record

    async def has_text(self, request_id: str, tenant_id: str = "acme") -> bool:
        record = await self.store.get(tenant_id, request_id)
        return record is not None and record.HasField("text")


async def test_a_record_comes_back_with_its_text_and_its_latest_feedback() -> None:
    shelf = Shelf()
    await shelf.put("r-1", "c-1")
    for rating in (0.0, 1.0):
        feedback = decision_pb2.FeedbackRecord(request_id="r-1", tenant_id="acme", rating=rating)
        await shelf.store.put_feedback(feedback, lifetime=7200)
    record = await shelf.store.get("acme", "r-1")
    assert record is not None
    assert record.text == TEXT
    assert record.feedback.rating == 1.0
    assert [found.request_id async for found in shelf.store.all("acme")] == ["r-1"]
    assert await shelf.store.get("other", "r-1") is None


async def test_a_request_id_that_is_used_again_shows_its_latest_record() -> None:
    shelf = Shelf()
    await shelf.put("r-1", "first")
    await shelf.put("r-1", "second")
    record = await shelf.store.get("acme", "r-1")
    assert record is not None
    assert record.conversation_id == "second"


async def test_a_record_is_gone_when_its_time_is_over() -> None:
    shelf = Shelf()
    await shelf.put("r-1")
    shelf.now += 7200
    assert await shelf.store.get("acme", "r-1") is None


async def test_erasing_a_conversation_takes_its_texts_and_results_and_leaves_the_rest() -> None:
    shelf = Shelf()
    await shelf.put("r-1", "c-1")
    await shelf.put("r-2", "c-2")
    await shelf.put("r-1", "c-1", tenant_id="other")
    body = b'{"tier": "weak", "model": "small", "was_strong": false, "requests": ["r-1", "r-0"]}'
    await shelf.ledger.put_document("acme", conversation_document("c-1"), body, expected=0)
    for tenant in ("acme", "other"):
        await shelf.ledger.put_document(tenant, result_document("r-1"), b"an answer", expected=0)
    assert await shelf.store.erase_conversation("acme", "c-1", now=NOW) == 3
    assert not await shelf.has_text("r-1")
    assert await shelf.has_text("r-2")
    assert await shelf.has_text("r-1", "other")
    assert await shelf.ledger.get_document("acme", result_document("r-1")) is None
    assert await shelf.ledger.get_document("other", result_document("r-1")) is not None
    assert await shelf.ledger.get_document("acme", conversation_document("c-1")) is None
    assert await shelf.store.get("acme", "r-1") is not None
    assert await shelf.store.erase_conversation("acme", "c-1", now=NOW) == 0


async def test_a_text_of_a_request_from_before_the_erasure_is_not_kept_afterwards() -> None:
    shelf = Shelf()
    await shelf.store.erase_conversation("acme", "c-1", now=NOW)
    await shelf.put("r-1", "c-1", received_at=NOW - 1)
    await shelf.put("r-2", "c-2", received_at=NOW - 1)
    await shelf.put("r-3", "c-1", received_at=NOW + 1)
    assert [await shelf.has_text(f"r-{n}") for n in (1, 2, 3)] == [False, True, True]
    await shelf.store.erase_tenant("acme", now=NOW + 2)
    await shelf.put("r-4", received_at=NOW + 1)
    assert not await shelf.has_text("r-4")


async def test_erasing_a_tenant_leaves_only_what_is_no_ones_text() -> None:
    shelf = Shelf()
    await shelf.put("r-1", "c-1")
    await shelf.put("r-1", "c-1", tenant_id="other")
    await shelf.ledger.put_document("acme", result_document("r-1"), b"an answer", expected=0)
    await shelf.ledger.put_document("acme", "pace", b"numbers", expected=0)
    assert await shelf.store.erase_tenant("acme", now=NOW) == 3
    assert sorted([name async for name, _ in shelf.ledger.documents("acme", "")]) == ["erased:", "pace"]
    assert await shelf.has_text("r-1", "other")
