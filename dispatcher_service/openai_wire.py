"""From OpenAI's chat completions to our values: answers and pieces of answers.

What is read here is parsed JSON that nobody has validated: an answer of another shape fails with ValueError, TypeError,
AttributeError or KeyError, which `upstream_errors` translates.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from dispatcher_service.answer import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    Logprobs,
    Origin,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
)
from dispatcher_service.chat import ToolCall
from dispatcher_service.pricing import Usage, UsageSource

Json = dict[str, Any]

_ANSWER: Final = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "choices", "usage", "obfuscation"}
)
"""Members of an answer that have a field of ours, or none because they say nothing: `obfuscation` is padding."""
_CHOICE: Final = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
_MESSAGE: Final = frozenset({"role", "content", "refusal", "tool_calls"})


def read_completion(answer: Any) -> Completion:
    """A whole answer."""
    choices = _object(answer)["choices"]
    if not choices:
        raise ValueError("an answer without choices")
    usage = answer.get("usage")
    return Completion(
        choices=tuple(sorted(map(_read_choice, choices), key=lambda choice: choice.index)),
        usage=None if usage is None else read_usage(usage),
        origin=read_origin(answer, extra_of_chunk(answer)),
    )


def _read_choice(choice: Json) -> Choice:
    message = _object(choice["message"])
    finish_reason = choice.get("finish_reason")
    return Choice(
        index=choice["index"],
        content=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        tool_calls=tuple(_read_call(call) for call in message.get("tool_calls") or ()),
        finish_reason=read_finish_reason(finish_reason),
        upstream_finish_reason=unknown_word(finish_reason),
        logprobs=_read_logprobs(choice.get("logprobs")),
        extra_json=_extra_json(choice, "message", message),
    )


def _read_call(call: Json) -> ToolCall:
    if call.get("type") == "custom":
        return ToolCall(id=call["id"], name=call["custom"]["name"], arguments=call["custom"]["input"], custom=True)
    return ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])


def _read_call_delta(call: Json) -> ToolCallDelta:
    custom = call.get("custom")
    named, arguments = (custom, "input") if custom is not None else (call.get("function") or {}, "arguments")
    return ToolCallDelta(
        index=call["index"],
        id=_text(call.get("id")),
        name=_text(named.get("name")),
        arguments=_text(named.get(arguments)),
        custom=custom is not None,
    )


def read_delta(choice: Json) -> Delta | None:
    """The piece that one choice of a chunk brings; `None` if it brings nothing to show."""
    piece = _object(choice["delta"])
    content, refusal = _text(piece.get("content")), _text(piece.get("refusal"))
    calls = tuple(_read_call_delta(call) for call in piece.get("tool_calls") or ())
    logprobs = _read_logprobs(choice.get("logprobs"))
    extra_json = _extra_json(choice, "delta", piece)
    if not (content or refusal or calls or logprobs or extra_json):
        return None
    return Delta(
        index=choice["index"],
        content=content,
        refusal=refusal,
        tool_calls=calls,
        logprobs=logprobs,
        extra_json=extra_json,
    )


def read_finish_reason(text: str | None) -> FinishReason:
    """OpenAI's word for it; a word that we do not know is `UNKNOWN`."""
    try:
        return FinishReason(text)
    except ValueError:
        return FinishReason.UNKNOWN


def unknown_word(text: str | None) -> str:
    """The upstream's finish reason where it is none of ours, else empty."""
    return text if text and read_finish_reason(text) is FinishReason.UNKNOWN else ""


def read_origin(answer: Json, beside: Mapping[str, Any]) -> Origin:
    """What the upstream says of its answer; `beside` is what it says that has no field."""
    return Origin(
        completion_id=_text(answer.get("id")),
        model=_text(answer.get("model")),
        system_fingerprint=_text(answer.get("system_fingerprint")),
        created=int(answer.get("created") or 0),
        extra_json=_json(beside),
    )


def extra_of_chunk(chunk: Json) -> Json:
    """The members of an answer or a chunk, beside its choices, that have no field of ours."""
    return _extra(chunk, _ANSWER)


def _extra(members: Json, known: frozenset[str]) -> Json:
    """The members that have no field of ours, without those that say nothing."""
    return {name: value for name, value in members.items() if name not in known and value is not None}


def _extra_json(choice: Json, name: str, inner: Json) -> str:
    members = _extra(choice, _CHOICE)
    within = _extra(inner, _MESSAGE)
    if within:
        members[name] = within
    return _json(members)


def _json(members: Mapping[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")) if members else ""


def read_usage(usage: Any) -> Usage:
    """OpenAI's counts overlap (cached is part of prompt, reasoning part of completion); ours are disjoint."""
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached, written = prompt.get("cached_tokens") or 0, prompt.get("cache_write_tokens") or 0
    reasoning = completion.get("reasoning_tokens") or 0
    return Usage(
        input_tokens=max(usage["prompt_tokens"] - cached - written, 0),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=max(usage["completion_tokens"] - reasoning, 0),
        reasoning_tokens=reasoning,
        source=UsageSource.REPORTED,
        reported_json=_json(_extra(usage, frozenset())),
    )


def _read_logprobs(logprobs: Json | None) -> Logprobs | None:
    if logprobs is None or not (logprobs.get("content") or logprobs.get("refusal")):
        return None
    return Logprobs(
        content=tuple(_token_logprob(token) for token in logprobs.get("content") or ()),
        refusal=tuple(_token_logprob(token) for token in logprobs.get("refusal") or ()),
    )


def _token_logprob(token: Json) -> TokenLogprob:
    top = token.get("top_logprobs") or ()
    return TokenLogprob(
        token=token["token"],
        logprob=token["logprob"],
        token_bytes=_bytes(token.get("bytes")),
        top=tuple(TopLogprob(each["token"], each["logprob"], _bytes(each.get("bytes"))) for each in top),
    )


def _bytes(values: list[int] | None) -> bytes | None:
    return None if values is None else bytes(values)


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return value or ""


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
