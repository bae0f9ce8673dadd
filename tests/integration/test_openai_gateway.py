"""The front door with the real `openai` client in front and real services behind: what OpenAI's users see."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from tests.dispatchers import STRONG, WEAK, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ANY_PORT, SCORER_PORTS, ServiceProcess

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"maximum": 1.0}}},
        "strict": True,
    },
}
EVERYTHING: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello there", "name": "ada"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now?"}]},
    ],
    "temperature": 0.5,
    "top_p": 0.9,
    "max_completion_tokens": 50,
    "stop": ["END"],
    "seed": 7,
    "presence_penalty": 0.25,
    "frequency_penalty": -0.25,
    "logit_bias": {"17": -5},
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "user": "u-1",
    "metadata": {"team": "search"},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object", "minProperties": 1.0}, "strict": True},
    },
}


CASCADING = f"""
[tenants.cascading]
strong_model = "{STRONG}"
weak_model = "{WEAK}"
strategy = "cascade"
cascade = {{ thresholds = [1.0] }}
"""
"""The scorer here judges no answers, so that every cascade goes on to the strong model."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: OpenAIServer) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("gateway")
    with (
        ServiceProcess("scorer_service", env=SCORER_PORTS) as scorer,
        start_dispatcher(directory, scorer=scorer.grpc, upstream=upstream.base_url, more=CASCADING) as dispatcher,
        ServiceProcess(
            "apps.openai_gateway", env={"GATEWAY_LISTEN": ANY_PORT, "GATEWAY_DISPATCHER": dispatcher.grpc}
        ) as process,
    ):
        yield f"http://{process.wait_for('serving')['http']}/v1"
        assert process.stop() == 0


@pytest.fixture
async def client(gateway: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway, api_key="none", max_retries=0) as client:
        yield client


# First: a deployment that has failed in another test is left alone for a while.
async def test_of_a_cascade_a_stream_brings_the_answer_that_is_given_and_no_other(
    client: AsyncOpenAI, upstream: OpenAIServer
) -> None:
    before = len(upstream.bodies)
    stream = await client.chat.completions.create(
        model="pointsman",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        extra_headers={"x-pointsman-tenant": "cascading"},
    )
    chunks = [chunk async for chunk in stream]
    assert [body["model"] for body in upstream.bodies[before:]] == [WEAK, STRONG]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"{STRONG} says: hello"
    assert {chunk.model for chunk in chunks} == {STRONG}


async def test_what_a_client_sends_arrives_at_the_upstream_field_for_field(
    client: AsyncOpenAI, upstream: OpenAIServer
) -> None:
    answer = await client.chat.completions.create(model="pointsman", **EVERYTHING)
    sent = dict(upstream.bodies[-1])
    model = sent.pop("model")
    assert sent == EVERYTHING | {"stream": False}
    assert answer.model == model
    assert answer.choices[0].message.content == f"{model} says: and now?"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (20, 8, 28)


async def test_the_decision_is_in_the_headers(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman@0", messages=[{"role": "user", "content": "hi"}]
    )
    assert raw.headers["x-pointsman-tier"] == "strong"
    assert raw.headers["x-pointsman-model"] == STRONG == raw.parse().model
    assert int(raw.headers["x-pointsman-cost-nano-usd"]) > 0
    assert 0 <= float(raw.headers["x-pointsman-win-probability"]) <= 1


async def test_a_stream_is_openais(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="pointsman@1",
        messages=[{"role": "user", "content": "one two"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == f"{WEAK} says: one two"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 28
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_usage_is_hidden_from_a_stream_that_did_not_ask(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="pointsman", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_refusals_are_openais_errors(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="pointsman", messages=[])
    assert refused.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as unknown:
        await client.chat.completions.create(
            model="pointsman", messages=[{"role": "user", "content": "hi"}], extra_body={"top_k": 4}
        )
    assert "top_k" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as model:
        await client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])
    assert model.value.param == "model"


async def test_an_upstreams_failure_keeps_its_meaning(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(model="pointsman", messages=[{"role": "user", "content": "status 500"}])
    assert failed.value.status_code == 503
    assert failed.value.code == "UPSTREAM_UNAVAILABLE"


async def test_a_stream_that_breaks_off_raises_in_the_client(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="pointsman", messages=[{"role": "user", "content": "cut"}], stream=True
    )
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_a_caller_who_goes_away_ends_the_upstreams_work(gateway: str, upstream: OpenAIServer) -> None:
    asked, gone = len(upstream.bodies), upstream.disconnects
    body = {"model": "pointsman", "messages": [{"role": "user", "content": "hang"}]}
    async with httpx2.AsyncClient(base_url=gateway, timeout=30) as http:
        call = asyncio.create_task(http.post("/chat/completions", json=body))
        await _until(lambda: len(upstream.bodies) > asked)
        call.cancel()
    await _until(lambda: upstream.disconnects > gone)


async def _until(condition: Callable[[], bool]) -> None:
    """The upstream lives on another loop, so that it is asked now and then."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id for model in (await client.models.list()).data] == ["pointsman"]
    assert (await client.models.retrieve("pointsman")).owned_by == "pointsman"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4")
