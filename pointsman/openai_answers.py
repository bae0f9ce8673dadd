"""The dispatcher's answers as OpenAI chat-completions JSON: whole answers and the chunks of a stream.

What an upstream says beyond OpenAI's members (`extra_json`) goes back where it stood.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2

Json = dict[str, Any]

_FINISH_REASONS: Mapping[int, str] = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def completion(response: dispatcher_pb2.CompleteResponse, *, created: int) -> Json:
    """A `chat.completion` object. `model` is the one that answered; `created`, seconds since the epoch, is used where
    the upstream does not say when it was.
    """
    return _extra(response.origin.extra_json) | {
        "id": response.origin.completion_id or response.request_id,
        "object": "chat.completion",
        "created": response.origin.created or created,
        "model": response.decision.model,
        "system_fingerprint": response.origin.system_fingerprint or None,
        "choices": [_choice(choice) for choice in response.choices],
        "usage": usage(response.usage),
    }


class Chunks:
    """The events of one stream as `chat.completion.chunk` objects, in order."""

    def __init__(self, request_id: str, model: str, *, created: int, include_usage: bool) -> None:
        """`model` answers. `include_usage` is OpenAI's: a last chunk without choices carries the usage."""
        self._head: Json = {
            "id": request_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def of(self, event: dispatcher_pb2.StreamCompleteResponse) -> Iterator[Json]:
        """The chunks of one event after `started`."""
        if event.HasField("delta"):
            yield self._chunk([self._delta(event.delta)])
        if event.HasField("finished"):
            self._head["model"] = event.finished.decision.model
            words = event.finished.upstream_finish_reasons
            for index, reason in enumerate(event.finished.finish_reasons):
                finish = _finish_reason(reason, words[index] if words else "")
                yield self._chunk([{"index": index, "delta": {}, "logprobs": None, "finish_reason": finish}])
            if self._include_usage:
                last = {"usage": usage(event.finished.usage)}
                yield _extra(event.finished.origin.extra_json) | self._chunk([]) | last

    def _chunk(self, choices: list[Json]) -> Json:
        chunk = self._head | {"choices": choices}
        # OpenAI: with include_usage every chunk has the member, null until the last.
        return chunk | {"usage": None} if self._include_usage else chunk

    def _delta(self, delta: dispatcher_pb2.StreamDelta) -> Json:
        piece: Json = {}
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            piece["role"] = "assistant"
        if delta.content:
            piece["content"] = delta.content
        if delta.refusal:
            piece["refusal"] = delta.refusal
        if delta.tool_calls:
            piece["tool_calls"] = [_tool_call_delta(call) for call in delta.tool_calls]
        logprobs = _logprobs(delta.logprobs) if delta.HasField("logprobs") else None
        beside = _extra(delta.extra_json)
        piece |= beside.pop("delta", {})
        return beside | {"index": delta.index, "delta": piece, "logprobs": logprobs, "finish_reason": None}


def usage(tokens: chat_pb2.Usage) -> Json:
    """The upstream's own object, or one made of our counts.

    OpenAI's counts overlap: cached tokens are part of the prompt, reasoning is part of the completion.
    """
    if tokens.reported_json:
        return _extra(tokens.reported_json)
    prompt = tokens.input_tokens + tokens.cached_input_tokens + tokens.cache_write_tokens
    answer = tokens.output_tokens + tokens.reasoning_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached_input_tokens,
            "cache_write_tokens": tokens.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning_tokens},
    }


def server_sent(chunk: Json) -> bytes:
    """One event of a `text/event-stream` (WHATWG HTML, section 9.2)."""
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"
"""OpenAI's end of a stream."""


def _choice(choice: chat_pb2.Choice) -> Json:
    # An answer of tool calls alone has `null` for its text; an empty answer has an empty one.
    silent = not choice.content and (choice.tool_calls or choice.refusal)
    message: Json = {
        "role": "assistant",
        "content": None if silent else choice.content,
        "refusal": choice.refusal or None,
    }
    if choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in choice.tool_calls
        ]
    beside = _extra(choice.extra_json)
    message |= beside.pop("message", {})
    return beside | {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(choice.logprobs) if choice.HasField("logprobs") else None,
        "finish_reason": _finish_reason(choice.finish_reason, choice.upstream_finish_reason),
    }


def _extra(text: str) -> Json:
    members: Json = json.loads(text) if text else {}
    return members


def _finish_reason(reason: int, word: str) -> str | None:
    return _FINISH_REASONS.get(reason, word or None)


def _tool_call_delta(call: dispatcher_pb2.ToolCallDelta) -> Json:
    piece: Json = {"index": call.index, "function": {"arguments": call.arguments_json}}
    if call.id:
        piece |= {"id": call.id, "type": "function"}
    if call.name:
        piece["function"]["name"] = call.name
    return piece


def _logprobs(logprobs: chat_pb2.Logprobs) -> Json:
    return {"content": _tokens(logprobs.content), "refusal": _tokens(logprobs.refusal) or None}


def _tokens(tokens: Iterable[chat_pb2.TokenLogprob]) -> list[Json]:
    return [
        _token(token) | {"top_logprobs": [_token(alternative) for alternative in token.top_logprobs]}
        for token in tokens
    ]


def _token(token: chat_pb2.TokenLogprob | chat_pb2.TopLogprob) -> Json:
    known = list(token.token_bytes) if token.HasField("token_bytes") else None
    return {"token": token.token, "logprob": token.logprob, "bytes": known}
