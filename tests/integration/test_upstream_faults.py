"""The upstream adapter against an upstream that fails: timeouts by phase, waits it asks for, keys, sizes, URL forms."""

import dataclasses
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from dispatcher_service import openai_http
from dispatcher_service.answer import Delta, End
from dispatcher_service.catalogue import Api, Deployment, Value
from dispatcher_service.chat import Chat, Message, Role, Text
from dispatcher_service.credentials import Credentials
from dispatcher_service.errors import UpstreamError, UpstreamRateLimited, UpstreamTimeout, UpstreamUnavailable
from dispatcher_service.upstream import OpenAIUpstream
from tests.faulty_server import ANSWER, HUGE_BYTES, FaultyServer, serving


@pytest.fixture
async def server() -> FaultyServer:
    return FaultyServer()


@pytest.fixture
async def address(server: FaultyServer) -> AsyncIterator[str]:
    async with serving(server) as address:
        yield address


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    upstream = OpenAIUpstream(Credentials([], {"KEY": "sk-env"}))
    yield upstream
    await upstream.close()


def deployment(address: str, behaviour: str, **changes: Any) -> Deployment:
    base = Deployment(name="m-1", model="m", base_url=f"http://{address}/{behaviour}/v1", upstream_model="m")
    return dataclasses.replace(base, **changes)


def chat(**changes: Any) -> Chat:
    return Chat(messages=(Message(Role.USER, (Text("Count to four."),)),), text_bytes=14, **changes)


async def stream(upstream: OpenAIUpstream, target: Deployment, timeout: float = 10) -> list[Delta | End]:
    return [event async for event in upstream.stream(target, chat(), max_tokens=None, timeout=timeout)]


@pytest.mark.parametrize(
    ("behaviour", "limits", "what"),
    [
        ("slow_first_token", {"first_token_timeout": 0.2}, "no first token in time"),
        ("stall", {"idle_timeout": 0.2}, "no further token in time"),
        # The whole call has its limit too; seconds, so that the first token comes in time on a busy machine.
        ("drip:0.7", {"timeout": 2.0, "idle_timeout": 5.0}, "no further token in time"),
    ],
)
async def test_each_phase_of_a_stream_has_its_timeout_and_the_error_names_it(
    upstream: OpenAIUpstream, address: str, behaviour: str, limits: dict[str, float], what: str
) -> None:
    target = deployment(address, behaviour, **limits)
    with pytest.raises(UpstreamTimeout, match=what) as caught:
        await stream(upstream, target, timeout=target.timeout)
    assert (caught.value.may_be_billed, caught.value.out_of_time) == (True, False)


async def test_the_callers_own_deadline_is_told_apart_from_the_deployments(
    upstream: OpenAIUpstream, address: str
) -> None:
    target = deployment(address, "stall")
    for streaming in (False, True):
        with pytest.raises(UpstreamTimeout) as caught:
            await (
                stream(upstream, target, 0.2)
                if streaming
                else upstream.complete(target, chat(), max_tokens=None, timeout=0.2)
            )
        assert caught.value.out_of_time


async def test_the_time_in_which_the_caller_reads_is_not_the_upstreams(upstream: OpenAIUpstream, address: str) -> None:
    target = deployment(address, "ok", idle_timeout=0.3)
    texts = []
    async for event in upstream.stream(target, chat(), max_tokens=None, timeout=10):
        if isinstance(event, Delta):
            texts.append(event.content)
            time.sleep(0.2)  # noqa: ASYNC251 - the whole process is busy elsewhere
    assert "".join(texts) == ANSWER


