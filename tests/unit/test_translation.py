"""What bad input gets: the field's path and the mend."""

import math
from collections.abc import Callable

import pytest

from dispatcher_service.chat import Role, Text
from dispatcher_service.errors import InvalidRequest, PayloadTooLarge
from dispatcher_service.translation import read_request
from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2


def user(text: str = "Why is the sky blue?") -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])


def complete(**fields: object) -> dispatcher_pb2.CompleteRequest:
    request = dispatcher_pb2.CompleteRequest(chat=chat_pb2.Chat(messages=[user()]))
    request.MergeFrom(dispatcher_pb2.CompleteRequest(**fields))  # type: ignore[arg-type]
    return request


def read(request: dispatcher_pb2.CompleteRequest):  # type: ignore[no-untyped-def]
    return read_request(request, tenant_id="t", timeout=None, max_conversation_bytes=1000)


def edit(change: Callable[[dispatcher_pb2.CompleteRequest], object]) -> dispatcher_pb2.CompleteRequest:
    request = complete()
    change(request)
    return request


TEXT = chat_pb2.ContentPart(text="42")
CUSTOM = chat_pb2.CustomTool(text=chat_pb2.TextFormat())
BNF = chat_pb2.CustomTool(grammar=chat_pb2.Grammar(syntax="bnf", definition="s"))
ALLOWED = chat_pb2.AllowedTools(mode=chat_pb2.TOOL_CHOICE_MODE_AUTO, names=["custom", "other"])


def choosing(choice: chat_pb2.ToolChoice) -> dispatcher_pb2.CompleteRequest:
    """A request with a function and a custom tool, and this choice."""
    tools = [chat_pb2.Tool(name="function"), chat_pb2.Tool(name="custom", custom=CUSTOM)]
    request = edit(lambda r: r.chat.tools.extend(tools))
    request.chat.tool_choice.CopyFrom(choice)
    return request


IMAGE = chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="https://example.com/a.png"))


