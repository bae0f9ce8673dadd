"""Models behind OpenAI-compatible endpoints, through the `openai` client.

The client's own retries are off and every call has a timeout: retrying is ours to decide and to count. Whatever goes
wrong becomes an `UpstreamError`; messages of the upstream reach the caller only where it found fault with the request.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager

import aiohttp
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from dispatcher_service import openai_wire
from dispatcher_service.answer import Completion, Delta, End, FinishReason
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_CALLERS_FAULT = (400, 404, 409, 413, 415, 422)
_MAX_RETRY_AFTER = 3600.0


class OpenAIUpstream:
    """Implements `ports.Upstream`: one client, and so one connection pool, per deployment."""

    def __init__(self, deployments: Iterable[Deployment], environ: Mapping[str, str]) -> None:
        """Keys are read from `environ` now.

        Raises:
            KeyError: a deployment's `api_key_env` is not set; the argument is that name.
        """
        self._clients = {deployment.name: _client(deployment, environ) for deployment in deployments}

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """See `ports.Upstream.complete`."""
        # The client's own timeout limits each read, not the call: an upstream that drips would never end.
        with _translated(deployment):
            async with asyncio.timeout(timeout):
                completion = await self._clients[deployment.name].chat.completions.create(
                    **openai_wire.body(deployment, chat), stream=False, timeout=_timeout(deployment, timeout)
                )
            return openai_wire.read_completion(completion)

    async def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """See `ports.Upstream.stream`."""
        finish_reasons: dict[int, FinishReason] = {}
        usage, origin = None, None
        deadline = asyncio.get_running_loop().time() + timeout
        with _translated(deployment):
            async with asyncio.timeout_at(deadline):
                stream = await self._clients[deployment.name].chat.completions.create(
                    **openai_wire.body(deployment, chat),
                    stream=True,
                    stream_options={"include_usage": True},
                    timeout=_timeout(deployment, timeout),
                )
            async with stream:
                chunks = aiter(stream)
                while True:
                    # Around each read and not around the loop, which also holds the time the caller takes to read.
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    origin = origin or openai_wire.read_origin(chunk)
                    if chunk.usage is not None:
                        usage = openai_wire.read_usage(chunk.usage)
                    # The last chunk, which carries the usage, has no choices.
                    for choice in chunk.choices:
                        if choice.finish_reason:
                            finish_reasons[choice.index] = openai_wire.read_finish_reason(choice.finish_reason)
                        delta = openai_wire.read_delta(choice)
                        if delta is not None:
                            yield delta
        if origin is None or sorted(finish_reasons) != list(range(chat.choices)):
            raise UpstreamUnavailable(deployment.name, "the stream ended early", may_be_billed=True)
        yield End(finish_reasons=tuple(finish_reasons[i] for i in range(chat.choices)), usage=usage, origin=origin)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()


def _client(deployment: Deployment, environ: Mapping[str, str]) -> AsyncOpenAI:
    client = AsyncOpenAI(
        base_url=deployment.base_url,
        # The client wants a key even where the endpoint does not.
        api_key=environ[deployment.api_key_env] if deployment.api_key_env else "none",
        max_retries=0,
        timeout=openai.Timeout(deployment.timeout, connect=deployment.connect_timeout),
        http_client=DefaultAioHttpClient(),
    )
    # The client takes these from OPENAI_ORG_ID and OPENAI_PROJECT_ID, and would send them to every company we call.
    client.organization = None
    client.project = None
    return client


@contextmanager
def _translated(deployment: Deployment) -> Iterator[None]:
    """Turn whatever the client raises into the hierarchy, keeping the cause."""
    name = deployment.name
    try:
        yield
    except TimeoutError as error:
        raise UpstreamTimeout(name, "no answer in time", may_be_billed=True) from error
    except openai.APIConnectionError as error:
        raise _connection_error(name, error) from error
    except openai.RateLimitError as error:
        raise UpstreamRateLimited(name, _retry_after(error)) from error
    except openai.APIStatusError as error:
        if error.status_code in _CALLERS_FAULT:
            raise UpstreamRejected(name, f"refused the request: {error.message}") from error
        # 401 and 403 are about our key: not the caller's fault, and not the caller's to read.
        raise UpstreamUnavailable(name, f"answered HTTP {error.status_code}", may_be_billed=False) from error
    except UpstreamError:
        raise
    except openai.APIError as error:
        # An error event inside a stream, or a response that does not parse.
        raise UpstreamUnavailable(name, "broke off with an error", may_be_billed=True) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        # The client does not validate what it parses: an answer of another shape fails where we read it.
        raise UpstreamUnavailable(name, "answered what is no chat completion", may_be_billed=True) from error


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


def _timeout(deployment: Deployment, timeout: float) -> openai.Timeout:
    return openai.Timeout(timeout, connect=min(timeout, deployment.connect_timeout))


def _retry_after(error: openai.RateLimitError) -> float | None:
    """Seconds from Retry-After (RFC 9110, section 10.2.3), where it is a number."""
    try:
        return min(max(float(error.response.headers["retry-after"]), 0.0), _MAX_RETRY_AFTER)
    except (KeyError, ValueError):
        return None
