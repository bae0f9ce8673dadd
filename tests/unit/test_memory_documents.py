"""Documents in memory: those that pass are bounded in bytes and leave when their time is over."""

from dispatcher_service.ledger.contract import Document
from dispatcher_service.ledger.memory_documents import MemoryDocuments


def put(documents: MemoryDocuments, name: str, size: int, ends_at: float | None, now: float = 0.0) -> None:
    documents.put("acme", name, Document(1, bytes(size)), ends_at=ends_at, now=now)


def names(documents: MemoryDocuments) -> list[str]:
    return list(documents.names("acme", ""))


def test_the_oldest_passing_documents_make_room_and_kept_ones_stay() -> None:
    documents = MemoryDocuments(max_passing_bytes=100)
    put(documents, "policy", 1000, None)
    put(documents, "a", 60, 50.0)
    put(documents, "b", 40, 10.0)
    assert names(documents) == ["policy", "a", "b"]
    put(documents, "c", 1, 99.0)
    assert names(documents) == ["policy", "b", "c"]


def test_a_document_leaves_when_its_time_is_over_even_behind_a_longer_one() -> None:
    documents = MemoryDocuments()
    put(documents, "long", 1, 100.0)
    put(documents, "short", 1, 10.0)
    put(documents, "again", 1, 10.0)
    put(documents, "again", 1, 200.0)
    put(documents, "new", 1, 100.0, now=10.0)
    assert names(documents) == ["long", "again", "new"]
