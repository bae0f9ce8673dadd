"""Typed asyncio clients for the dispatcher and the scorer.

    async with DispatcherClient("127.0.0.1:50052", tenant="research") as client:
        answer = await client.complete("Why is the sky blue?", max_tokens=200)
        print(answer.content, answer.decision.model, answer.decision.cost_nano_usd)

        async with client.stream_complete("Write a haiku about rain.") as stream:
            async for text in stream:
                print(text, end="", flush=True)
        print(stream.decision.cost_nano_usd)

Every call has a deadline. A call that fails raises `PointsmanCallError`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from pointsman import _translation as translation
from pointsman._calls import PointsmanCallError, call_errors, open_channel
from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2, dispatcher_pb2_grpc
from pointsman.runtime.status import Violation
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from pointsman.values import (
    AlphaSource,
    Answer,
    Conversation,
    CostSource,
    Decision,
    FinishReason,
    Message,
    Messages,
    Reason,
    Role,
    Sampling,
    Score,
    ScorerInfo,
    Tier,
    Usage,
    UsageSource,
)

__all__ = [
    "AlphaSource",
    "Answer",
    "AnswerStream",
    "Conversation",
    "CostSource",
    "Decision",
    "DispatcherClient",
    "FinishReason",
    "Message",
    "Messages",
    "PointsmanCallError",
    "Reason",
    "Role",
    "Sampling",
    "Score",
    "ScorerClient",
    "ScorerInfo",
    "Tier",
    "Usage",
    "UsageSource",
    "Violation",
]

_TENANT_KEY = "x-pointsman-tenant"


class DispatcherClient:
    """Calls the dispatcher as one tenant, over one channel that all calls share. Make it in a running event loop."""

    def __init__(
        self, address: str, *, tenant: str = "", credential: str | Callable[[], str] = "", timeout: float = 120.0
    ) -> None:
        """Connects on the first call.

        Args:
            address: a gRPC target, such as `127.0.0.1:50052` or `dns:///dispatcher:50052`.
            tenant: who pays, for a dispatcher without authentication; empty leaves it to the dispatcher, which in
                development takes `default`.
            credential: an API key or a token. A function is asked before each call, so that a token may be renewed.
            timeout: seconds that a call may take, where the call sets none.
        """
        self._channel = open_channel(address)
        self._stub = dispatcher_pb2_grpc.DispatcherServiceStub(self._channel)
        self._tenant = tenant
        self._credential = credential
        self._timeout = timeout

    async def complete(
        self,
        conversation: Conversation,
        *,
        request_id: str = "",
        alpha: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """The whole answer.

        Args:
            conversation: messages, or one question as a string.
            request_id: the caller's name for the request; empty lets the dispatcher make one.
            alpha: overrides the tenant's threshold, where its policy allows that; in [0, 1].
            labels: up to 8, for the decision log only.
            timeout: seconds; default: the client's.
            sampling: temperature, max_tokens, … of OpenAI chat completions.

        Raises:
            PointsmanCallError: there is no answer.
        """
        request = dispatcher_pb2.CompleteRequest(
            chat=translation.chat(conversation, sampling), request_id=request_id, alpha=alpha, labels=labels or {}
        )
        with call_errors():
            response = await self._stub.Complete(request, timeout=self._deadline(timeout), metadata=self._metadata())
        return translation.answer(response)

    @asynccontextmanager
    async def stream_complete(
        self,
        conversation: Conversation,
        *,
        request_id: str = "",
        alpha: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator["AnswerStream"]:
        """The answer as it is written: a context manager that gives an `AnswerStream`, with its decision made.

        Leaving the context ends the call, and with it the model's work. Arguments and errors are those of `complete`.
        """
        request = dispatcher_pb2.StreamCompleteRequest(
            chat=translation.chat(conversation, sampling), request_id=request_id, alpha=alpha, labels=labels or {}
        )
        call = self._stub.StreamComplete(request, timeout=self._deadline(timeout), metadata=self._metadata())
        try:
            with call_errors():
                first = await call.read()
            if not isinstance(first, dispatcher_pb2.StreamCompleteResponse) or not first.HasField("started"):
                raise _broken_stream("began without a decision")
            yield AnswerStream(call, first.started)
        finally:
            # An abandoned stream is never collected (grpc issue 43462).
            call.cancel()

    async def route(
        self,
        conversation: Conversation,
        *,
        alpha: float | None = None,
        timeout: float | None = None,
    ) -> Decision:
        """The decision that `complete` would make, without an answer and without cost.

        Raises:
            PointsmanCallError: there is no decision.
        """
        request = dispatcher_pb2.RouteRequest(chat=translation.chat(conversation, {}), alpha=alpha)
        with call_errors():
            response = await self._stub.Route(request, timeout=self._deadline(timeout), metadata=self._metadata())
        return translation.decision(response.decision)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        credential = self._credential if isinstance(self._credential, str) else self._credential()
        return (
            *(((_TENANT_KEY, self._tenant),) if self._tenant else ()),
            *((("authorization", f"Bearer {credential}"),) if credential else ()),
        )

    def _deadline(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AnswerStream:
    """An answer that is being written. Iterate over it for pieces of text, none empty.

    Attributes:
        request_id: the caller's, or the one that the dispatcher made.
        decision: who answers; after the last piece the same decision with its costs.
        finish_reason: why the model stopped, after the last piece.
        usage: tokens used, after the last piece.
    """

    def __init__(self, call: Any, started: dispatcher_pb2.StreamStarted) -> None:
        """Made by `DispatcherClient.stream_complete`."""
        self._call = call
        self.request_id = started.request_id
        self.decision = translation.decision(started.decision)
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next piece.

        Raises:
            PointsmanCallError: the answer ended early. What came until then may be billed.
        """
        while self.finish_reason is None:
            with call_errors():
                event = await self._call.read()
            if event is grpc.aio.EOF:
                raise _broken_stream("ended without a finish")
            # Other choices, and pieces of tool calls, are in the answer of `complete`.
            if event.HasField("delta") and event.delta.index == 0 and event.delta.content:
                content: str = event.delta.content
                return content
            if event.HasField("finished"):
                self.decision = translation.decision(event.finished.decision)
                self.usage = translation.usage(event.finished.usage)
                ends = event.finished.finish_reasons or [chat_pb2.FINISH_REASON_UNSPECIFIED]
                self.finish_reason = translation.finish_reason(ends[0])
        raise StopAsyncIteration


