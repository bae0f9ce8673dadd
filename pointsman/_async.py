"""The dispatcher's client for asyncio. `_sync` is the same for threads: a test holds their methods alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar, Unpack

import grpc.aio

from pointsman import _translation as translation
from pointsman._calls import Credential, PointsmanCallError, broken_stream, call_errors, metadata
from pointsman._retries import wait_before_retry
from pointsman._streams import StreamState
from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc, records_pb2, records_pb2_grpc
from pointsman.enums import (
    Preference,
)
from pointsman.runtime.channels import ClientTls, open_channel
from pointsman.values import (
    Answer,
    Conversation,
    Decision,
    Explanation,
    Sampling,
)

_Response = TypeVar("_Response")


class DispatcherClient:
    """Calls the dispatcher as one tenant, over one channel that all calls share. Make it in a running event loop."""

    def __init__(
        self,
        address: str,
        *,
        tenant: str = "",
        credential: Credential = "",
        tls: ClientTls | None = None,
        timeout: float = 120.0,
        retries: int = 2,
    ) -> None:
        """Connects on the first call.

        Args:
            address: a gRPC target, such as `127.0.0.1:50052` or `dns:///dispatcher:50052`.
            tenant: who pays, for a dispatcher without authentication; empty leaves it to the dispatcher, which in
                development takes `default`.
            credential: an API key or a token. A function is asked before each try, so that a token may be renewed.
            tls: how to trust the dispatcher, and the client certificate if it wants one; `None` speaks in the clear.
            timeout: seconds that a call may take with all its tries, where the call sets none.
            retries: how often a call is tried again where that can help; 0 leaves it to the caller. Give a
                `request_id` to have calls tried again that were lost on the way: without one they might be paid twice.
        """
        self._connect(open_channel(address, tls=tls), tenant, credential, timeout, retries)
        self._owns_channel = True

    def _connect(
        self, channel: grpc.aio.Channel, tenant: str, credential: Credential, timeout: float, retries: int
    ) -> None:
        self._channel = channel
        self._stub = dispatcher_pb2_grpc.DispatcherServiceStub(channel)
        self._records = records_pb2_grpc.RecordServiceStub(channel)
        self._tenant = tenant
        self._credential = credential
        self._timeout = timeout
        self._retries = retries

    def acting_as(self, *, tenant: str = "", credential: Credential = "") -> "DispatcherClient":
        """A client for someone else over the same channel; closing it closes nothing."""
        other = object.__new__(DispatcherClient)
        other._connect(self._channel, tenant, credential, self._timeout, self._retries)
        other._owns_channel = False
        return other

    async def complete(
        self,
        conversation: Conversation,
        *,
        request_id: str = "",
        conversation_id: str = "",
        alpha: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """The whole answer.

        Args:
            conversation: messages, or one question as a string.
            request_id: the caller's name for the request, by which it is answered once; empty lets the dispatcher
                make one.
            conversation_id: the caller's name for what this is a turn of, so that its model can stay.
            alpha: overrides the tenant's threshold, where its policy allows that; in [0, 1].
            labels: up to 8, for the decision log only.
            timeout: seconds; default: the client's.
            sampling: temperature, max_tokens, … of OpenAI chat completions.

        Raises:
            PointsmanCallError: there is no answer.
        """
        request = dispatcher_pb2.CompleteRequest(
            chat=translation.chat(conversation, sampling),
            request_id=request_id,
            conversation_id=conversation_id,
            alpha=alpha,
            labels=labels or {},
        )
        return translation.answer(await self._call(self._stub.Complete, request, timeout, named=bool(request_id)))

    @asynccontextmanager
    async def stream_complete(
        self,
        conversation: Conversation,
        *,
        request_id: str = "",
        conversation_id: str = "",
        alpha: float | None = None,
        labels: Mapping[str, str] | None = None,
        accept_replacement: bool = False,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator["AnswerStream"]:
        """The answer as it is written: a context manager that gives an `AnswerStream`, with its decision made.

        Leaving the context ends the call, and with it the model's work. A stream that has begun is not tried again.
        Arguments and errors are those of `complete`. With `accept_replacement` the answer of a cascade comes at once,
        and may be replaced: show the stream's `text` after each piece, which begins anew then.
        """
        request = dispatcher_pb2.StreamCompleteRequest(
            chat=translation.chat(conversation, sampling),
            request_id=request_id,
            conversation_id=conversation_id,
            alpha=alpha,
            labels=labels or {},
            accept_replacement=accept_replacement,
        )
        call: Any = None

        async def begin(left: float) -> object:
            nonlocal call
            call = self._stub.StreamComplete(request, timeout=left, metadata=self._metadata(left))
            return await call.read()

        try:
            first = await self._tried(begin, timeout, named=bool(request_id))
            yield AnswerStream(call, first)
        finally:
            if call is not None:
                # An abandoned stream is never collected (grpc issue 43462).
                call.cancel()

    async def route(
        self,
        conversation: Conversation,
        *,
        conversation_id: str = "",
        alpha: float | None = None,
        timeout: float | None = None,
    ) -> Decision:
        """The decision that `complete` would make, without an answer and without cost.

        Raises:
            PointsmanCallError: there is no decision.
        """
        chat = translation.chat(conversation, {})
        request = dispatcher_pb2.RouteRequest(chat=chat, alpha=alpha, conversation_id=conversation_id)
        response = await self._call(self._stub.Route, request, timeout, named=True)
        return translation.decision(response.decision)

    async def get_decision(self, request_id: str, *, timeout: float | None = None) -> Explanation:
        """Why a request was routed as it was.

        Raises:
            PointsmanCallError: NOT_FOUND if the tenant has no such request, or its record is not kept any more.
        """
        request = records_pb2.GetDecisionRequest(request_id=request_id)
        return translation.explanation(await self._call(self._records.GetDecision, request, timeout, named=True))

    async def record_feedback(
        self,
        request_id: str,
        *,
        rating: float | None = None,
        preference: Preference | None = None,
        timeout: float | None = None,
    ) -> None:
        """Say how good an answer was: a rating in [0, 1], or which of two answers was better. The latest counts.

        Raises:
            PointsmanCallError: NOT_FOUND as above, or the opinion cannot be used.
        """
        request = translation.feedback(request_id, rating, preference)
        await self._call(self._records.RecordFeedback, request, timeout, named=True)

    async def erase_conversation(self, conversation_id: str, *, timeout: float | None = None) -> int:
        """Forget what is kept of a conversation; returns how many items were deleted."""
        request = records_pb2.EraseConversationRequest(conversation_id=conversation_id)
        response = await self._call(self._records.EraseConversation, request, timeout, named=True)
        erased: int = response.erased_items
        return erased

    async def erase_tenant(self, tenant_id: str = "", *, timeout: float | None = None) -> int:
        """Forget what is kept of a tenant, one's own by default; returns how many items were deleted."""
        request = records_pb2.EraseTenantRequest(tenant_id=tenant_id)
        response = await self._call(self._records.EraseTenant, request, timeout, named=True)
        erased: int = response.erased_items
        return erased

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        if self._owns_channel:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: Any, request: object, timeout: float | None, *, named: bool) -> Any:
        async def call(left: float) -> Any:
            return await method(request, timeout=left, metadata=self._metadata(left))

        return await self._tried(call, timeout, named=named)

    async def _tried(
        self, call: Callable[[float], Awaitable[_Response]], timeout: float | None, *, named: bool
    ) -> _Response:
        """The result of `call`, which is given the seconds left and is tried again where that can help."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        tried = 0
        while True:
            tried += 1
            try:
                with call_errors():
                    return await call(max(deadline - time.monotonic(), 0.0))
            except PointsmanCallError as error:
                left = deadline - time.monotonic()
                wait = wait_before_retry(error, tried=tried, retries=self._retries, time_left=left, named=named)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    def _metadata(self, timeout: float) -> tuple[tuple[str, str], ...]:
        return metadata(self._tenant, self._credential, timeout)


class AnswerStream(StreamState):
    """An answer that is being written. Iterate over it for pieces of text, none empty, or over its `events`."""

    def __init__(self, call: Any, first: object) -> None:
        """Made by `DispatcherClient.stream_complete`."""
        super().__init__(first)
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next piece.

        Raises:
            PointsmanCallError: the answer ended early. What came until then may be billed.
        """
        while self.finish_reason is None:
            text = self.take(await self._read())
            if text:
                return text
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[dispatcher_pb2.StreamCompleteResponse]:
        """Everything that comes after `started`: deltas of all choices, `replaced`, and `finished` or `failed`.

        Raises:
            PointsmanCallError: as above; after `failed` it is the error that this announced.
        """
        while self.finish_reason is None:
            event = await self._read()
            self.take(event)
            yield event

    async def _read(self) -> dispatcher_pb2.StreamCompleteResponse:
        with call_errors():
            event = await self._call.read()
        if not isinstance(event, dispatcher_pb2.StreamCompleteResponse):
            raise broken_stream("ended without a finish")
        return event
