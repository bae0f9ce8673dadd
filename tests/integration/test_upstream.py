"""The upstream adapter against a real HTTP server: what is sent, what is read, and what each failure becomes."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher_service.answer import Delta, End, FinishReason, Origin
from dispatcher_service.catalogue import Deployment, Value
from dispatcher_service.chat import Chat, Message, Role, Text
from dispatcher_service.credentials import Credentials
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.pricing import Usage, UsageSource
from dispatcher_service.upstream import OpenAIUpstream
from tests.openai_server import OpenAIServer, openai_server

# 20 prompt tokens of which 5 cached, 8 completion tokens of which 3 reasoning.
USAGE = Usage(input_tokens=15, cached_input_tokens=5, output_tokens=5, reasoning_tokens=3, source=UsageSource.REPORTED)

ORIGIN = Origin(completion_id="c-1", model="m-2026", created=1)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest.fixture
async def upstream(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIUpstream]:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-company")
    upstream = OpenAIUpstream(Credentials([], {"SOME_KEY": "sk-test"}))
    yield upstream
    await upstream.close()


def deployment(server: OpenAIServer, base_url: str = "") -> Deployment:
    return Deployment(
        name="m-1",
        model="m",
        base_url=base_url or server.base_url,
        upstream_model="m-2026",
        api_key=Value(env="SOME_KEY"),
        max_tokens_parameter="max_tokens",
        timeout=60,
        connect_timeout=1,
    )


def chat(text: str, **parameters: Any) -> Chat:
    messages = (Message(Role.SYSTEM, (Text("Be brief."),)), Message(Role.USER, (Text(text),)))
    return Chat(messages=messages, text_bytes=len(text), **parameters)


async def test_an_answer_is_read_with_its_disjoint_token_classes(
    server: OpenAIServer, upstream: OpenAIUpstream
) -> None:
    completion = await upstream.complete(deployment(server), chat("hello"), max_tokens=None, timeout=5)
    [choice] = completion.choices
    assert (choice.content, choice.finish_reason) == ("m-2026 says: hello", FinishReason.STOP)
    assert (completion.usage, completion.origin) == (USAGE, ORIGIN)


async def test_only_what_the_caller_set_is_sent(server: OpenAIServer, upstream: OpenAIUpstream) -> None:
    await upstream.complete(deployment(server), chat("hello", seed=0), max_tokens=7, timeout=5)
    assert server.bodies == [
        {
            "model": "m-2026",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
            "max_tokens": 7,
            "seed": 0,
            "stream": False,
        }
    ]


async def test_the_key_is_the_deployments_and_no_organization_leaks(
    server: OpenAIServer, upstream: OpenAIUpstream
) -> None:
    await upstream.complete(deployment(server), chat("hello"), max_tokens=None, timeout=5)
    assert server.headers[0]["authorization"] == "Bearer sk-test"
    assert "openai-organization" not in server.headers[0]


async def test_a_stream_yields_deltas_and_then_its_end(server: OpenAIServer, upstream: OpenAIUpstream) -> None:
    events = [event async for event in upstream.stream(deployment(server), chat("hello"), max_tokens=None, timeout=5)]
    assert events == [
        Delta(content="m-2026 "),
        Delta(content="says: "),
        Delta(content="hello"),
        End(finish_reasons=(FinishReason.STOP,), usage=USAGE, origin=ORIGIN),
    ]


@pytest.mark.parametrize("streaming", [False, True])
async def test_missing_usage_is_none_not_zero(server: OpenAIServer, upstream: OpenAIUpstream, streaming: bool) -> None:
    if streaming:
        events = [
            event async for event in upstream.stream(deployment(server), chat("no usage"), max_tokens=None, timeout=5)
        ]
        assert isinstance(events[-1], End)
        assert events[-1].usage is None
    else:
        assert (await upstream.complete(deployment(server), chat("no usage"), max_tokens=None, timeout=5)).usage is None


async def _call(upstream: OpenAIUpstream, target: Deployment, text: str, *, streaming: bool, timeout: float) -> None:
    if streaming:
        _ = [event async for event in upstream.stream(target, chat(text), max_tokens=None, timeout=timeout)]
    else:
        await upstream.complete(target, chat(text), max_tokens=None, timeout=timeout)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("prompt", "error", "may_be_billed"),
    [
        ("status 400", UpstreamRejected, False),
        ("status 422", UpstreamRejected, False),
        ("status 401", UpstreamUnavailable, False),
        ("status 429", UpstreamRateLimited, False),
        ("status 500", UpstreamUnavailable, False),
        ("status 503", UpstreamUnavailable, False),
        ("nonsense", UpstreamUnavailable, True),
        ("hang up", UpstreamUnavailable, True),
        ("hang", UpstreamTimeout, True),
    ],
)
async def test_each_failure_has_its_error_and_says_whether_it_may_cost(
    server: OpenAIServer,
    upstream: OpenAIUpstream,
    prompt: str,
    error: type[UpstreamError],
    may_be_billed: bool,
    streaming: bool,
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await _call(upstream, deployment(server), prompt, streaming=streaming, timeout=0.5)
    assert (type(caught.value), caught.value.may_be_billed) == (error, may_be_billed)
    assert len(server.bodies) == 1, "the client must not retry by itself"


async def test_a_rate_limit_carries_when_to_come_back(server: OpenAIServer, upstream: OpenAIUpstream) -> None:
    with pytest.raises(UpstreamRateLimited) as caught:
        await upstream.complete(deployment(server), chat("status 429"), max_tokens=None, timeout=5)
    assert caught.value.retry_after == 7.0


async def test_the_upstreams_words_reach_the_caller_only_about_the_request(
    server: OpenAIServer, upstream: OpenAIUpstream
) -> None:
    with pytest.raises(UpstreamRejected, match="as you wish"):
        await upstream.complete(deployment(server), chat("status 400"), max_tokens=None, timeout=5)
    with pytest.raises(UpstreamUnavailable) as caught:
        await upstream.complete(deployment(server), chat("status 401"), max_tokens=None, timeout=5)
    assert "as you wish" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["cut", "error event"])
async def test_a_stream_that_breaks_off_may_cost(server: OpenAIServer, upstream: OpenAIUpstream, prompt: str) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        await _call(upstream, deployment(server), prompt, streaming=True, timeout=5)
    assert caught.value.may_be_billed


async def test_a_stream_that_drips_ends_at_the_deadline(server: OpenAIServer, upstream: OpenAIUpstream) -> None:
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await _call(upstream, deployment(server), "drip", streaming=True, timeout=0.5)
    assert time.monotonic() - started < 10


async def test_a_refused_connection_certainly_costs_nothing(server: OpenAIServer) -> None:
    target = deployment(server, base_url="http://127.0.0.1:1/v1")
    upstream = OpenAIUpstream(Credentials([], {"SOME_KEY": "sk-test"}))
    with pytest.raises(UpstreamUnavailable, match="cannot be reached") as caught:
        await upstream.complete(target, chat("hello"), max_tokens=None, timeout=5)
    assert not caught.value.may_be_billed
    await upstream.close()


async def test_closing_a_stream_cancels_the_upstreams_work(server: OpenAIServer, upstream: OpenAIUpstream) -> None:
    events = upstream.stream(deployment(server), chat("drip"), max_tokens=None, timeout=30)
    await anext(events)
    await events.aclose()
    for _ in range(500):
        if server.disconnects:
            break
        await asyncio.sleep(0.01)
    assert server.disconnects == 1
