"""HTTP in, `pointsman.client` out: a translation and nothing else.

A caller's bearer key goes on as the dispatcher's credential, so that there is one place that knows tenants. What was
decided is in `x-pointsman-…` headers. A caller who goes away ends the call behind it.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from apps.openai_gateway.errors import BAD_REQUEST, Failure, failure_of, not_found
from pointsman import openai_answers
from pointsman.client import AnswerStream, Conversation, Decision, DispatcherClient, PointsmanCallError
from pointsman.openai_answers import Chunks
from pointsman.openai_requests import OpenAIRequestError, read_chat

Result = TypeVar("Result")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a caller who went away; nobody reads it but the access log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request, read."""

    conversation: Conversation
    alpha: float | None
    stream: bool
    include_usage: bool
    request_id: str
    conversation_id: str


class Gateway:
    """The handlers."""

    def __init__(
        self,
        client: DispatcherClient,
        *,
        model: str,
        timeout: float,
        max_body_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives seconds since the epoch; the rest is as in `Settings`."""
        self._client = client
        self._model = model
        self._timeout = timeout
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    async def chat_completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        try:
            question = self._read(request.headers, await self._body(request))
        except OpenAIRequestError as error:
            return _refusal(Failure(BAD_REQUEST, error.mend, param=error.param))
        client = self._client.acting_as(
            credential=_bearer(request), tenant=request.headers.get("x-pointsman-tenant", "")
        )
        try:
            if question.stream:
                return await self._stream(client, question)
            return await _unless_gone(request, self._complete(client, question))
        except PointsmanCallError as error:
            return _refusal(failure_of(error))
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def models(self, _: Request) -> Response:
        """GET /v1/models: the one name that stands for whichever model is chosen."""
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        return JSONResponse(self._described()) if name == self._model else _refusal(not_found(name, self._model))

    async def health(self, _: Request) -> Response:
        """GET /healthz: the process answers. Whether the dispatcher does is the dispatcher's health."""
        return JSONResponse({"status": "ok"})

    async def _complete(self, client: DispatcherClient, question: Question) -> Response:
        answer = await client.complete(
            question.conversation,
            request_id=question.request_id,
            conversation_id=question.conversation_id,
            alpha=question.alpha,
            timeout=self._timeout,
        )
        body = openai_answers.completion(answer.response, created=int(self._clock()))
        return JSONResponse(body, headers=_headers(answer.decision, answer.request_id))

    async def _stream(self, client: DispatcherClient, question: Question) -> Response:
        # The decision comes before the first byte, so that a refusal is an HTTP status and not a broken stream.
        stack = contextlib.AsyncExitStack()
        try:
            stream = await stack.enter_async_context(
                client.stream_complete(
                    question.conversation,
                    request_id=question.request_id,
                    conversation_id=question.conversation_id,
                    alpha=question.alpha,
                    timeout=self._timeout,
                )
            )
        except BaseException:
            await stack.aclose()
            raise
        chunks = Chunks(
            stream.request_id,
            stream.decision.model,
            created=int(self._clock()),
            include_usage=question.include_usage,
        )
        return StreamingResponse(
            _events(stack, stream, chunks),
            media_type="text/event-stream",
            headers=_headers(stream.decision, stream.request_id) | {"cache-control": "no-cache"},
        )

    async def _body(self, request: Request) -> Mapping[str, Any]:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > self._max_body_bytes:
                raise OpenAIRequestError("body", f"send at most {self._max_body_bytes} bytes")
        try:
            body = json.loads(content)
        except ValueError as error:
            raise OpenAIRequestError("body", f"is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise OpenAIRequestError("body", "write a JSON object")
        return body

    def _read(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Question:
        fields = dict(body)
        model = fields.pop("model", None)
        stream = fields.pop("stream", None) or False
        options = fields.pop("stream_options", None) or {}
        if not isinstance(stream, bool):
            raise OpenAIRequestError("stream", "write true or false")
        if not isinstance(options, dict) or not options.keys() <= {"include_usage", "include_obfuscation"}:
            raise OpenAIRequestError("stream_options", "only include_usage is known here")
        return Question(
            conversation=read_chat(fields),
            alpha=self._alpha(model),
            stream=stream,
            include_usage=bool(options.get("include_usage")),
            request_id=headers.get("idempotency-key", ""),
            conversation_id=headers.get("x-pointsman-conversation", ""),
        )

    def _alpha(self, model: object) -> float | None:
        name, at, alpha = str(model).partition("@")
        if name != self._model:
            raise OpenAIRequestError("model", f"write {self._model}: the model that answers is chosen by the router")
        if not at:
            return None
        try:
            return float(alpha)
        except ValueError:
            raise OpenAIRequestError("model", f"write {self._model}@ALPHA with a number from 0 to 1") from None

    def _described(self) -> Mapping[str, Any]:
        return {"id": self._model, "object": "model", "created": 0, "owned_by": "pointsman"}


def application(gateway: Gateway, *, close: Callable[[], Any]) -> Starlette:
    """The ASGI application; `close` is awaited when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", gateway.chat_completions, methods=["POST"]),
            Route("/v1/models", gateway.models),
            Route("/v1/models/{name:path}", gateway.model),
            Route("/healthz", gateway.health),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )


async def _http_error(_: Request, error: Exception) -> Response:
    """No such path or method, in OpenAI's form."""
    assert isinstance(error, HTTPException)
    return _refusal(Failure(error.status_code, str(error.detail)))


async def _events(stack: contextlib.AsyncExitStack, stream: AnswerStream, chunks: Chunks) -> AsyncIterator[bytes]:
    """The stream's events; leaving it, in whatever way, ends the call."""
    async with stack:
        try:
            async for event in stream.events():
                for chunk in chunks.of(event):
                    yield openai_answers.server_sent(chunk)
        except PointsmanCallError as error:
            # The status is sent already: OpenAI's clients raise on an event that holds an error.
            yield openai_answers.server_sent(failure_of(error).document())
            return
        yield openai_answers.DONE


async def _unless_gone(request: Request, work: Any) -> Response:
    """`work`'s response; cancels it when the caller goes away.

    Raises:
        ClientDisconnect: the caller went away.
    """
    answering: asyncio.Task[Response] = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, watching):
            task.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _headers(decision: Decision, request_id: str) -> dict[str, str]:
    """What was decided. Costs are there once they are known: not at the beginning of a stream."""
    values: dict[str, object | None] = {
        "request-id": request_id,
        "tier": decision.tier.value,
        "model": decision.model,
        "reason": decision.reason.value,
        "alpha": decision.alpha,
        "win-probability": decision.win_probability,
        "scorer-version": decision.scorer_version or None,
        "cost-nano-usd": decision.cost_nano_usd or None,
        "other-tier-cost-nano-usd": decision.other_tier_cost_nano_usd or None,
    }
    return {f"x-pointsman-{name}": str(value) for name, value in values.items() if value is not None}


def _refusal(failure: Failure) -> Response:
    headers = {} if failure.retry_after is None else {"retry-after": str(math.ceil(failure.retry_after))}
    return JSONResponse(failure.document(), status_code=failure.status, headers=headers)
