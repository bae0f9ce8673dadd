"""Models behind OpenAI-compatible endpoints, through the `openai` client.

The client's own retries are off and every call has a timeout: retrying is ours to decide and to count. Whatever goes
wrong becomes an `UpstreamError`; messages of the upstream reach the caller only where it found fault with the request.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage

from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat, FinishReason
from dispatcher_service.dispatch import Completion, Delta, UpstreamEnd
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.pricing import Usage, UsageSource

_CALLERS_FAULT = (400, 404, 409, 413, 415, 422)
_MAX_RETRY_AFTER = 3600.0


class OpenAIUpstream:
    """Implements `dispatch.Upstream`: one client, and so one connection pool, per deployment."""

    def __init__(self, deployments: Mapping[str, Deployment], environ: Mapping[str, str]) -> None:
        """`deployments` by the model that they serve; keys are read from `environ` now.

        Raises:
            KeyError: a deployment's `api_key_env` is not set; the argument is that name.
        """
        self._clients = {deployment.name: _client(deployment, environ) for deployment in deployments.values()}

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """See `dispatch.Upstream.complete`."""
        # The client's own timeout limits each read, not the call: an upstream that drips would never end.
        with _translated(deployment):
            async with asyncio.timeout(timeout):
                completion = await self._clients[deployment.name].chat.completions.create(
                    **_parameters(deployment, chat), stream=False, timeout=_timeout(deployment, timeout)
                )
            return _completion(completion)

    async def stream(
        self, deployment: Deployment, chat: Chat, *, timeout: float
    ) -> AsyncGenerator[Delta | UpstreamEnd, None]:
        """See `dispatch.Upstream.stream`."""
        finish_reason, usage = None, None
        deadline = asyncio.get_running_loop().time() + timeout
        with _translated(deployment):
            async with asyncio.timeout_at(deadline):
                stream = await self._clients[deployment.name].chat.completions.create(
                    **_parameters(deployment, chat),
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
                    content, chunk_finish = _read_chunk(chunk)
                    finish_reason = chunk_finish or finish_reason
                    if chunk.usage is not None:
                        usage = _usage(chunk.usage)
                    if content:
                        yield Delta(content)
        if finish_reason is None:
            raise UpstreamUnavailable(deployment.name, "the stream ended early", may_be_billed=True)
        yield UpstreamEnd(finish_reason=finish_reason, usage=usage)

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


def _parameters(deployment: Deployment, chat: Chat) -> dict[str, Any]:
    """The request's body: only what the caller has set."""
    optional = {
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        deployment.max_tokens_parameter: chat.max_tokens,
        "stop": list(chat.stop) or None,
        "seed": chat.seed,
        "presence_penalty": chat.presence_penalty,
        "frequency_penalty": chat.frequency_penalty,
    }
    return {
        "model": deployment.upstream_model,
        "messages": [_message(message.role.value, message.texts, message.name) for message in chat.messages],
        **{name: value for name, value in optional.items() if value is not None},
    }


def _message(role: str, texts: tuple[str, ...], name: str) -> dict[str, Any]:
    # One part goes as a plain string, which every compatible endpoint understands; several keep their borders.
    content = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": role, "content": content} | ({"name": name} if name else {})


def _timeout(deployment: Deployment, timeout: float) -> openai.Timeout:
    return openai.Timeout(timeout, connect=min(timeout, deployment.connect_timeout))


def _completion(completion: ChatCompletion) -> Completion:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise ValueError("not a chat completion")
    choice = completion.choices[0]
    return Completion(
        content=choice.message.content or "",
        finish_reason=_finish_reason(choice.finish_reason),
        usage=None if completion.usage is None else _usage(completion.usage),
    )


def _read_chunk(chunk: ChatCompletionChunk) -> tuple[str, FinishReason | None]:
    """The chunk's text and its finish reason. The last chunk, which carries the usage, has no choices."""
    if not chunk.choices:
        return "", None
    choice = chunk.choices[0]
    return choice.delta.content or "", _finish_reason(choice.finish_reason) if choice.finish_reason else None


def _finish_reason(text: str) -> FinishReason:
    try:
        return FinishReason(text)
    except ValueError:
        return FinishReason.UNKNOWN


def _usage(usage: CompletionUsage) -> Usage:
    """OpenAI's counts overlap (cached is part of prompt, reasoning part of completion); ours are disjoint."""
    cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
    reasoning = (usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens) or 0
    return Usage(
        input_tokens=max(usage.prompt_tokens - cached, 0),
        cached_input_tokens=cached,
        output_tokens=max(usage.completion_tokens - reasoning, 0),
        reasoning_tokens=reasoning,
        source=UsageSource.REPORTED,
    )


def _retry_after(error: openai.RateLimitError) -> float | None:
    """Seconds from Retry-After (RFC 9110, section 10.2.3), where it is a number."""
    try:
        return min(max(float(error.response.headers["retry-after"]), 0.0), _MAX_RETRY_AFTER)
    except (KeyError, ValueError):
        return None
