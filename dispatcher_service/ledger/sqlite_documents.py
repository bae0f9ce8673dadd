"""The documents of a ledger in a SQLite file. Methods are for within a step of `SqliteFile`; `now_ms` is its time."""

import sqlite3
from collections.abc import Sequence

from dispatcher_service.ledger.contract import Document, DocumentWrite

_FORGOTTEN_AT_ONCE = 256
_PAGE = 100
_LAST_CHARACTER = "\U0010ffff"

_DOCUMENT = "SELECT version, body FROM documents WHERE tenant = ? AND name = ? AND (ends_ms IS NULL OR ends_ms > ?)"
# One whose time is over may not have been forgotten yet.
_WRITE_FIRST = """
    INSERT INTO documents (tenant, name, version, body, ends_ms) VALUES (?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET version = 1, body = excluded.body, ends_ms = excluded.ends_ms
    WHERE documents.ends_ms <= ?
"""
_WRITE_NEXT = """
    UPDATE documents SET version = ?, body = ?, ends_ms = ?
    WHERE tenant = ? AND name = ? AND version = ? AND (ends_ms IS NULL OR ends_ms > ?)
"""
_FORGET = """
    DELETE FROM documents WHERE (tenant, name) IN
        (SELECT tenant, name FROM documents WHERE ends_ms IS NOT NULL AND ends_ms <= ? ORDER BY ends_ms LIMIT ?)
"""
_LIST = """
    SELECT name, version, body FROM documents
    WHERE tenant = ? AND name >= ? AND name < ? AND name > ? AND (ends_ms IS NULL OR ends_ms > ?)
    ORDER BY name LIMIT ?
"""
_WITH_PREFIX = "FROM documents WHERE tenant = ? AND name >= ? AND name < ?"


class SqliteDocuments:
    """See the documents of `contract.Ledger`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def get(self, tenant_id: str, name: str, now_ms: int) -> Document | None:
        """The document, `None` if there is none or its time is over."""
        row = self._db.execute(_DOCUMENT, (tenant_id, name, now_ms)).fetchone()
        return None if row is None else Document(*row)

    def put(self, writes: Sequence[DocumentWrite], now_ms: int) -> list[bool]:
        """Each of them, if its version is the expected one; and some of those whose time is over are forgotten."""
        written = [self._put(write, now_ms) for write in writes]
        self._db.execute(_FORGET, (now_ms, _FORGOTTEN_AT_ONCE))
        return written

    def page(self, tenant_id: str, prefix: str, after: str, now_ms: int) -> list[tuple[str, Document]]:
        """The next documents with the prefix, by name; empty after the last one."""
        values = (tenant_id, prefix, prefix + _LAST_CHARACTER, after, now_ms, _PAGE)
        return [(name, Document(version, body)) for name, version, body in self._db.execute(_LIST, values)]

    def delete(self, tenant_id: str, name: str, now_ms: int) -> bool:
        """Forget one. False if there was none."""
        known = self.get(tenant_id, name, now_ms)
        self._db.execute("DELETE FROM documents WHERE tenant = ? AND name = ?", (tenant_id, name))
        return known is not None

    def delete_all(self, tenant_id: str, prefix: str, now_ms: int) -> int:
        """Forget all with the prefix; returns how many."""
        values = (tenant_id, prefix, prefix + _LAST_CHARACTER)
        alive = f"SELECT count(*) {_WITH_PREFIX} AND (ends_ms IS NULL OR ends_ms > ?)"
        (found,) = self._db.execute(alive, (*values, now_ms)).fetchone()
        self._db.execute(f"DELETE {_WITH_PREFIX}", values)
        return int(found)

    def _put(self, write: DocumentWrite, now_ms: int) -> bool:
        ends_ms = None if write.lifetime is None else now_ms + int(write.lifetime * 1000)
        place = (write.tenant_id, write.name)
        if write.expected == 0:
            written = self._db.execute(_WRITE_FIRST, (*place, write.body, ends_ms, now_ms))
        else:
            values = (write.expected + 1, write.body, ends_ms, *place, write.expected, now_ms)
            written = self._db.execute(_WRITE_NEXT, values)
        return written.rowcount == 1