async def test_a_huge_chunk_comes_whole_and_an_endless_answer_ends(
    upstream: OpenAIUpstream, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = deployment(address, "huge_chunk")
    first, _ = await stream(upstream, target)
    assert isinstance(first, Delta)
    assert len(first.content) == HUGE_BYTES
    monkeypatch.setattr(openai_http, "MAX_ANSWER_BYTES", HUGE_BYTES - 1)
    for streaming in (False, True):
        with pytest.raises(UpstreamUnavailable, match=f"more than {HUGE_BYTES - 1} bytes"):
            await (
                stream(upstream, target)
                if streaming
                else upstream.complete(target, chat(), max_tokens=None, timeout=10)
            )


async def test_a_rotated_key_is_used_by_the_next_call(
    server: FaultyServer, upstream: OpenAIUpstream, address: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-first")
    target = deployment(address, "ok", api_key=Value(file=str(key)), headers=(("x-team", Value(text="search")),))
    await upstream.complete(target, chat(), max_tokens=None, timeout=10)
    key.write_text("sk-second")
    await stream(upstream, target)
    assert [call.headers["authorization"] for call in server.calls] == ["Bearer sk-first", "Bearer sk-second"]
    assert {call.headers["x-team"] for call in server.calls} == {"search"}


OF_SENDING = {"host", "accept-encoding", "connection", "content-length"}


@pytest.mark.parametrize("api", Api)
async def test_a_request_is_what_the_library_itself_sends(
    server: FaultyServer, upstream: OpenAIUpstream, address: str, api: Api
) -> None:
    target = deployment(address, "ok", api=api, api_version="2024-10-21", api_key=Value(text="sk-a-key"))
    library = AsyncOpenAI(base_url=target.base_url, api_key="sk-a-key", max_retries=0)
    if api is Api.AZURE:
        target = dataclasses.replace(target, base_url=f"http://{address}/ok")
        agent = {"user-agent": library.user_agent}  # The general client does for both forms of address.
        library = AsyncAzureOpenAI(
            azure_endpoint=target.base_url, api_version="2024-10-21", api_key="sk-a-key", default_headers=agent
        )
    for _ in range(2):
        await upstream.complete(target, chat(), max_tokens=None, timeout=10)
    async with library:
        await library.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Count to four."}],
            stream=False,
            # The library tells an upstream how long it waits to read. That is limited elsewhere here.
            timeout=openai.Timeout(None),
        )
    sent = [
        (call.path, {name: value for name, value in call.headers.items() if name not in OF_SENDING}, body)
        for call, body in zip(server.calls, server.bodies, strict=True)
    ]
    assert sent[0] == sent[1] == sent[2]


async def test_without_a_key_no_key_is_sent(server: FaultyServer, upstream: OpenAIUpstream, address: str) -> None:
    await upstream.complete(deployment(address, "ok"), chat(), max_tokens=None, timeout=10)
    assert "authorization" not in server.calls[0].headers


async def test_no_header_of_the_environment_reaches_an_upstream(
    server: FaultyServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-canary: canary")
    upstream = OpenAIUpstream(Credentials([], {}))
    await upstream.complete(deployment(address, "ok"), chat(), max_tokens=None, timeout=10)
    await upstream.close()
    assert "canary" not in str(server.calls[0].headers)


async def test_azures_form_puts_the_model_into_the_path_and_the_key_into_its_own_header(
    server: FaultyServer, upstream: OpenAIUpstream, address: str
) -> None:
    target = deployment(
        address,
        "ok",
        base_url=f"http://{address}/ok",
        upstream_model="my gpt/4",
        api=Api.AZURE,
        api_version="2026-02-01",
        api_key=Value(env="KEY"),
    )
    answer = await upstream.complete(target, chat(), max_tokens=None, timeout=10)
    assert answer.choices[0].content == ANSWER
    [call] = server.calls
    assert call.path == "/ok/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2026-02-01"
    assert call.headers["api-key"] == "sk-env"
    assert "authorization" not in call.headers


async def test_a_deployment_that_is_configured_anew_is_called_at_its_new_place(
    server: FaultyServer, upstream: OpenAIUpstream, address: str
) -> None:
    await upstream.complete(deployment(address, "no_usage"), chat(), max_tokens=None, timeout=10)
    await upstream.complete(deployment(address, "ok"), chat(), max_tokens=None, timeout=10)
    assert [call.fault for call in server.calls] == ["no_usage", "ok"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "nan", "date": "never"}, 0.0),
        ({}, 0.0),
    ],
)
async def test_retry_after_is_read_in_every_form(
    server: FaultyServer, upstream: OpenAIUpstream, address: str, headers: dict[str, str], seconds: float
) -> None:
    server.error_headers = headers
    for behaviour in ("rate_limited", "server_error"):
        with pytest.raises(UpstreamError) as caught:
            await upstream.complete(deployment(address, behaviour), chat(), max_tokens=None, timeout=10)
        assert caught.value.asked_to_wait == seconds
        assert caught.value.retry_after is not None
        assert math.isfinite(caught.value.retry_after)


async def test_a_wrong_key_address_or_model_is_no_fault_of_the_caller(upstream: OpenAIUpstream, address: str) -> None:
    for behaviour in ("unauthorized", "not_found", "redirect"):
        with pytest.raises(UpstreamUnavailable) as caught:
            await upstream.complete(deployment(address, behaviour), chat(), max_tokens=None, timeout=10)
        assert (caught.value.retryable, caught.value.may_be_billed) == (False, False)


async def test_a_rate_limit_is_an_error_of_its_own(upstream: OpenAIUpstream, address: str) -> None:
    with pytest.raises(UpstreamRateLimited) as caught:
        await upstream.complete(deployment(address, "rate_limited:3"), chat(), max_tokens=None, timeout=10)
    assert caught.value.retry_after == 3.0
