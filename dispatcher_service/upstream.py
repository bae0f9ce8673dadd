"""Models behind OpenAI-compatible endpoints, through the `openai` client.

Every wait has a timeout, and retrying is not done here: `failover` decides it. Whatever goes wrong becomes an
`UpstreamError` (`upstream_errors`).
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

import aiohttp

from dispatcher_service import openai_body, openai_http, openai_wire
from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.errors import UpstreamUnavailable
from dispatcher_service.openai_client import Client
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
        self._clients: dict[str, tuple[Deployment, Client]] = {}
        self._replaced: list[Client] = []

    async def complete(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> Completion:
        """See `ports.Upstream.complete`."""
        patience = Patience(deployment, timeout)
        with self._translate(deployment, patience):
            async with patience.whole():
                answer = await openai_http.read(
                    await self._post(deployment, chat, max_tokens, stream=False, patience=patience)
                )
            return openai_wire.read_completion(json.loads(answer))

    async def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        """See `ports.Upstream.stream`."""
        patience = Patience(deployment, timeout)
        reading = Reading(deployment.name, chat.choices)
        with self._translate(deployment, patience):
            async with patience.first_token():
                response = await self._post(deployment, chat, max_tokens, stream=True, patience=patience)
            pieces = openai_http.pieces(response)
            async with _released(response, pieces), patience:
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
        for client in (*self._replaced, *(client for _, client in self._clients.values())):
            await client.close()

    async def _post(
        self, deployment: Deployment, chat: Chat, max_tokens: int | None, *, stream: bool, patience: Patience
    ) -> aiohttp.ClientResponse:
        """The response as it came, whose status is good: parsing it into the client's types costs more than all else.

        It must be released.
        """
        try:
            headers = self._credentials.headers(deployment)
        except CredentialError as error:
            logger.error("a deployment has no usable key", extra=fields(error=str(error)))
            raise UpstreamUnavailable(
                deployment.name, "has no usable key", may_be_billed=False, retryable=False
            ) from error
        return await self._client(deployment).post(
            openai_body.encode(deployment, chat, max_tokens=max_tokens, stream=stream),
            headers=headers,
            once=self._trace_headers(),
            connect_timeout=patience.connect_timeout,
        )

    def _client(self, deployment: Deployment) -> Client:
        known = self._clients.get(deployment.name)
        if known is None or (known[0] is not deployment and known[0] != deployment):
            if known is not None:
                # Calls in flight go on over the old one.
                self._replaced.append(known[1])
            known = self._clients[deployment.name] = deployment, Client(deployment)
        return known[1]


@contextlib.asynccontextmanager
async def _released(response: aiohttp.ClientResponse, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[None]:
    """A response that has been read to its end leaves its connection to the next call; any other closes it."""
    try:
        async with contextlib.aclosing(pieces):
            yield
    finally:
        response.release()


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read on to the end of the body, which is there already or comes at once: else the connection cannot be kept."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, openai_http.AnswerTooLong):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in pieces:
                pass
