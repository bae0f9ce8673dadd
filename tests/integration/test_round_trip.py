"""What a caller puts in arrives at the upstream field for field, and what the upstream answers comes back whole.

Requests and answers are generated in the `openai` package's own types and pass through a real dispatcher to a real HTTP
server and back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolChoiceOptionParam,
    ChatCompletionToolUnionParam,
)
from pydantic import TypeAdapter

from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from tests import openai_values
from tests.faulty_server import USAGE, FaultyServer, serving_in_thread
from tests.processes import DISPATCHER_PORTS, ServiceProcess

_CONFIG = """
[scorer]
address = "127.0.0.1:1"
timeout = 0.05

[[models]]
name = "big"
price = {{ input = 1, output = 1 }}
part_tokens = {{ image = 1000, audio = 1000, file = 1000 }}

[[models]]
name = "small"
price = {{ input = 1, output = 1 }}
part_tokens = {{ image = 1000, audio = 1000, file = 1000 }}

[[deployments]]
name = "big-1"
model = "big"
base_url = "http://{upstream}/scripted/v1"

[[deployments]]
name = "small-1"
model = "small"
base_url = "http://{upstream}/scripted/v1"

[tenants.default]
strong_model = "big"
weak_model = "small"
alpha = 0.5
extra_body_keys = ["top_k", "verbosity", "prediction"]
"""
# Every example starts from nothing, whatever the fixtures hold.
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Message = TypeAdapter[Any](ChatCompletionMessageParam)
Tool = TypeAdapter[Any](ChatCompletionToolUnionParam)
ToolChoice = TypeAdapter[Any](ChatCompletionToolChoiceOptionParam)


@dataclass
class Bench:
    """A dispatcher and the server behind it."""

    server: FaultyServer
    stub: Any

    def complete(self, request: dict[str, Any], answer: dict[str, Any]) -> dispatcher_pb2.CompleteResponse:
        self.server.script[:] = [answer]
        proto = dispatcher_pb2.CompleteRequest(chat=openai_values.to_chat(request))
        response: dispatcher_pb2.CompleteResponse = self.stub.Complete(proto, timeout=30)
        return response

    def stream(
        self, request: dict[str, Any], chunks: list[dict[str, Any]]
    ) -> list[dispatcher_pb2.StreamCompleteResponse]:
        self.server.script[:] = [{"chunks": chunks}]
        proto = dispatcher_pb2.StreamCompleteRequest(chat=openai_values.to_chat(request))
        return list(self.stub.StreamComplete(proto, timeout=30))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory: Path = tmp_path_factory.mktemp("round-trip")
    with serving_in_thread() as (server, address):
        config = directory / "dispatcher.toml"
        config.write_text(_CONFIG.format(upstream=address))
        with (
            ServiceProcess("dispatcher_service", env=DISPATCHER_PORTS | {"DISPATCHER_CONFIG": str(config)}) as process,
            grpc.insecure_channel(process.grpc) as channel,
        ):
            yield Bench(server, dispatcher_pb2_grpc.DispatcherServiceStub(channel))


def plain_answer(count: int) -> dict[str, Any]:
    """An answer with as many choices as were asked for."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
        for index in range(count)
    ]
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": USAGE}


@EXAMPLES
@given(request=openai_values.requests())
def test_a_request_arrives_field_for_field_unary_and_streamed(bench: Bench, request: dict[str, Any]) -> None:
    answer = plain_answer(request.get("n", 1))
    bench.complete(request, answer)
    bench.stream(request, openai_values.chunks_of(answer))
    unary, streamed = bench.server.bodies[-2:]
    assert unary == request | {"model": "small", "stream": False}
    assert streamed == request | {"model": "small", "stream": True, "stream_options": {"include_usage": True}}
    # It is a request by the client package's own types, too.
    for message in unary["messages"]:
        Message.validate_python(message)
    for tool in unary.get("tools", []):
        Tool.validate_python(tool)
    if "tool_choice" in unary:
        ToolChoice.validate_python(unary["tool_choice"])


@EXAMPLES
@given(answer=openai_values.answers())
def test_an_answer_comes_back_whole(bench: Bench, answer: dict[str, Any]) -> None:
    response = bench.complete({"messages": [{"role": "user", "content": "hi"}]}, answer)
    assert openai_values.from_response(response) == answer
    usage = response.usage
    assert usage.input_tokens + usage.cached_input_tokens == answer["usage"]["prompt_tokens"]
    assert usage.output_tokens + usage.reasoning_tokens == answer["usage"]["completion_tokens"]
    if all(choice["finish_reason"] != "eos" for choice in answer["choices"]):
        ChatCompletion.model_validate(openai_values.from_response(response))


@EXAMPLES
@given(answer=openai_values.answers())
def test_a_streamed_answer_comes_back_whole_and_its_usage_is_no_piece_of_it(
    bench: Bench, answer: dict[str, Any]
) -> None:
    chunks = openai_values.chunks_of(answer)
    calls = [call for choice in answer["choices"] for call in choice["message"].get("tool_calls", [])]
    # The package's chunks know neither another server's words nor custom tools.
    if all(choice["finish_reason"] != "eos" for choice in answer["choices"]) and all(
        call["type"] == "function" for call in calls
    ):
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
    request = {"messages": [{"role": "user", "content": "hi"}], "n": len(answer["choices"])}
    events = bench.stream(request, chunks)
    assert openai_values.from_stream(events) == answer
    assert [event.WhichOneof("event") for event in events] == ["started", *["delta"] * (len(events) - 2), "finished"]
    empty = dispatcher_pb2.StreamDelta()
    for event in events[1:-1]:
        event.delta.ClearField("index")
        assert event.delta != empty, "a piece is never empty"
