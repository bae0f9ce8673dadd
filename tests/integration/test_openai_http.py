"""What requests to upstreams are sent with, against a real HTTP server: bodies, cookies, proxies."""

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from dispatcher_service import openai_http
from dispatcher_service.answer import Delta
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat, Message, Role, Text
from dispatcher_service.credentials import Credentials
from dispatcher_service.errors import UpstreamRejected, UpstreamUnavailable
from dispatcher_service.upstream import OpenAIUpstream

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
CHAT = Chat(messages=(Message(Role.USER, (Text("Count to four."),)),), text_bytes=14)
COUNTS = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "naïve"}, "finish_reason": "stop"}
ANSWER = json.dumps({"id": "c", "created": 1, "model": "m", "choices": [CHOICE], "usage": COUNTS}).encode()
PIECES = [{"delta": {"content": "naïve"}, "index": 0}, {"delta": {}, "index": 0, "finish_reason": "stop"}]
EVENTS = b"".join(b"data: " + json.dumps({"choices": [piece]}).encode() + b"\n\n" for piece in PIECES)


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    upstream = OpenAIUpstream(Credentials([], {}))
    yield upstream
    await upstream.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers every request by `handler`; gives its address."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def deployment(address: str) -> Deployment:
    return Deployment(name="m-1", model="m", base_url=f"http://{address}/v1", upstream_model="m")


async def texts(upstream: OpenAIUpstream, target: Deployment) -> list[str]:
    """The answer, whole and streamed."""
    whole = await upstream.complete(target, CHAT, max_tokens=None, timeout=10)
    streamed = [event async for event in upstream.stream(target, CHAT, max_tokens=None, timeout=10)]
    return [whole.choices[0].content, "".join(event.content for event in streamed if isinstance(event, Delta))]


async def test_compressed_answers_and_errors_are_read(upstream: OpenAIUpstream) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        assert "gzip" in request.headers["accept-encoding"]
        plain, status = (EVENTS, 200) if body["stream"] else (ANSWER, 200)
        if body["model"] == "unknown":
            plain, status = b'{"error": {"message": "no such model"}}', 400
        return web.Response(status=status, body=gzip.compress(plain), headers={"content-encoding": "gzip"})

    async with serving(handler) as address:
        assert await texts(upstream, deployment(address)) == ["naïve", "naïve"]
        other = Deployment(name="m-2", model="m", base_url=f"http://{address}/v1", upstream_model="unknown")
        with pytest.raises(UpstreamRejected, match="no such model"):
            await upstream.complete(other, CHAT, max_tokens=None, timeout=10)


async def test_a_small_body_that_unpacks_to_a_huge_one_is_not_kept(upstream: OpenAIUpstream) -> None:
    bomb = gzip.compress(b" " * (openai_http.MAX_ANSWER_BYTES + 1))
    assert len(bomb) < 100_000

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"content-encoding": "gzip"})

    async with serving(handler) as address:
        with pytest.raises(UpstreamUnavailable, match="more than"):
            await upstream.complete(deployment(address), CHAT, max_tokens=None, timeout=60)


async def test_what_is_no_compressed_body_is_a_broken_answer(upstream: OpenAIUpstream) -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"plain after all", headers={"content-encoding": "gzip"})

    async with serving(handler) as address:
        with pytest.raises(UpstreamUnavailable) as caught:
            await upstream.complete(deployment(address), CHAT, max_tokens=None, timeout=10)
        assert caught.value.may_be_billed


async def test_a_cookie_of_one_answer_does_not_go_out_with_the_next_call(upstream: OpenAIUpstream) -> None:
    seen = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers.get("cookie"))
        streams = (await request.json())["stream"]
        return web.Response(body=EVENTS if streams else ANSWER, headers={"set-cookie": "session=of-one-tenant"})

    async with serving(handler) as address:
        await texts(upstream, deployment(address))
        await texts(upstream, deployment(address))
    assert seen == [None] * 4


async def test_streams_that_end_leave_their_connection_to_the_next_call(upstream: OpenAIUpstream) -> None:
    connections = set()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        connections.add(request.transport.get_extra_info("peername"))
        if not (await request.json())["stream"]:
            return web.Response(body=ANSWER)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(EVENTS + b"data: [DONE]\n\n")
        return response

    async with serving(handler) as address:
        for _ in range(3):
            await texts(upstream, deployment(address))
    assert len(connections) == 1


async def test_the_environments_proxy_is_used_but_for_hosts_that_it_leaves_out(
    upstream: OpenAIUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(str(request.url))
        return web.Response(body=EVENTS if (await request.json())["stream"] else ANSWER)

    async with serving(handler) as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        target = Deployment(name="far", model="m", base_url="http://models.test/v1", upstream_model="m")
        await texts(upstream, target)
        assert set(asked) == {"http://models.test/v1/chat/completions"}
        asked.clear()
        await texts(upstream, deployment(address))
        assert set(asked) == {f"http://{address}/v1/chat/completions"}
