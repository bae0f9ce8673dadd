"""What the `openai` client sends its requests with: aiohttp, behind the class of HTTP clients that it takes.

httpx2's own client merges headers, parses each URL three times, keeps cookies and looks for redirects, which costs more
than the call itself. Of what it does, a call of a model needs the environment's proxies and certificates, and gets
them here. Errors of aiohttp come through as they are (see `upstream_errors`).
"""

import functools
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import httpx2
import yarl

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of one HTTP answer. What is longer could not reach the caller either: gRPC messages end there."""

_HEADERS, _URL = "pointsman.headers", "pointsman.url"
"""Extensions of a request: its headers as they came, and its parsed URL."""
_KEEPALIVE_SECONDS = 4.0
"""Idle connections go before common model servers close them (5 s): a call that meets such a close breaks off, and is
billed at its estimate."""
_OF_THE_WIRE = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that say how a body was sent. It has been decoded when they are read."""


class AnswerTooLong(Exception):
    """The upstream sent more than `MAX_ANSWER_BYTES`."""


class HttpClient(httpx2.AsyncClient):
    """Posts to one deployment. Follows no redirect, keeps no cookie, and reads no more than `MAX_ANSWER_BYTES`."""

    def __init__(self, base_url: str) -> None:
        """A connection pool of its own. It connects when it is first used.

        `base_url` is what all URLs begin with: the environment's proxy for it is used for all.
        """
        super().__init__(transport=_NoTransport())
        self._proxy = _proxy(base_url)
        self._secure = "https" in (yarl.URL(base_url).scheme, yarl.URL(self._proxy or "").scheme)
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, tuple[httpx2.URL, yarl.URL]] = {}

    def build_request(self, method: str, url: httpx2.URL | str, **parts: Any) -> httpx2.Request:
        """See httpx2. `openai` gives a whole URL, all headers, and the body as bytes."""
        text = str(url)
        if parts.get("params"):
            text = str(httpx2.URL(text, params=parts["params"]))
        known = self._urls.get(text)
        if known is None:
            known = self._urls[text] = httpx2.URL(text), yarl.URL(text, encoded=True)
        timeout: httpx2.Timeout = parts["timeout"]
        extensions = {"timeout": timeout, _HEADERS: parts["headers"], _URL: known[1]}
        return httpx2.Request(method, known[0], stream=httpx2.ByteStream(parts["content"]), extensions=extensions)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_: Any) -> httpx2.Response:
        """See httpx2.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: it could not be sent, or its answer not be read.
            AnswerTooLong: see there.
        """
        timeout = request.extensions["timeout"]
        assert isinstance(request.stream, httpx2.ByteStream)
        response = await self._opened().request(
            request.method,
            request.extensions[_URL],
            headers=request.extensions[_HEADERS],
            data=b"".join(request.stream),
            allow_redirects=False,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(sock_connect=timeout.connect, sock_read=timeout.read),
        )
        good = response.status < 300
        if stream and good:
            return httpx2.Response(response.status, request=request, stream=_Pieces(response))
        try:
            pieces = [piece async for piece in _bounded(response)]
        finally:
            response.release()
        # Nobody looks at the headers of an answer that is one.
        headers = None if good else [h for h in response.raw_headers if h[0].lower() not in _OF_THE_WIRE]
        return httpx2.Response(response.status, headers=headers, request=request, content=b"".join(pieces))

    async def aclose(self) -> None:
        """Close all connections."""
        await super().aclose()
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # 0 is no limit to aiohttp: our own limit stands before the deployment.
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=_certificates() if self._secure else True
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


class _NoTransport(httpx2.AsyncBaseTransport):
    """httpx2's would load certificates, and is never used."""


class _Pieces(httpx2.AsyncByteStream):
    """A body as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._reading = _bounded(response)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._reading

    async def aclose(self) -> None:
        await self._reading.aclose()
        # One that has been read to its end leaves its connection to the next call; any other closes it.
        self._response.release()


async def _bounded(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """What has arrived, decompressed, whenever something has."""
    left, content = MAX_ANSWER_BYTES, response.content
    while piece := await content.readany():
        left -= len(piece)
        if left < 0:
            raise AnswerTooLong
        yield piece


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom we trust, by the environment (SSL_CERT_FILE, SSL_CERT_DIR): half a megabyte and 20 ms, so one for all."""
    return httpx2.create_ssl_context()


def _proxy(base_url: str) -> str | None:
    """The environment's proxy for this address."""
    url = yarl.URL(base_url)
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(url.authority):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
