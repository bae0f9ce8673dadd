"""The page's HTTP side: a few JSON calls over `pointsman.client`, and the files that a browser needs.

The browser holds the session; nothing is kept here. Each call is a call of the dispatcher as one tenant, so that what
the page shows is what any caller gets. An answer is streamed as lines of JSON: `decision`, then `text` pieces, then
`finished` or `failed`; where a cascade goes on to another model, `replaced` takes back the text so far. Leaving the
page, or Stop, ends the call and the model's work.

Since whoever reaches the page spends the tenant's budget, other web pages must not: every call has a JSON body, which
a browser does not send across origins without asking, and the Host header must be one of ours.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.playground import documents
from pointsman.client import AnswerStream, BudgetClient, DispatcherClient, PointsmanCallError, Preference

STATIC = Path(__file__).parent / "static"

_MAX_BODY_BYTES = 256 * 1024
_MAX_TOKENS = 4096
_QUICK_SECONDS = 10.0
_ANSWER_SECONDS = 300.0
_BAD_REQUEST, _BAD_GATEWAY = 400, 502

# Everything comes from this server, nothing is inline, and no other page may frame it.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the page says of where it is: the dispatcher's address, a notice on its models, and prompts to pick from."""

    dispatcher: str
    notice: str
    prompts: Sequence[str]


class BadBody(Exception):
    """The page sent what cannot be used. `str(error)` is a sentence."""


class Playground:
    """The handlers."""

    def __init__(self, dispatcher: DispatcherClient, budgets: BudgetClient, *, about: About) -> None:
        """Both clients call as the tenant who plays."""
        self._dispatcher = dispatcher
        self._budgets = budgets
        self._about = about

    async def page(self, _: Request) -> Response:
        """GET /."""
        return FileResponse(STATIC / "index.html")

    async def about(self, _: Request) -> Response:
        """GET /api/about: where this is, the tenant's policy (`null` with a `problem` if it cannot be had), prompts."""
        known: dict[str, Any] = {
            "dispatcher": self._about.dispatcher,
            "notice": self._about.notice,
            "prompts": list(self._about.prompts),
            "policy": None,
        }
        try:
            known["policy"] = documents.policy(await self._budgets.policy(history=1))
        except PointsmanCallError as error:
            known["problem"] = self._sentence(error)
        return JSONResponse(known)

    async def route(self, request: Request) -> Response:
        """POST /api/route {prompt, alpha}: the decision, without an answer and without cost."""
        body = await _body(request)
        decision = await self._dispatcher.route(_prompt(body), alpha=_alpha(body), timeout=_QUICK_SECONDS)
        return JSONResponse(documents.decision(decision))

    async def answer(self, request: Request) -> Response:
        """POST /api/answer {prompt, alpha, max_tokens, label}: the answer as it is written."""
        body = await _body(request)
        # Entered before the response begins, so that a refusal is an HTTP status and not a broken stream.
        stack = contextlib.AsyncExitStack()
        try:
            stream = await stack.enter_async_context(
                self._dispatcher.stream_complete(
                    _prompt(body),
                    alpha=_alpha(body),
                    labels={"playground": _word(body, "label")},
                    accept_replacement=True,
                    timeout=_ANSWER_SECONDS,
                    max_tokens=_max_tokens(body),
                )
            )
        except BaseException:
            await stack.aclose()
            raise
        return StreamingResponse(self._lines(stack, stream), media_type="application/x-ndjson")

    async def explanation(self, request: Request) -> Response:
        """POST /api/explanation {request_id}: why, in the dispatcher's own sentences."""
        found = await self._dispatcher.get_decision(_word(await _body(request), "request_id"), timeout=_QUICK_SECONDS)
        return JSONResponse({"text": found.text})

    async def vote(self, request: Request) -> Response:
        """POST /api/vote {request_id, preference}: what someone thought, kept beside the request."""
        body = await _body(request)
        try:
            preference = Preference(_word(body, "preference"))
        except ValueError:
            raise BadBody(f"preference: write one of {', '.join(Preference)}") from None
        await self._dispatcher.record_feedback(_word(body, "request_id"), preference=preference, timeout=_QUICK_SECONDS)
        return JSONResponse({})

    async def budget(self, _: Request) -> Response:
        """GET /api/budget: the tenant's own windows."""
        return JSONResponse(documents.budget(await self._budgets.budget()))

    async def failed(self, _: Request, error: Exception) -> Response:
        """A refusal of the dispatcher, as a sentence."""
        assert isinstance(error, PointsmanCallError)
        return JSONResponse({"problem": self._sentence(error)}, status_code=_BAD_GATEWAY)

    async def misread(self, _: Request, error: Exception) -> Response:
        """A body that cannot be used."""
        return JSONResponse({"problem": str(error)}, status_code=_BAD_REQUEST)

    async def _lines(self, stack: contextlib.AsyncExitStack, stream: AnswerStream) -> AsyncIterator[bytes]:
        """The stream's events; leaving it, in whatever way, ends the call."""
        async with stack:
            yield _line({"decision": documents.decision(stream.decision), "request_id": stream.request_id})
            replacements = 0
            try:
                async for text in stream:
                    if stream.replacements != replacements:
                        replacements = stream.replacements
                        yield _line({"replaced": True, "decision": documents.decision(stream.decision)})
                    yield _line({"text": text})
            except PointsmanCallError as error:
                yield _line({"failed": self._sentence(error), "decision": documents.decision(stream.decision)})
                return
            yield _line({"finished": stream.finish_reason, "decision": documents.decision(stream.decision)})

    def _sentence(self, error: PointsmanCallError) -> str:
        return documents.failure(error, address=self._about.dispatcher)


def application(playground: Playground, *, hosts: Sequence[str]) -> Starlette:
    """The ASGI application; `hosts` are the names by which a browser may call it."""
    return Starlette(
        routes=[
            Route("/", playground.page),
            Route("/api/about", playground.about),
            Route("/api/budget", playground.budget),
            Route("/api/route", playground.route, methods=["POST"]),
            Route("/api/answer", playground.answer, methods=["POST"]),
            Route("/api/explanation", playground.explanation, methods=["POST"]),
            Route("/api/vote", playground.vote, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(_WithHeaders)],
        exception_handlers={PointsmanCallError: playground.failed, BadBody: playground.misread},
    )


class _WithHeaders:
    """Adds `_HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


async def _body(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadBody("Send JSON, with that content type.")
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _MAX_BODY_BYTES:
            raise BadBody(f"The prompt is too long: at most {_MAX_BODY_BYTES // 1024} KiB fit here.")
    try:
        body = json.loads(content)
    except ValueError:
        raise BadBody("Send a JSON object.") from None
    if not isinstance(body, dict):
        raise BadBody("Send a JSON object.")
    return body


def _prompt(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadBody("Write a prompt first.")
    return prompt


def _alpha(body: Mapping[str, Any]) -> float | None:
    alpha = body.get("alpha")
    if alpha is None:
        return None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise BadBody("alpha: write a number from 0 to 1, or null for the tenant's own.")
    return float(alpha)


def _max_tokens(body: Mapping[str, Any]) -> int:
    tokens = body.get("max_tokens")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= _MAX_TOKENS:
        raise BadBody(f"Longest answer: write a whole number from 1 to {_MAX_TOKENS}.")
    return tokens


def _word(body: Mapping[str, Any], name: str) -> str:
    word = body.get(name)
    if not isinstance(word, str) or not word:
        raise BadBody(f"{name}: missing.")
    return word
