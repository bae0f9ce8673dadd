"""OpenAI's JSON to the proto: what has a field goes there, what has none is named or travels as extra body."""

import json
from typing import Any

import pytest

from pointsman.dispatcher.v1 import chat_pb2
from pointsman.openai_requests import OpenAIRequestError, read_chat

USER = {"role": "user", "content": "hi"}


def test_null_is_not_set() -> None:
    chat = read_chat({"messages": [USER], "temperature": None, "stop": None, "tools": None, "n": None})
    assert chat == read_chat({"messages": [USER]})


def test_both_names_of_the_token_limit_mean_the_same() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        assert read_chat({"messages": [USER], name: 7}).max_tokens == 7


def test_members_that_the_contract_does_not_know_travel_as_extra_body() -> None:
    chat = read_chat({"messages": [USER], "top_k": 1, "guided": {"x": 1.0}})
    assert json.loads(chat.extra_body_json) == {"top_k": 1, "guided": {"x": 1.0}}
    assert "1.0" in chat.extra_body_json


def test_an_earlier_answer_goes_back_as_a_client_got_it() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    chat = read_chat({"messages": [USER, answer, result]})
    assert not chat.messages[1].content
    assert chat.messages[1].tool_calls[0] == chat_pb2.ToolCall(id="c1", name="f", arguments_json="{}")
    assert chat.messages[2].tool_call_id == "c1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER, "hi"]}, "messages[1]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!"}}]}]},
            "messages[0].content[0].input_audio.data",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"filename": "a", "file_data": "x"}}]}
                ]
            },
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": [USER | {"mood": "sad"}]}, "messages[0].mood"),
        ({"messages": [USER], "temperature": "hot"}, "temperature"),
        ({"messages": [USER], "max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"messages": [USER], "max_completion_tokens": 2**70}, "max_completion_tokens"),
        ({"messages": [USER], "stop": [1]}, "stop"),
        ({"messages": [USER], "logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"messages": [USER], "metadata": {"a": 1}}, "metadata.a"),
        ({"messages": [USER], "tools": [{"type": "web"}]}, "tools[0].type"),
        ({"messages": [USER], "tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": [USER], "tool_choice": "maybe"}, "tool_choice"),
        ({"messages": [USER], "response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_cannot_be_used_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(OpenAIRequestError) as caught:
        read_chat(body)
    assert caught.value.param == param
