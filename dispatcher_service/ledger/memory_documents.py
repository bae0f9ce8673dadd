"""The documents of a ledger in memory: kept for good, or passing and then bounded in bytes."""

import heapq
from collections.abc import Iterator

from dispatcher_service.ledger.contract import Document

MAX_PASSING_BYTES = 64 * 1024 * 1024
"""What the bodies of documents with a lifetime may come to: beyond that the oldest are forgotten early."""

_Key = tuple[str, str]
"""Tenant and name."""


class MemoryDocuments:
    """See the documents of `contract.Ledger`; `now` is in seconds since the epoch."""

    def __init__(self, max_passing_bytes: int = MAX_PASSING_BYTES) -> None:
        self._max_bytes = max_passing_bytes
        self._kept: dict[_Key, Document] = {}
        self._passing: dict[_Key, tuple[Document, float]] = {}  # in the order of writing
        self._bytes = 0
        self._ends: list[tuple[float, _Key]] = []
        """A heap; an entry of a document that was written again is stale, and found to be when it comes up."""

    def get(self, tenant_id: str, name: str, *, now: float) -> Document | None:
        """The document, `None` if there is none or its time is over."""
        key = tenant_id, name
        if key in self._kept:
            return self._kept[key]
        document, ends_at = self._passing.get(key, (None, now))
        return document if ends_at > now else None

    def put(self, tenant_id: str, name: str, document: Document, *, ends_at: float | None, now: float) -> None:
        """Write a document whatever was there."""
        key = tenant_id, name
        self._drop(key)
        if ends_at is None:
            self._kept[key] = document
            return
        self._passing[key] = document, ends_at
        self._bytes += len(document.body)
        heapq.heappush(self._ends, (ends_at, key))
        while self._ends and self._ends[0][0] <= now:
            _, due = heapq.heappop(self._ends)
            if self._passing.get(due, (None, now + 1))[1] <= now:
                self._drop(due)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._passing)))

    def delete(self, tenant_id: str, name: str, *, now: float) -> bool:
        """Forget a document. False if there was none."""
        known = self.get(tenant_id, name, now=now)
        self._drop((tenant_id, name))
        return known is not None

    def names(self, tenant_id: str, prefix: str) -> Iterator[str]:
        """Names of the tenant's documents that begin with `prefix`, of some whose time is over too."""
        for tenant, name in [*self._kept, *self._passing]:
            if tenant == tenant_id and name.startswith(prefix):
                yield name

    def _drop(self, key: _Key) -> None:
        self._kept.pop(key, None)
        document, _ = self._passing.pop(key, (None, 0.0))
        if document is not None:
            self._bytes -= len(document.body)
