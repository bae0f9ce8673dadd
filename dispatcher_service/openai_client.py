"""One `openai` client per deployment: its URL form, its headers, its errors, and its surprises switched off.

Switched off are its retries (ours to decide and to count) and the account headers that it takes from the environment;
what it sends with (`openai_http`) follows no redirect with our key, and reads no answer without end.
"""

from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import httpx2
import openai
import yarl
from multidict import CIMultiDict
from openai import AsyncOpenAI

from dispatcher_service import openai_http
from dispatcher_service.catalogue import Api, Deployment
from dispatcher_service.openai_http import Connections

_OF_SENDING = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})
"""Headers that whoever sends a request writes by itself."""


class Client:
    """Asks one deployment for chat completions.

    Making a request costs the library more than sending it, and all requests of a deployment are the same but for their
    bodies. So it makes the head of one, which is repeated for as long as the headers that it is given stay the same.
    """

    def __init__(self, deployment: Deployment) -> None:
        """Has a connection pool of its own. It connects when it is first used."""
        base_url, query = deployment.base_url, {}
        if deployment.api is Api.AZURE:
            # https://learn.microsoft.com/azure/ai-foundry/openai/reference
            base_url = f"{base_url.rstrip('/')}/openai/deployments/{quote(deployment.upstream_model, safe='')}"
            query = {"api-version": deployment.api_version}
        self._library = AsyncOpenAI(
            base_url=base_url,
            default_query=query,
            # Keys come with each call, so that they can change; the library wants one at start.
            api_key="none",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=_Mirror()),
        )
        # It takes these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send them to every
        # company we call. The last has no public way to clear it; a test holds that this one works.
        self._library.organization = None
        self._library.project = None
        self._library._custom_headers = {}
        self._connections = Connections(base_url)
        self._head: tuple[Mapping[str, str], yarl.URL, CIMultiDict[str]] | None = None
        """Of the last request: the headers that were given for it, its URL, and all its headers."""

    async def post(
        self, body: bytes, *, headers: Mapping[str, str], once: Mapping[str, str], connect_timeout: float
    ) -> aiohttp.ClientResponse:
        """The response to a request for a chat completion, whose status is good. It must be released.

        Args:
            body: JSON.
            headers: the deployment's own, with its key. Where they hold none, none is sent.
            once: headers of this call alone.
            connect_timeout: seconds.

        Raises:
            openai.APIStatusError: the status is none of success.
            aiohttp.ClientError, TimeoutError, OSError: it could not be sent, or its answer not be read.
        """
        head = self._head
        if head is None or head[0] != headers:
            head = self._head = await self._made(headers)
        _, url, whole = head
        if once:
            whole = whole.copy()
            whole.update(once)
        response = await self._connections.post(url, body, headers=whole, connect_timeout=connect_timeout)
        if response.status >= 300:
            raise await self._refusal(url, response)
        return response

    async def close(self) -> None:
        """Close all connections."""
        await self._library.close()
        await self._connections.close()

    async def _made(self, headers: Mapping[str, str]) -> tuple[Mapping[str, str], yarl.URL, CIMultiDict[str]]:
        mirrored = await self._library.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=b"",
            options={
                # The library's stand-in for a key is left out where there is none of ours.
                "headers": {"authorization": openai.Omit(), **headers},
                # How long a read may take is limited by `patience`, and not told to the upstream.
                "timeout": openai.Timeout(None),
            },
        )
        made = mirrored.request
        whole = CIMultiDict((name, value) for name, value in made.headers.items() if name not in _OF_SENDING)
        return dict(headers), yarl.URL(str(made.url), encoded=True), whole

    async def _refusal(self, url: yarl.URL, response: aiohttp.ClientResponse) -> openai.APIStatusError:
        content = await openai_http.read(response)
        headers = [header for header in response.raw_headers if header[0].lower() not in openai_http.OF_THE_WIRE]
        request = httpx2.Request("POST", str(url))
        return self._library._make_status_error_from_response(
            httpx2.Response(response.status, headers=headers, content=content, request=request)
        )


class _Mirror(httpx2.AsyncBaseTransport):
    """Sends nothing: a response shows the request that it belongs to."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, request=request)
