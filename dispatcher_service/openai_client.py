"""One `openai` client per deployment: its URL form, its headers, and the client's surprises switched off.

Switched off are its retries (ours to decide and to count), the redirects that it would follow with our key, the account
headers that it takes from the environment, and its habit of reading whatever length an upstream sends.
"""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from dispatcher_service.catalogue import Api, Deployment

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of one HTTP answer. What is longer could not reach the caller either: gRPC messages end there."""


class AnswerTooLong(Exception):
    """The upstream sent more than `MAX_ANSWER_BYTES`."""


def connect(deployment: Deployment) -> AsyncOpenAI:
    """A client with a connection pool of its own. It connects when it is first used."""
    base_url, query = deployment.base_url, {}
    if deployment.api is Api.AZURE:
        # https://learn.microsoft.com/azure/ai-foundry/openai/reference
        base_url = f"{base_url.rstrip('/')}/openai/deployments/{quote(deployment.upstream_model, safe='')}"
        query = {"api-version": deployment.api_version}
    client = AsyncOpenAI(
        base_url=base_url,
        default_query=query,
        # Keys come with each call, so that they can change; the client wants one at start.
        api_key="none",
        max_retries=0,
        timeout=openai.Timeout(deployment.timeout, connect=deployment.connect_timeout),
        http_client=DefaultAioHttpClient(
            follow_redirects=False,
            # 0 is no limit to aiohttp, while None is its default of 100: our own limit stands before the deployment.
            # Idle connections go before common model servers close them (5 s): a call that meets such a close breaks
            # off, and is billed at its estimate.
            limits=httpx2.Limits(max_connections=0, keepalive_expiry=4.0),
            event_hooks={"response": [_bound]},
        ),
    )
    # The client takes these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send them to
    # every company we call. The last has no public way to clear it; a test holds that this one works.
    client.organization = None
    client.project = None
    client._custom_headers = {}
    return client


async def _bound(response: httpx2.Response) -> None:
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(stream)


class _Bounded(httpx2.AsyncByteStream):
    """A stream that ends with an error instead of filling the memory."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ANSWER_BYTES
        async for piece in self._inner:
            left -= len(piece)
            if left < 0:
                raise AnswerTooLong
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def call_headers(ours: Mapping[str, str]) -> dict[str, str | openai.Omit]:
    """The headers of a call, with the client's stand-in for a key left out where there is none of ours."""
    return {"authorization": openai.Omit(), **ours}
