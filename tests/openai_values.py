"""Between the `openai` package's own types and our protos, as a caller would write it: the other half of a round trip.

Strategies generate requests and answers in OpenAI's shape; the functions turn requests into protos, and protos back
into answers.
"""

import json
import string
from typing import Any

from hypothesis import strategies as st

from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2

Json = dict[str, Any]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)
WORDS = TEXT.filter(str.strip)
NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
BASE64 = st.binary(min_size=1, max_size=12)
EXTRA_KEYS = ("top_k", "verbosity", "prediction")
ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}
MODES = {
    "none": chat_pb2.TOOL_CHOICE_MODE_NONE,
    "auto": chat_pb2.TOOL_CHOICE_MODE_AUTO,
    "required": chat_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
FINISH_REASONS = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def optional(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    """Objects with any of these members."""
    return st.fixed_dictionaries({}, optional=fields)


# Requests


def _text_part(kind: str = "text") -> st.SearchStrategy[Json]:
    return TEXT.map(lambda text: {"type": kind, kind: text})


_IMAGE = st.builds(
    lambda url, detail: {"type": "image_url", "image_url": {"url": url} | detail},
    st.sampled_from(["https://example.com/a.png", "data:image/png;base64,aGk="]),
    optional({"detail": st.sampled_from(["auto", "low", "high"])}),
)
_AUDIO = st.sampled_from(["wav", "mp3"]).map(
    lambda form: {"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": form}}
)
_FILE = st.sampled_from(
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
    ]
)
_TOOL_CALL = st.builds(
    lambda call_id, name, arguments: {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    NAMES,
    NAMES,
    TEXT,
)


_CUSTOM_CALL = st.builds(
    lambda call_id, name, text: {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}},
    NAMES,
    NAMES,
    TEXT,
)
_ANY_CALL = _TOOL_CALL | _CUSTOM_CALL


def _content(*parts: st.SearchStrategy[Json]) -> st.SearchStrategy[str | list[Json]]:
    # A single text part is sent as a plain string, so that a list has several or something else.
    return TEXT | st.lists(st.one_of(*parts), min_size=2, max_size=3)


@st.composite
def _message(draw: st.DrawFn) -> Json:
    role = draw(st.sampled_from(list(ROLES)))
    message: Json = {"role": role}
    if role == "user":
        message["content"] = draw(_content(_text_part(), _IMAGE, _AUDIO, _FILE))
    elif role == "assistant":
        shape = draw(st.sampled_from(["content", "refusal", "calls", "both"]))
        if shape == "refusal":
            message["refusal"] = draw(TEXT)
        elif shape != "calls":
            message["content"] = draw(_content(_text_part(), _text_part("refusal")))
        if shape in ("calls", "both"):
            message["tool_calls"] = draw(st.lists(_ANY_CALL, min_size=1, max_size=2))
    else:
        message["content"] = draw(_content(_text_part()))
        if role == "tool":
            message["tool_call_id"] = draw(NAMES)
    if role != "tool":
        message |= draw(optional({"name": WORDS}))
    return message


_FUNCTION = st.builds(
    lambda name, more: {"type": "function", "function": {"name": name} | more},
    NAMES,
    optional({"description": WORDS, "parameters": OBJECTS, "strict": st.booleans()}),
)
_GRAMMAR = st.builds(
    lambda syntax, definition: {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}},
    st.sampled_from(["lark", "regex"]),
    WORDS,
)
_CUSTOM = st.builds(
    lambda name, more: {"type": "custom", "custom": {"name": name} | more},
    NAMES,
    optional({"description": WORDS, "format": st.just({"type": "text"}) | _GRAMMAR}),
)
_TOOLS = st.lists(_FUNCTION | _CUSTOM, min_size=1, max_size=3, unique_by=lambda tool: tool[tool["type"]]["name"])
_FORMAT = st.sampled_from([{"type": "text"}, {"type": "json_object"}]) | st.builds(
    lambda name, schema, more: {"type": "json_schema", "json_schema": {"name": name, "schema": schema} | more},
    NAMES,
    OBJECTS,
    optional({"description": WORDS, "strict": st.booleans()}),
)


