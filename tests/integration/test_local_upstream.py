"""The local upstream as its own process, with its real model, through the `openai` client."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from tests.processes import ServiceProcess, run_to_end

MODEL = "SmolLM2-135M-Instruct"
ANY_PORT = {"LOCAL_UPSTREAM_LISTEN": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ServiceProcess("apps.local_upstream", env={**ANY_PORT, "LOCAL_UPSTREAM_CONTEXT_TOKENS": "1024"}) as process:
        yield str(process.wait_for("serving")["http"])
        assert process.stop() == 0
        assert process.events("stopped")


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


async def test_it_knows_the_capital_of_france_without_being_given_a_system_prompt(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="any-name",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_completion_tokens=32,
    )
    assert "Paris" in (completion.choices[0].message.content or "")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == MODEL, "it says what really answered, whatever name was asked for"


async def test_a_system_prompt_of_the_caller_replaces_ours(client: AsyncOpenAI) -> None:
    async def prompt_tokens(role: str) -> int:
        completion = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": role, "content": "Hi."}, {"role": "user", "content": "Hi."}],  # type: ignore[misc, list-item]
            max_completion_tokens=1,
        )
        assert completion.usage is not None
        return completion.usage.prompt_tokens

    # Another user turn keeps our words in front; instructions, in either of OpenAI's names, take their place.
    assert await prompt_tokens("system") < await prompt_tokens("user")
    assert await prompt_tokens("developer") == await prompt_tokens("system")


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
async def test_the_token_limit_holds_under_both_names_and_usage_counts(client: AsyncOpenAI, parameter: str) -> None:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from one to one hundred in words."}],
        temperature=0,
        seed=7,
        extra_body={parameter: 7},
    )
    assert completion.choices[0].finish_reason == "length"
    usage = completion.usage
    assert usage is not None
    assert usage.completion_tokens == 7
    assert usage.prompt_tokens > 10
    assert usage.total_tokens == usage.prompt_tokens + 7


async def test_a_stream_brings_the_answer_in_pieces_and_its_usage_last(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Name three colours."}],
        temperature=0,
        seed=7,
        max_completion_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 3
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 16


async def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        stop=["Paris"],
        max_completion_tokens=32,
    )
    assert completion.choices[0].message.content == "The capital of France is "
    assert completion.choices[0].finish_reason == "stop"


async def test_a_seed_repeats_an_answer_and_another_seed_does_not(client: AsyncOpenAI) -> None:
    async def story(seed: int) -> str | None:
        completion = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a story about a fox."}],
            temperature=1,
            seed=seed,
            max_completion_tokens=24,
            # A prompt that is read from the cache may round otherwise, and one token may then differ.
            extra_body={"cache_prompt": False},
        )
        return completion.choices[0].message.content

    first = await story(1)
    assert await story(1) == first
    assert await story(2) != first


async def test_several_callers_are_answered_at_once(client: AsyncOpenAI) -> None:
    async def first_and_last_piece(number: int) -> tuple[float, float]:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Tell me about the number {number}."}],
            max_completion_tokens=40,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        clock = asyncio.get_running_loop().time
        times = [clock() async for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
        return times[0], times[-1]

    spans = await asyncio.gather(*(first_and_last_piece(number) for number in (1, 2, 3)))
    assert max(first for first, _ in spans) < min(last for _, last in spans), "each began before any had ended"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{no", "parse error"),
        (b'{"messages": 4}', "'messages' to be an array"),
        (b'{"messages": []}', "write at least one"),
        (b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": -4}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "%s"}]}' % (b"word " * 2000), "exceeds the available context"),
    ],
)
async def test_bad_input_gets_an_openai_error_object_with_status_400(address: str, body: bytes, words: str) -> None:
    async with httpx2.AsyncClient(timeout=30) as http:
        response = await http.post(f"http://{address}/v1/chat/completions", content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"]
    assert error["type"] in ("invalid_request_error", "exceed_context_size_error")


async def test_the_openai_client_reads_its_errors(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="write at least one"):
        await client.chat.completions.create(model=MODEL, messages=[])


async def test_it_lists_its_model_and_its_health(client: AsyncOpenAI, address: str) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    async with httpx2.AsyncClient() as http:
        response = await http.get(f"http://{address}/health", headers={"Origin": "http://somewhere.example"})
    assert response.json() == {"status": "ok"}
    assert response.headers["access-control-allow-origin"] == "http://127.0.0.1", "no web page may read from it"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_even_while_it_answers(number: signal.Signals) -> None:
    # It once waited for ever: the model server's own shutdown does not end while an unstreamed answer is written.
    with ServiceProcess("apps.local_upstream", env=ANY_PORT) as process:
        http = process.wait_for("serving")["http"]
        async with AsyncOpenAI(base_url=f"http://{http}/v1", api_key="none", max_retries=0, timeout=60) as client:
            answer = asyncio.create_task(
                client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": "Write a long story."}],
                    max_completion_tokens=4000,
                    extra_body={"ignore_eos": True},
                )
            )
            stream = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Count to ten."}], stream=True
            )
            await anext(aiter(stream))
            assert not answer.done()
            os.kill(process.pid, number)
            assert await asyncio.to_thread(process.wait, 10) == 0
            with pytest.raises(openai.APIConnectionError):
                await answer
            await stream.close()
        assert process.events("stopped")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"LOCAL_UPSTREAM_MODEL": "no/such.gguf"}, "no model file no/such.gguf"),
        ({"LOCAL_UPSTREAM_LISTEN": "nowhere"}, "is not an address"),
        ({"LOCAL_UPSTREAM_THREAD": "2"}, "did you mean LOCAL_UPSTREAM_THREADS?"),
        ({"LOCAL_UPSTREAM_SLOTS": "0"}, "at least 1"),
    ],
)
def test_what_it_cannot_start_with_is_one_line(env: dict[str, str], words: str) -> None:
    ended = run_to_end("apps.local_upstream", env={**ANY_PORT, **env})
    assert ended.code in (1, 2)
    [line] = ended.error_lines()
    assert words in line


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_to_end("apps.local_upstream", env={"LOCAL_UPSTREAM_LISTEN": f"127.0.0.1:{port}"})
    assert ended.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.error_lines()[0]


def test_help_lists_every_setting_with_its_default() -> None:
    ended = run_to_end("apps.local_upstream", "--help", env={})
    assert ended.code == 0
    assert "LOCAL_UPSTREAM_LISTEN  [host:port; default 127.0.0.1:8080]" in ended.stdout
    assert "LOCAL_UPSTREAM_THREADS  [threads; default 1]" in ended.stdout
