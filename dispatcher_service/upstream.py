"""Models behind OpenAI-compatible endpoints, through the `openai` client.

Every wait has a timeout, and retrying is not done here: `failover` decides it. Whatever goes wrong becomes an
`UpstreamError` (`upstream_errors`).
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import cast

import aiohttp
from httpx2 import AsyncByteStream, Response
from openai import AsyncOpenAI, AsyncStream

from dispatcher_service import openai_body, openai_client, openai_http, openai_wire
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.errors import UpstreamUnavailable
from dispatcher_service.openai_stream import Reading
from dispatcher_service.patience import Patience
from dispatcher_service.upstream_errors import Translator
from pointsman.runtime.logs import fields

_DRAIN_SECONDS = 0.1

logger = logging.getLogger(__name__)


class OpenAIUpstream:
    """Implements `ports.Upstream`: one client, and so one connection pool, per deployment."""

    def __init__(self, credentials: Credentials, *, trace_headers: Callable[[], Mapping[str, str]] = dict) -> None:
        """Clients are made when they are first used, and made again if their deployment is configured anew.

        `trace_headers` gives the headers by which the upstream can join the trace of the call that is answered now.
        """
        self._trace_headers = trace_headers
        self._credentials = credentials
        self._translate = Translator(credentials)
        self._clients: dict[str, tuple[Deployment, AsyncOpenAI, str]] = {}
        self._replaced: list[AsyncOpenAI] = []

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """See `ports.Upstream.complete`."""
        patience = Patience(deployment, timeout)
        with self._translate(deployment, patience):
            # The client's own timeout limits each read, not the call: an upstream that drips would never end.
            async with patience.whole():
                response = await self._post(deployment, chat, patience, stream=False)
            return openai_wire.read_completion(json.loads(response.content))

    async def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """See `ports.Upstream.stream`."""
        patience = Patience(deployment, timeout)
        reading = Reading(deployment.name, chat.choices)
        with self._translate(deployment, patience):
            async with patience.first_token():
                response = await self._post(deployment, chat, patience, stream=True)
            assert isinstance(response.stream, AsyncByteStream)
            # The bytes as they come: `openai_http` has unpacked them.
            pieces = aiter(response.stream)
            async with contextlib.aclosing(response), patience:
                while not reading.done:
                    # Around each read and not around the loop, which also holds the time the caller takes to read.
                    with patience.read(begun=reading.begun):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    for delta in reading.read(piece):
                        yield delta
                await _drain(pieces)
        yield reading.end()

    async def close(self) -> None:
        """Close all connections."""
        for client in (*self._replaced, *(client for _, client, _ in self._clients.values())):
            await client.close()

    async def _post(self, deployment: Deployment, chat: Chat, patience: Patience, *, stream: bool) -> Response:
        """The response as it came, whose status is good: parsing it into the client's types costs more than all else.

        One that is streamed must be closed.
        """
        client, url = self._client(deployment)
        try:
            headers = openai_client.call_headers(self._credentials.headers(deployment))
        except CredentialError as error:
            logger.error("a deployment has no usable key", extra=fields(error=str(error)))
            raise UpstreamUnavailable(
                deployment.name, "has no usable key", may_be_billed=False, retryable=False
            ) from error
        response = await client.post(
            url,
            cast_to=Response,
            content=openai_body.encode(deployment, chat, stream=stream),
            options={
                "timeout": patience.client_timeout(),
                "headers": {**headers, **self._trace_headers()},
                "idempotency_key": "",  # Never sent, and drawn at random where none is given.
            },
            stream=stream,
            stream_cls=AsyncStream[object],  # For the types alone: a raw response is none.
        )
        return cast("Response", response)

    def _client(self, deployment: Deployment) -> tuple[AsyncOpenAI, str]:
        """The deployment's client, and the whole URL, which the client would put together at every call."""
        known = self._clients.get(deployment.name)
        if known is None or known[0] != deployment:
            if known is not None:
                # Calls in flight go on over the old one.
                self._replaced.append(known[1])
            client = openai_client.connect(deployment)
            known = deployment, client, f"{client.base_url}chat/completions"
            self._clients[deployment.name] = known
        return known[1], known[2]


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read on to the end of the body, which is there already or comes at once: else the connection cannot be kept."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, openai_http.AnswerTooLong):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in pieces:
                pass