@st.composite
def requests(draw: st.DrawFn) -> Json:
    """`openai.types.chat.CompletionCreateParams`, without the members that the dispatcher owns."""
    question = draw(WORDS)
    messages = draw(st.lists(_message(), max_size=3))
    messages.insert(draw(st.integers(0, len(messages))), {"role": "user", "content": question})
    request: Json = {"messages": messages} | draw(
        optional(
            {
                "temperature": st.floats(0, 2),
                "top_p": st.floats(0, 1, exclude_min=True),
                "max_completion_tokens": st.integers(1, 10**6),
                "stop": st.lists(TEXT.filter(bool), min_size=1, max_size=4),
                "seed": st.integers(-(2**63), 2**63 - 1),
                "presence_penalty": st.floats(-2, 2),
                "frequency_penalty": st.floats(-2, 2),
                "n": st.integers(1, 3),
                "logit_bias": st.dictionaries(
                    st.integers(0, 10**6).map(str), st.integers(-100, 100), min_size=1, max_size=3
                ),
                "response_format": _FORMAT,
                "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
                "user": WORDS,
                "metadata": st.dictionaries(TEXT.filter(bool), TEXT, min_size=1, max_size=3),
            }
        )
    )
    if draw(st.booleans()):
        request["logprobs"] = True
        request |= draw(optional({"top_logprobs": st.integers(0, 20)}))
    if draw(st.booleans()):
        request["tools"] = draw(_TOOLS)
        named = [
            {"type": tool["type"], tool["type"]: {"name": tool[tool["type"]]["name"]}} for tool in request["tools"]
        ]
        allowed = st.builds(
            lambda mode, tools: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}},
            st.sampled_from(["auto", "required"]),
            st.lists(st.sampled_from(named), min_size=1, max_size=2),
        )
        choice = st.sampled_from([*MODES, *named]) | allowed
        request |= draw(optional({"tool_choice": choice, "parallel_tool_calls": st.booleans()}))
    return request | draw(optional(dict.fromkeys(EXTRA_KEYS, JSON.filter(lambda value: value is not None))))


def to_chat(request: Json) -> chat_pb2.Chat:
    """A request in OpenAI's shape as our proto."""
    plain = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "n", "logprobs")
    more = ("top_logprobs", "parallel_tool_calls", "reasoning_effort", "user", "metadata")
    extra = {key: request[key] for key in EXTRA_KEYS if key in request}
    return chat_pb2.Chat(
        messages=[_to_message(message) for message in request["messages"]],
        **{name: request[name] for name in plain + more if name in request},
        max_tokens=request.get("max_completion_tokens"),
        logit_bias={int(token): bias for token, bias in request.get("logit_bias", {}).items()},
        response_format=_to_format(request["response_format"]) if "response_format" in request else None,
        tools=[_to_tool(tool) for tool in request.get("tools", [])],
        tool_choice=_to_choice(request["tool_choice"]) if "tool_choice" in request else None,
        extra_body_json=json.dumps(extra) if extra else "",
    )


def _to_message(message: Json) -> chat_pb2.Message:
    content = message.get("content", [])
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if "refusal" in message:
        parts = [{"type": "refusal", "refusal": message["refusal"]}]
    return chat_pb2.Message(
        role=ROLES[message["role"]],
        content=[_to_part(part) for part in parts],
        name=message.get("name", ""),
        tool_call_id=message.get("tool_call_id", ""),
        tool_calls=[_to_call(call) for call in message.get("tool_calls", [])],
    )


def _to_part(part: Json) -> chat_pb2.ContentPart:
    kind = part["type"]
    if kind in ("text", "refusal"):
        return chat_pb2.ContentPart(**{kind: part[kind]})
    if kind == "image_url":
        url, detail = part["image_url"]["url"], part["image_url"].get("detail", "")
        if url.startswith("data:"):
            return chat_pb2.ContentPart(image=chat_pb2.ImageData(data=b"hi", media_type="image/png", detail=detail))
        return chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=url, detail=detail))
    if kind == "input_audio":
        return chat_pb2.ContentPart(audio=chat_pb2.AudioData(data=b"hello", format=part["input_audio"]["format"]))
    if "file_id" in part["file"]:
        return chat_pb2.ContentPart(file=chat_pb2.File(file_id=part["file"]["file_id"]))
    inline = chat_pb2.FileData(data=b"%PDF", media_type="application/pdf", filename=part["file"]["filename"])
    return chat_pb2.ContentPart(file=chat_pb2.File(inline=inline))


def _to_call(call: Json) -> chat_pb2.ToolCall:
    made = call[call["type"]]
    text = made["input"] if call["type"] == "custom" else made["arguments"]
    return chat_pb2.ToolCall(id=call["id"], name=made["name"], arguments_json=text, custom=call["type"] == "custom")


def _to_tool(tool: Json) -> chat_pb2.Tool:
    made = dict(tool[tool["type"]])
    if tool["type"] == "custom":
        form, custom = made.pop("format", None), chat_pb2.CustomTool()
        if form is not None and form["type"] == "grammar":
            custom.grammar.CopyFrom(chat_pb2.Grammar(**form["grammar"]))
        elif form is not None:
            custom.text.SetInParent()
        return chat_pb2.Tool(**made, custom=custom)
    if "parameters" in made:
        made["parameters_json"] = json.dumps(made.pop("parameters"))
    return chat_pb2.Tool(**made)