class ScorerClient:
    """Calls the scorer over one channel that all calls share. Make it in a running event loop."""

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        """Connects on the first call. `timeout` is in seconds, for every call."""
        self._channel = open_channel(address)
        self._stub = scorer_pb2_grpc.ScorerServiceStub(self._channel)
        self._timeout = timeout

    async def score(
        self, conversation: Messages, *, scorer: str = "", strong_model: str = "", weak_model: str = ""
    ) -> Score:
        """The win probability of one conversation; what is left empty is the service's default.

        Raises:
            PointsmanCallError: there is no prediction.
        """
        request = translation.score_request(conversation, scorer, strong_model, weak_model)
        with call_errors():
            return translation.score(await self._stub.Score(request, timeout=self._timeout))

    async def batch_score(
        self,
        conversations: Sequence[Messages],
        *,
        scorer: str = "",
        strong_model: str = "",
        weak_model: str = "",
    ) -> list[Score]:
        """The win probabilities of many conversations, in their order.

        Raises:
            PointsmanCallError: one conversation cannot be scored, or there are more than the scorer's limit.
        """
        request = scorer_pb2.BatchScoreRequest(
            requests=[translation.score_request(each, scorer, strong_model, weak_model) for each in conversations]
        )
        with call_errors():
            response = await self._stub.BatchScore(request, timeout=self._timeout)
        return [translation.score(each) for each in response.responses]

    async def list_scorers(self) -> list[ScorerInfo]:
        """Every scorer that is served, the default first.

        Raises:
            PointsmanCallError: the service did not answer.
        """
        with call_errors():
            response = await self._stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=self._timeout)
        return [translation.scorer_info(each) for each in response.scorers]

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _broken_stream(how: str) -> PointsmanCallError:
    return PointsmanCallError(grpc.StatusCode.INTERNAL, f"the stream {how}: is this address a Pointsman dispatcher?")