@pytest.mark.parametrize(
    ("request_", "field", "mend"),
    [
        (dispatcher_pb2.CompleteRequest(), "chat.messages", "add at least one message"),
        (edit(lambda r: r.chat.messages.add()), "chat.messages[1].role", "write one of ROLE_SYSTEM"),
        (edit(lambda r: setattr(r.chat.messages[0], "role", 99)), "chat.messages[0].role", "99 is no"),
        (edit(lambda r: r.chat.messages.add(role=1)), "chat.messages[1].content", "add at least one part"),
        (
            edit(lambda r: r.chat.messages.add(role=3, content=[IMAGE])),
            "chat.messages[1].content[0].image_url",
            "only user",
        ),
        (edit(lambda r: r.chat.messages[0].content.add()), "chat.messages[0].content[1]", "without content"),
        (edit(lambda r: setattr(r.chat.messages[0].content[0], "text", " \n")), "chat.messages", "no user message"),
        (edit(lambda r: setattr(r.chat.messages[0], "role", 1)), "chat.messages", "no user message"),
        (edit(lambda r: setattr(r.chat, "max_tokens", -1)), "chat.max_tokens", "-1 is less than 1"),
        (edit(lambda r: setattr(r.chat, "max_tokens", 0)), "chat.max_tokens", "leave it unset"),
        (edit(lambda r: setattr(r.chat, "temperature", 2.5)), "chat.temperature", "2.5 is outside [0, 2]"),
        (edit(lambda r: setattr(r.chat, "temperature", math.nan)), "chat.temperature", "nan is outside"),
        (edit(lambda r: setattr(r.chat, "top_p", 0)), "chat.top_p", "leaves no token"),
        (edit(lambda r: setattr(r.chat, "presence_penalty", 3)), "chat.presence_penalty", "outside [-2, 2]"),
        (edit(lambda r: r.chat.stop.extend("abcde")), "chat.stop", "keep at most 4"),
        (edit(lambda r: r.chat.stop.extend(["a", ""])), "chat.stop[1]", "empty: remove it"),
        (edit(lambda r: r.chat.messages.add(role=4, content=[TEXT])), "chat.messages[1].tool_call_id", "name the call"),
        (
            edit(lambda r: setattr(r.chat.messages[0], "tool_call_id", "c")),
            "chat.messages[0].tool_call_id",
            "remove it",
        ),
        (edit(lambda r: r.chat.messages[0].tool_calls.add()), "chat.messages[0].tool_calls", "only assistant"),
        (
            edit(lambda r: r.chat.messages[0].content.add(refusal="no")),
            "chat.messages[0].content[1].refusal",
            "send text",
        ),
        (edit(lambda r: setattr(r.chat, "n", 0)), "chat.n", "0 is less than 1"),
        (edit(lambda r: setattr(r.chat, "n", 129)), "chat.n", "129 is more than 128"),
        (edit(lambda r: r.chat.logit_bias.update({5: 101})), "chat.logit_bias[5]", "101 is outside [-100, 100]"),
        (edit(lambda r: setattr(r.chat, "top_logprobs", 3)), "chat.top_logprobs", "needs chat.logprobs"),
        (edit(lambda r: r.chat.tools.add(name="a b")), "chat.tools[0].name", "letters, digits"),
        (edit(lambda r: [r.chat.tools.add(name="f") for _ in range(2)]), "chat.tools[1].name", "'f' stands twice"),
        (edit(lambda r: r.chat.tools.add(name="f", parameters_json="[]")), "chat.tools[0].parameters_json", "object"),
        (
            edit(lambda r: r.chat.tools.add(name="f", parameters_json='{"a": NaN}')),
            "chat.tools[0].parameters_json",
            "NaN",
        ),
        (edit(lambda r: setattr(r.chat.tool_choice, "mode", 2)), "chat.tool_choice", "there are no tools"),
        (
            edit(lambda r: r.chat.tools.add(name="f", strict=True, custom=CUSTOM)),
            "chat.tools[0].strict",
            "a custom tool has none",
        ),
        (
            edit(
                lambda r: r.chat.tools.add(name="f", custom=chat_pb2.CustomTool(grammar=chat_pb2.Grammar(syntax="bnf")))
            ),
            "chat.tools[0].custom.grammar.syntax",
            "lark or regex",
        ),
        (
            choosing(chat_pb2.ToolChoice(function="custom")),
            "chat.tool_choice.function",
            "'custom' is not among the functions of chat.tools",
        ),
        (choosing(chat_pb2.ToolChoice(custom="function")), "chat.tool_choice.custom", "not among the custom tools"),
        (choosing(chat_pb2.ToolChoice(allowed=ALLOWED)), "chat.tool_choice.allowed.names", "'other' is not among"),
        (
            choosing(chat_pb2.ToolChoice(allowed=chat_pb2.AllowedTools(names=["custom"]))),
            "chat.tool_choice.allowed.mode",
            "write TOOL_CHOICE_MODE_AUTO",
        ),
        (
            edit(lambda r: setattr(r.chat, "parallel_tool_calls", True)),
            "chat.parallel_tool_calls",
            "there are no tools",
        ),
        (edit(lambda r: r.chat.response_format.SetInParent()), "chat.response_format", "set text, json_object"),
        (
            edit(lambda r: setattr(r.chat, "extra_body_json", '{"model": "x"}')),
            "chat.extra_body_json",
            "'model' belongs",
        ),
        (edit(lambda r: setattr(r.chat, "extra_body_json", "{")), "chat.extra_body_json", "not JSON"),
        (edit(lambda r: setattr(r.chat, "extra_body_json", "[" * 100_000)), "chat.messages", "shorten"),
        (edit(lambda r: setattr(r.chat, "reasoning_effort", "Very high")), "chat.reasoning_effort", "write a word"),
        (edit(lambda r: r.chat.metadata.update({"": "v"})), "chat.metadata['']", "1 to 64"),
        (complete(alpha=1.01), "alpha", "1.01 is outside [0, 1]"),
        (complete(alpha=math.nan), "alpha", "nan is outside [0, 1]"),
        (complete(alpha=-math.inf), "alpha", "-inf is outside [0, 1]"),
        (complete(request_id="x" * 129), "request_id", "at most 128"),
        (complete(request_id="naïve"), "request_id", "printable ASCII"),
        (complete(labels={str(n): "" for n in range(9)}), "labels", "keep at most 8"),
        (complete(labels={"k": "v" * 257}), "labels['k']", "at most 256"),
        (complete(labels={"": "v"}), "labels['']", "1 to 64"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(request_: dispatcher_pb2.CompleteRequest, field: str, mend: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(request_)
    assert caught.value.field == field
    assert mend in caught.value.mend


def test_too_much_text_over_all_messages_is_refused_in_bytes() -> None:
    request = edit(lambda r: r.chat.messages.extend([user("é" * 250), user("é" * 250)]))
    with pytest.raises(PayloadTooLarge, match="1020 bytes of text and parts: shorten to at most 1000"):
        read(request)


def test_a_request_becomes_values_and_unset_stays_unset() -> None:
    request = complete(alpha=0.5, request_id="r-1", labels={"team": "search"})
    request.chat.messages[0].content.append(chat_pb2.ContentPart(text="second"))
    request.chat.seed = 0
    value = read(request)
    assert value.chat.messages[0].role is Role.USER
    assert value.chat.messages[0].parts == (Text("Why is the sky blue?"), Text("second"))
    assert (value.alpha, value.request_id, value.labels) == (0.5, "r-1", {"team": "search"})
    assert (value.chat.seed, value.chat.temperature, value.chat.max_tokens) == (0, None, None)


def test_without_a_request_id_each_request_gets_one_of_its_own() -> None:
    first, second = read(complete()).request_id, read(complete()).request_id
    assert first
    assert first != second
