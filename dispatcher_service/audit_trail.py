"""Who changed a tenant's policy, why, and what: one document per tenant, beside the overlays.

An overlay holds its latest change itself. So a dispatcher that dies between the two writes loses nothing: whoever reads
the trail, or writes the next entry, adds what is missing.
"""

import json
from dataclasses import asdict, dataclass

from dispatcher_service import overlay
from dispatcher_service.layers import Documents
from dispatcher_service.overlay import Change, Overlay

LENGTH = 500
"""Entries that are kept; every change is a log event too."""

_DOCUMENT = "policy-trail"
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the trail: a change, and in words what it was."""

    change: Change
    summary: str


class AuditTrail:
    """Reads and writes trails."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def entries(self, tenant_id: str, own: Overlay) -> list[Entry]:
        """The trail of a tenant whose overlay is `own`, the oldest first.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        document = await self._documents.get_document(tenant_id, _DOCUMENT)
        return _with_latest(_read(document.body if document is not None else b"[]"), own)

    async def append(self, tenant_id: str, before: Overlay, after: Overlay) -> None:
        """Bring the trail up to an overlay that was just changed.

        Raises:
            LedgerUnavailable: it cannot be written.
        """
        for _ in range(_TRIES):
            document = await self._documents.get_document(tenant_id, _DOCUMENT)
            entries = _read(document.body if document is not None else b"[]")
            entries = _with_latest(_with_latest(entries, before), after)[-LENGTH:]
            body = json.dumps([{**asdict(entry.change), "summary": entry.summary} for entry in entries]).encode()
            expected = document.version if document is not None else 0
            if await self._documents.put_document(tenant_id, _DOCUMENT, body, expected=expected):
                return


def _with_latest(entries: list[Entry], own: Overlay) -> list[Entry]:
    if own.latest is None or any(entry.change.id == own.latest.id for entry in entries):
        return entries
    return [*entries, Entry(own.latest, own.summary)]


def _read(body: bytes) -> list[Entry]:
    return [Entry(overlay.change(raw), str(raw["summary"])) for raw in json.loads(body)]
