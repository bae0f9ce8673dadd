"""What layers around the use case need: the use case's own shape, and a place for small documents."""

from collections.abc import AsyncGenerator
from typing import Protocol

from dispatcher_service.chat import Request
from dispatcher_service.dispatch import Answer, StreamEvent
from dispatcher_service.ledger.contract import Document
from dispatcher_service.outcome import Choice


class Documents(Protocol):
    """The part of `ledger.contract.Ledger` that keeps documents."""

    async def get_document(self, tenant_id: str, name: str) -> Document | None: ...

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool: ...

    async def delete_document(self, tenant_id: str, name: str) -> bool: ...


class Dispatching(Protocol):
    """What a layer stands around, and is itself. See `dispatch.Dispatcher`."""

    async def route(self, request: Request) -> Choice: ...

    async def complete(self, request: Request) -> Answer: ...

    def stream(self, request: Request) -> AsyncGenerator[StreamEvent, None]: ...
