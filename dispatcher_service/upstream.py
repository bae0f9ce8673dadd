"""Models behind OpenAI-compatible endpoints, through the `openai` client.

Every wait has a timeout, and retrying is not done here: `failover` decides it. Whatever goes wrong becomes an
`UpstreamError` (`upstream_errors`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from dispatcher_service import openai_body, openai_client, openai_wire
from dispatcher_service.answer import Completion, Delta, End, FinishReason
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.errors import UpstreamUnavailable
from dispatcher_service.pricing import Usage
from dispatcher_service.upstream_errors import Translator
from pointsman.runtime.logs import fields

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
        self._clients: dict[str, tuple[Deployment, AsyncOpenAI]] = {}
        self._replaced: list[AsyncOpenAI] = []

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """See `ports.Upstream.complete`."""
        patience = _Patience(deployment, timeout)
        with self._translate(deployment, patience):
            client, headers = self._prepared(deployment)
            # The client's own timeout limits each read, not the call: an upstream that drips would never end.
            async with patience.whole():
                completion = await client.chat.completions.create(
                    **openai_body.body(deployment, chat),
                    stream=False,
                    timeout=patience.client_timeout(),
                    extra_headers=headers,
                )
            return openai_wire.read_completion(completion)

    async def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """See `ports.Upstream.stream`."""
        patience = _Patience(deployment, timeout)
        reading = _Reading(deployment.name, chat.choices)
        with self._translate(deployment, patience):
            client, headers = self._prepared(deployment)
            async with patience.first_token():
                stream = await client.chat.completions.create(
                    **openai_body.body(deployment, chat),
                    stream=True,
                    # Always: it is what we bill by. The chunk that carries it ends here and is not passed on.
                    stream_options={"include_usage": True},
                    timeout=patience.client_timeout(),
                    extra_headers=headers,
                )
            async with stream:
                while True:
                    # Around each read and not around the loop, which also holds the time the caller takes to read.
                    async with patience.idle() if reading.begun else patience.first_token():
                        chunk = await _next(stream)
                    if chunk is None:
                        break
                    for delta in reading.read(chunk):
                        yield delta
        yield reading.end()

    async def close(self) -> None:
        """Close all connections."""
        for client in (*self._replaced, *(client for _, client in self._clients.values())):
            await client.close()

    def _prepared(self, deployment: Deployment) -> tuple[AsyncOpenAI, dict[str, str | openai.Omit]]:
        known = self._clients.get(deployment.name)
        if known is None or known[0] != deployment:
            if known is not None:
                # Calls in flight go on over the old one.
                self._replaced.append(known[1])
            known = deployment, openai_client.connect(deployment)
            self._clients[deployment.name] = known
        try:
            headers = openai_client.call_headers(self._credentials.headers(deployment))
            return known[1], {**headers, **self._trace_headers()}
        except CredentialError as error:
            logger.error("a deployment has no usable key", extra=fields(error=str(error)))
            raise UpstreamUnavailable(
                deployment.name, "has no usable key", may_be_billed=False, retryable=False
            ) from error


class _Patience:
    """The timeouts of one call, and which of them passed."""

    def __init__(self, deployment: Deployment, timeout: float) -> None:
        """`timeout` is what is left of the caller's deadline and the deployment's own, whichever is less."""
        self._deployment = deployment
        self._timeout = timeout
        self._started = asyncio.get_running_loop().time()
        self._waiting_for = "answer"

    @property
    def out_of_time(self) -> bool:
        """True if the timeout that passed was the caller's deadline and not the deployment's."""
        elapsed = asyncio.get_running_loop().time() - self._started
        return self._timeout < self._deployment.timeout and elapsed >= self._timeout

    @property
    def what(self) -> str:
        """What did not come in time, for the error."""
        return f"no {self._waiting_for} in time"

    def whole(self) -> asyncio.Timeout:
        """For a call that answers in one piece."""
        return asyncio.timeout_at(self._started + self._timeout)

    def first_token(self) -> asyncio.Timeout:
        """Until a stream has its first content."""
        self._waiting_for = "first token"
        return asyncio.timeout_at(self._started + min(self._timeout, self._deployment.first_token_timeout))

    def idle(self) -> asyncio.Timeout:
        """For one further read of a stream."""
        self._waiting_for = "further token"
        soon = asyncio.get_running_loop().time() + self._deployment.idle_timeout
        return asyncio.timeout_at(min(self._started + self._timeout, soon))

    def client_timeout(self) -> openai.Timeout:
        """For the client: to connect. Reads are limited here."""
        return openai.Timeout(None, connect=min(self._timeout, self._deployment.connect_timeout))


class _Reading:
    """What a stream has brought so far."""

    def __init__(self, deployment: str, choices: int) -> None:
        self.begun = False
        self._deployment = deployment
        self._choices = choices
        self._finish_reasons: dict[int, FinishReason] = {}
        self._usage: Usage | None = None
        self._words: dict[int, str] = {}
        self._first: ChatCompletionChunk | None = None
        self._beside: dict[str, Any] = {}

    def read(self, chunk: ChatCompletionChunk) -> Iterator[Delta]:
        """The deltas of a chunk."""
        self._first = self._first or chunk
        self._beside |= openai_wire.extra_of_chunk(chunk)
        if chunk.usage is not None:
            self._usage = openai_wire.read_usage(chunk.usage)
        # The last chunk, which carries the usage, has no choices.
        for choice in chunk.choices:
            if choice.finish_reason:
                self.begun = True
                self._finish_reasons[choice.index] = openai_wire.read_finish_reason(choice.finish_reason)
                self._words[choice.index] = openai_wire.unknown_word(choice.finish_reason)
            delta = openai_wire.read_delta(choice)
            if delta is not None:
                self.begun = True
                yield delta

    def end(self) -> End:
        """The end of a whole stream.

        Raises:
            UpstreamUnavailable: it stopped before that.
        """
        indices = range(self._choices)
        if self._first is None or sorted(self._finish_reasons) != list(indices):
            raise UpstreamUnavailable(self._deployment, "the stream ended early", may_be_billed=True)
        words = tuple(self._words[index] for index in indices)
        return End(
            finish_reasons=tuple(self._finish_reasons[index] for index in indices),
            usage=self._usage,
            origin=openai_wire.read_origin(self._first, self._beside),
            upstream_finish_reasons=words if any(words) else (),
        )


async def _next(stream: AsyncStream[ChatCompletionChunk]) -> ChatCompletionChunk | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None