def _to_choice(choice: str | Json) -> chat_pb2.ToolChoice:
    if isinstance(choice, str):
        return chat_pb2.ToolChoice(mode=MODES[choice])
    if choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = [tool[tool["type"]]["name"] for tool in allowed["tools"]]
        return chat_pb2.ToolChoice(allowed=chat_pb2.AllowedTools(mode=MODES[allowed["mode"]], names=names))
    name = choice[choice["type"]]["name"]
    return chat_pb2.ToolChoice(custom=name) if choice["type"] == "custom" else chat_pb2.ToolChoice(function=name)


def _to_format(form: Json) -> chat_pb2.ResponseFormat:
    if form["type"] == "text":
        return chat_pb2.ResponseFormat(text=chat_pb2.TextFormat())
    if form["type"] == "json_object":
        return chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat())
    schema = dict(form["json_schema"])
    return chat_pb2.ResponseFormat(
        json_schema=chat_pb2.JsonSchemaFormat(schema_json=json.dumps(schema.pop("schema")), **schema)
    )


# Answers

_LOGPROB = st.floats(-50, 0)
_TOP = st.fixed_dictionaries(
    {"token": TEXT, "logprob": _LOGPROB, "bytes": st.none() | st.lists(st.integers(0, 255), max_size=4)}
)
_TOKEN = st.builds(lambda token, top: token | {"top_logprobs": top}, _TOP, st.lists(_TOP, max_size=2))
_COUNTS = st.integers(0, 10**6)
_USAGE = st.builds(
    lambda prompt, cached, output, reasoning, more: {
        "prompt_tokens": prompt + cached,
        "completion_tokens": output + reasoning,
        "total_tokens": prompt + cached + output + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": more},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "accepted_prediction_tokens": more},
    },
    _COUNTS,
    _COUNTS,
    _COUNTS,
    _COUNTS,
    _COUNTS,
)
# What other servers add: members that OpenAI's types do not know.
_BESIDE = st.dictionaries(
    st.sampled_from(["reasoning_content", "content_filter_results", "stop_reason", "token_ids"]),
    JSON.filter(lambda value: value is not None),
    max_size=2,
)


@st.composite
def _answer_choice(draw: st.DrawFn, index: int) -> Json:
    message: Json = {"role": "assistant", "content": draw(WORDS)} | draw(_BESIDE)
    message |= draw(
        optional(
            {
                "refusal": WORDS,
                "tool_calls": st.lists(_ANY_CALL, min_size=1, max_size=3),
                "annotations": st.just(
                    [
                        {
                            "type": "url_citation",
                            "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"},
                        }
                    ]
                ),
            }
        )
    )
    words = ["stop", "length", "tool_calls", "content_filter", "function_call", "eos"]
    choice = {"index": index, "message": message, "finish_reason": draw(st.sampled_from(words))}
    tokens = st.lists(_TOKEN, min_size=1, max_size=3)
    return (
        choice
        | draw(_BESIDE)
        | draw(optional({"logprobs": st.fixed_dictionaries({"content": tokens}, optional={"refusal": tokens})}))
    )


@st.composite
def answers(draw: st.DrawFn) -> Json:
    """`openai.types.chat.ChatCompletion` as a server writes it."""
    count = draw(st.integers(1, 3))
    answer: Json = {
        "id": draw(NAMES),
        "object": "chat.completion",
        "created": draw(st.integers(1, 2**40)),
        "model": draw(NAMES),
        "choices": [draw(_answer_choice(index)) for index in range(count)],
        "usage": draw(_USAGE),
    }
    return answer | draw(
        optional(
            {
                "system_fingerprint": NAMES,
                "service_tier": st.sampled_from(["default", "priority"]),
                "citations": st.lists(TEXT, min_size=1, max_size=2),
            }
        )
    )


