"""HTTP to one deployment: OpenAI's URLs and Azure's, whole answers and server-sent events, over aiohttp.

One POST is all there is to it, so that nothing stands between: the `openai` package spends six times the processor time
per call on it (benchmarks/README.md), and would retry, follow redirects with our key, and send what it finds in the
environment. Its types are what the tests hold requests and answers to.
"""

import json
import urllib.request
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from dispatcher_service.catalogue import Api, Deployment

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of one HTTP answer. What is longer could not reach the caller either: gRPC messages end there."""
_MAX_ERROR_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 4.0
"""Idle connections go before common model servers close them (5 s): a call that meets such a close breaks off, and is
billed at its estimate."""
_HEADERS = {"content-type": "application/json", "user-agent": "pointsman"}
_DONE = b"[DONE]"


class AnswerTooLong(Exception):
    """The upstream sent more than `MAX_ANSWER_BYTES`."""


class ErrorEvent(Exception):
    """The upstream ended a stream with an error."""


class StatusError(Exception):
    """The upstream answered another status than 2xx. The message is the upstream's."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(_message(body))
        self.status = status
        self.headers = headers


class Client:
    """A connection pool of one deployment. It connects when it is first used; timeouts beyond that are the caller's."""

    def __init__(self, deployment: Deployment) -> None:
        """Make one inside a running event loop."""
        self._url = URL(_url(deployment), encoded=True)
        self._proxy = _proxy(self._url)
        self._session = aiohttp.ClientSession(
            # 0 is no limit: our own limit stands before the deployment.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
        )
        self._connect_timeout = deployment.connect_timeout

    async def complete(self, body: Mapping[str, Any], headers: Mapping[str, str], *, timeout: float) -> Any:
        """The answer as parsed JSON; `timeout` limits connecting.

        Raises:
            aiohttp.ClientError, StatusError, AnswerTooLong: no whole answer came.
            ValueError: it is not JSON.
        """
        async with self._post(body, headers, timeout) as response:
            pieces, left = [], MAX_ANSWER_BYTES
            async for piece in response.content.iter_any():
                left -= len(piece)
                if left < 0:
                    raise AnswerTooLong
                pieces.append(piece)
        return json.loads(b"".join(pieces))

    async def stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str], *, timeout: float
    ) -> AsyncGenerator[Any, None]:
        """The events of a streamed answer as parsed JSON. Errors as for `complete`, and `ErrorEvent`."""
        async with self._post(body, headers, timeout) as response:
            events, left = Events(), MAX_ANSWER_BYTES
            async for piece in response.content.iter_any():
                left -= len(piece)
                if left < 0:
                    raise AnswerTooLong
                for data in events.feed(piece):
                    if data.startswith(_DONE):
                        return
                    event = json.loads(data)
                    if isinstance(event, dict) and event.get("error"):
                        raise ErrorEvent
                    yield event

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def _post(
        self, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        async with self._session.post(
            self._url,
            data=_encode(body),
            headers=headers,
            proxy=self._proxy,
            # Our key is for this host alone.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=min(timeout, self._connect_timeout)),
        ) as response:
            if not 200 <= response.status < 300:
                raise StatusError(response.status, response.headers, await response.content.read(_MAX_ERROR_BYTES))
            yield response


class Events:
    """Server-sent events out of pieces of any size (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The line that has not ended yet, in pieces: a long one comes in many, and is joined once."""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of the events that end with this piece."""
        if b"\n" not in piece and b"\r" not in piece:
            self._rest.append(piece)
            return
        lines = b"".join((*self._rest, piece)).splitlines(keepends=True)
        # A carriage return may be the first half of a line's end.
        self._rest = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        for line in lines:
            text = line.rstrip(b"\r\n")
            if text.startswith(b"data:"):
                self._data.append(text[5:].removeprefix(b" "))
            elif not text and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data


def _url(deployment: Deployment) -> str:
    root = deployment.base_url.rstrip("/")
    if deployment.api is Api.AZURE:
        # https://learn.microsoft.com/azure/ai-foundry/openai/reference
        model, version = quote(deployment.upstream_model, safe=""), quote(deployment.api_version, safe="")
        return f"{root}/openai/deployments/{model}/chat/completions?api-version={version}"
    return f"{root}/chat/completions"


def _proxy(url: URL) -> str | None:
    """The proxy that the environment names for this address (`HTTPS_PROXY`, `NO_PROXY` and so on)."""
    proxy = urllib.request.getproxies().get(url.scheme)
    return None if proxy is None or urllib.request.proxy_bypass(url.authority) else proxy


def _encode(body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone surrogate is no UTF-8, but JSON has an escape for it, which is the one that this writes.
    return text.encode(errors="backslashreplace")


def _message(body: bytes) -> str:
    """What an error says: OpenAI's `error.message`, or the body as it is."""
    text = body.decode(errors="replace")
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = None
    return message if isinstance(message, str) else text
