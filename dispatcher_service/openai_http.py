"""How requests of the `openai` client are sent: by aiohttp, whose call costs a quarter of what httpx2's does.

From the environment come proxies and certificates. Errors of aiohttp come through as they are (see `upstream_errors`).
"""

import functools
import ssl
import urllib.request
from collections.abc import AsyncGenerator

import aiohttp
import httpx2
import yarl
from multidict import CIMultiDict

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of one HTTP answer. What is longer could not reach the caller either: gRPC messages end there."""

OF_THE_WIRE = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that say how a body was sent. It has been decoded when it is read."""

_KEEPALIVE_SECONDS = 4.0
"""Idle connections go before common model servers close them (5 s): a call that meets such a close breaks off, and is
billed at its estimate."""


class AnswerTooLong(Exception):
    """The upstream sent more than `MAX_ANSWER_BYTES`."""


class Connections:
    """Posts to one deployment. Follows no redirect and keeps no cookie."""

    def __init__(self, base_url: str) -> None:
        """A connection pool of its own. It connects when it is first used.

        `base_url` is what all URLs begin with: the environment's proxy for it is used for all.
        """
        self._proxy = _proxy(base_url)
        self._secure = "https" in (yarl.URL(base_url).scheme, yarl.URL(self._proxy or "").scheme)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, url: yarl.URL, body: bytes, *, headers: CIMultiDict[str], connect_timeout: float
    ) -> aiohttp.ClientResponse:
        """The response once its head is there. It must be released; `read` does.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: it could not be sent, or its answer not be read.
        """
        return await self._opened().request(
            "POST",
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(sock_connect=connect_timeout),
        )

    async def close(self) -> None:
        """Close all connections."""
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


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, decompressed. The response is released.

    Raises:
        AnswerTooLong: see there.
        aiohttp.ClientError: it ends early, or is not compressed as it says.
    """
    try:
        return b"".join([piece async for piece in pieces(response)])
    finally:
        response.release()


async def pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """What has arrived, decompressed, whenever something has. Raises as `read` does."""
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