def chunks_of(answer: Json) -> list[Json]:
    """The same answer as a stream: `openai.types.chat.ChatCompletionChunk`s, every text in two pieces."""
    head = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"

    def chunk(index: int, delta: Json, **more: Any) -> Json:
        return head | {"choices": [{"index": index, "delta": delta, "finish_reason": None} | more]}

    stream = [chunk(choice["index"], {"role": "assistant", "content": ""}) for choice in answer["choices"]]
    for choice in answer["choices"]:
        message = dict(choice["message"])
        beside = {
            key: value for key, value in choice.items() if key not in ("index", "message", "finish_reason", "logprobs")
        }
        for key in ("content", "refusal"):
            if key in message:
                text = message.pop(key)
                half = len(text) // 2
                stream += [chunk(choice["index"], {key: piece}) for piece in (text[:half], text[half:])]
        for number, call in enumerate(message.pop("tool_calls", [])):
            kind = call["type"]
            made, key = dict(call[kind]), "input" if kind == "custom" else "arguments"
            text = made[key]
            half = len(text) // 2
            first = {"index": number, "id": call["id"], "type": kind, kind: made | {key: text[:half]}}
            second = {"index": number, kind: {key: text[half:]}}
            stream += [chunk(choice["index"], {"tool_calls": [piece]}) for piece in (first, second)]
        if "logprobs" in choice:
            stream.append(chunk(choice["index"], {}, logprobs=choice["logprobs"]))
        message.pop("role")
        if message or beside:
            stream.append(chunk(choice["index"], message, **beside))
        stream.append(chunk(choice["index"], {}, finish_reason=choice["finish_reason"]))
    return [*stream, head | {"choices": [], "usage": answer["usage"]}]


def from_response(response: dispatcher_pb2.CompleteResponse) -> Json:
    """A whole answer back in OpenAI's shape."""
    return _envelope(response.origin, response.usage) | {
        "choices": [_from_choice(choice) for choice in response.choices]
    }


def from_stream(events: list[dispatcher_pb2.StreamCompleteResponse]) -> Json:
    """The events of a stream put together, back in OpenAI's shape."""
    finished = events[-1].finished
    words = list(finished.upstream_finish_reasons) or [""] * len(finished.finish_reasons)
    choices = []
    for index, (reason, word) in enumerate(zip(finished.finish_reasons, words, strict=True)):
        whole = chat_pb2.Choice(index=index, finish_reason=reason, upstream_finish_reason=word)
        beside: Json = {}
        for event in events:
            if not event.HasField("delta") or event.delta.index != index:
                continue
            delta = event.delta
            whole.content += delta.content
            whole.refusal += delta.refusal
            whole.logprobs.MergeFrom(delta.logprobs)
            if delta.extra_json:
                beside |= json.loads(delta.extra_json)
            for piece in delta.tool_calls:
                while len(whole.tool_calls) <= piece.index:
                    whole.tool_calls.add()
                call = whole.tool_calls[piece.index]
                call.id += piece.id
                call.name += piece.name
                call.arguments_json += piece.arguments_json
                call.custom = call.custom or piece.custom
        if beside:
            whole.extra_json = json.dumps(
                {"message" if key == "delta" else key: value for key, value in beside.items()}
            )
        choices.append(_from_choice(whole))
    return _envelope(finished.origin, finished.usage) | {"choices": choices}


def _envelope(origin: chat_pb2.Origin, usage: chat_pb2.Usage) -> Json:
    envelope: Json = {
        "id": origin.completion_id,
        "object": "chat.completion",
        "created": origin.created,
        "model": origin.model,
        "usage": json.loads(usage.reported_json),
    }
    if origin.system_fingerprint:
        envelope["system_fingerprint"] = origin.system_fingerprint
    return envelope | (json.loads(origin.extra_json) if origin.extra_json else {})


def _from_choice(choice: chat_pb2.Choice) -> Json:
    beside = json.loads(choice.extra_json) if choice.extra_json else {}
    message: Json = {"role": "assistant", "content": choice.content} | beside.pop("message", {})
    if choice.refusal:
        message["refusal"] = choice.refusal
    if choice.tool_calls:
        message["tool_calls"] = [_from_call(call) for call in choice.tool_calls]
    reason = FINISH_REASONS.get(choice.finish_reason, choice.upstream_finish_reason)
    shown: Json = {"index": choice.index, "message": message, "finish_reason": reason} | beside
    if choice.logprobs.content or choice.logprobs.refusal:
        fields = {"content": choice.logprobs.content, "refusal": choice.logprobs.refusal}
        shown["logprobs"] = {key: [_from_token(token) for token in tokens] for key, tokens in fields.items() if tokens}
    return shown


def _from_call(call: chat_pb2.ToolCall) -> Json:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments_json}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}


def _from_token(token: chat_pb2.TokenLogprob) -> Json:
    return _from_top(token) | {"top_logprobs": [_from_top(top) for top in token.top_logprobs]}


def _from_top(token: chat_pb2.TokenLogprob | chat_pb2.TopLogprob) -> Json:
    token_bytes = list(token.token_bytes) if token.HasField("token_bytes") else None
    return {"token": token.token, "logprob": token.logprob, "bytes": token_bytes}
