"""Models behind OpenAI-compatible endpoints, through the `openai` client.

Every wait has a timeout, and retrying is not done here: `failover` decides it. Whatever goes wrong becomes an
`UpstreamError`; messages of the upstream reach the caller only where it found fault with the request.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from dispatcher_service import openai_client, openai_wire
from dispatcher_service.answer import Completion, Delta, End, FinishReason
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.credentials import CredentialError, Credentials
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.pricing import Usage
from pointsman.runtime.logs import fields

_CALLERS_FAULT = (400, 413, 415, 422)
_OUR_FAULT = (301, 302, 303, 307, 308, 401, 403, 404, 405)
"""The configured address, model name or key is wrong: trying again changes nothing, another deployment may."""
_MAX_RETRY_AFTER = 3600.0

logger = logging.getLogger(__name__)


class OpenAIUpstream:
    """Implements `ports.Upstream`: one client, and so one connection pool, per deployment."""

    def __init__(self, credentials: Credentials, *, trace_headers: Callable[[], Mapping[str, str]] = dict) -> None:
        """Clients are made when they are first used, and made again if their deployment is configured anew.

        `trace_headers` gives the headers by which the upstream can join the trace of the call that is answered now.
        """
        self._trace_headers = trace_headers
        self._credentials = credentials
        self._clients: dict[str, tuple[Deployment, AsyncOpenAI]] = {}
        self._replaced: list[AsyncOpenAI] = []

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """See `ports.Upstream.complete`."""
        patience = _Patience(deployment, timeout)
        with _translated(deployment, patience, self._credentials):
            client, headers = self._prepared(deployment)
            # The client's own timeout limits each read, not the call: an upstream that drips would never end.
            async with patience.whole():
                completion = await client.chat.completions.create(
                    **openai_wire.body(deployment, chat),
                    stream=False,
                    timeout=patience.client_timeout(),
                    extra_headers=headers,
                )
            return openai_wire.read_completion(completion)

    async def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """See `ports.Upstream.stream`."""
        patience = _Patience(deployment, timeout)
        reading = _Reading(deployment.name, chat.choices)
        with _translated(deployment, patience, self._credentials):
            client, headers = self._prepared(deployment)
            async with patience.first_token():
                stream = await client.chat.completions.create(
                    **openai_wire.body(deployment, chat),
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


@contextmanager
def _translated(deployment: Deployment, patience: _Patience, credentials: Credentials) -> Iterator[None]:
    """Turn whatever the client raises into the hierarchy, keeping the cause."""
    name = deployment.name
    try:
        yield
    except TimeoutError as error:
        raise UpstreamTimeout(name, patience.what, may_be_billed=True, out_of_time=patience.out_of_time) from error
    except openai.APIConnectionError as error:
        raise _connection_error(name, error) from error
    except openai.RateLimitError as error:
        raise UpstreamRateLimited(name, _retry_after(error)) from error
    except openai.APIStatusError as error:
        raise _status_error(deployment, error, credentials) from error
    except UpstreamError:
        raise
    except openai.APIError as error:
        # An error event inside a stream, or a response that does not parse.
        raise UpstreamUnavailable(name, "broke off with an error", may_be_billed=True) from error
    except openai_client.AnswerTooLong as error:
        what = f"answered with more than {openai_client.MAX_ANSWER_BYTES} bytes"
        raise UpstreamUnavailable(name, what, may_be_billed=True) from error
    except aiohttp.ClientError as error:
        # What the layer between does not translate, such as a header that is none.
        raise UpstreamUnavailable(name, "broke off the connection", may_be_billed=True) from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        # The client does not validate what it parses: an answer of another shape fails where we read it.
        raise UpstreamUnavailable(name, "answered what is no chat completion", may_be_billed=True) from error


def _status_error(deployment: Deployment, error: openai.APIStatusError, credentials: Credentials) -> UpstreamError:
    name = deployment.name
    if error.status_code in _CALLERS_FAULT:
        # The caller reads this, and an upstream may quote whatever it was sent.
        return UpstreamRejected(name, f"refused the request: {credentials.hide(deployment, error.message)}")
    if error.status_code in _OUR_FAULT:
        # Not the caller's fault, and what the upstream says of it is not the caller's to read.
        what = f"answered HTTP {error.status_code}"
        logger.error(
            "a deployment refuses us: look at its base_url, upstream_model and key",
            extra=fields(deployment=name, status=error.status_code),
        )
        return UpstreamUnavailable(name, what, may_be_billed=False, retryable=False)
    return UpstreamUnavailable(
        name,
        f"answered HTTP {error.status_code}",
        may_be_billed=False,
        asked_to_wait=_retry_after(error) or 0.0,
    )


def _connection_error(name: str, error: openai.APIConnectionError) -> UpstreamError:
    """What happened to the connection, from the transport's own error.

    The layers between call a refused connection and one that broke while we waited both ConnectTimeout, yet only
    the first is certain to cost nothing.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, aiohttp.ClientError):
        cause = cause.__cause__
    if isinstance(cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UpstreamUnavailable(name, "cannot be reached", may_be_billed=False)
    if isinstance(cause, aiohttp.ServerTimeoutError):
        return UpstreamTimeout(name, "no answer in time", may_be_billed=True)
    return UpstreamUnavailable(name, "broke off the connection", may_be_billed=True)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the upstream asks us to wait (RFC 9110, section 10.2.3, and OpenAI's `retry-after-ms`)."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers["retry-after"][-1:].isdigit():
            seconds = float(headers["retry-after"])
        else:
            # A date: counted from the upstream's own clock, so that ours may differ.
            until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
            seconds = (until - now).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else None
