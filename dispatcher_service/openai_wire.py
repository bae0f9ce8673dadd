"""From OpenAI's chat completions, as parsed JSON, to our values: answers and pieces of answers.

Nothing has validated what is read here: an answer in another shape fails with ValueError, TypeError, AttributeError,
KeyError or IndexError, and `upstream_errors` translates them. Members that have no field of ours are kept as they came.
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

Json = Mapping[str, Any]

_ANSWER: Final = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "choices", "usage", "obfuscation"}
)
"""Members of an answer that have a field of ours, or none because they say nothing: `obfuscation` is padding."""
_CHOICE: Final = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
_MESSAGE: Final = frozenset({"role", "content", "refusal", "tool_calls"})
_NOTHING: Final[Json] = {}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def read_completion(answer: Json) -> Completion:
    """A whole answer."""
    choices, usage = answer["choices"], answer.get("usage")
    if not choices:
        raise ValueError("an answer without choices")
    return Completion(
        choices=tuple(sorted(map(_read_choice, choices), key=lambda choice: choice.index)),
        usage=None if usage is None else read_usage(usage),
        origin=read_origin(answer, extra_of_answer(answer)),
    )


def _read_choice(choice: Json) -> Choice:
    message, reason = choice["message"], choice["finish_reason"]
    return Choice(
        index=read_index(choice),
        content=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        tool_calls=tuple(_read_call(call) for call in message.get("tool_calls") or ()),
        finish_reason=read_finish_reason(reason),
        upstream_finish_reason=unknown_word(reason),
        logprobs=_read_logprobs(choice.get("logprobs")),
        extra_json=_extra_json(choice, "message", message),
    )


def _read_call(call: Json) -> ToolCall:
    if call.get("type") == "custom":
        custom = call["custom"]
        return ToolCall(id=_text(call["id"]), name=_text(custom["name"]), arguments=_text(custom["input"]), custom=True)
    function = call["function"]
    return ToolCall(id=_text(call["id"]), name=_text(function["name"]), arguments=_text(function["arguments"]))


def _read_call_delta(call: Json) -> ToolCallDelta:
    custom = call.get("custom")
    piece, key = (call.get("function") or _NOTHING, "arguments") if custom is None else (custom, "input")
    return ToolCallDelta(
        index=read_index(call),
        id=_text(call.get("id")),
        name=_text(piece.get("name")),
        arguments=_text(piece.get(key)),
        custom=custom is not None,
    )


def read_delta(choice: Json) -> Delta | None:
    """The piece that one choice of a chunk brings; `None` if it brings nothing to show."""
    piece = choice["delta"]
    content, refusal = _text(piece.get("content")), _text(piece.get("refusal"))
    calls = piece.get("tool_calls")
    logprobs = _read_logprobs(choice.get("logprobs"))
    extra_json = _extra_json(choice, "delta", piece)
    if not (content or refusal or calls or logprobs or extra_json):
        return None
    return Delta(
        index=read_index(choice),
        content=content,
        refusal=refusal,
        tool_calls=tuple(map(_read_call_delta, calls)) if calls else (),
        logprobs=logprobs,
        extra_json=extra_json,
    )


def read_index(piece: Json) -> int:
    """Which choice, or which tool call of it, this belongs to."""
    index = piece["index"]
    if type(index) is not int or index < 0:
        raise TypeError(f"an index is expected, not {index!r:.20}")
    return index


def read_finish_reason(text: str | None) -> FinishReason:
    """OpenAI's word for it; a word that we do not know is `UNKNOWN`."""
    try:
        return FinishReason(text)
    except ValueError:
        return FinishReason.UNKNOWN


def unknown_word(text: str | None) -> str:
    """The upstream's finish reason where it is none of ours, else empty."""
    return _text(text) if text and read_finish_reason(text) is FinishReason.UNKNOWN else ""


def read_origin(answer: Json, beside: Json) -> Origin:
    """What the upstream says of its answer; `beside` is what it says that has no field."""
    return Origin(
        completion_id=_text(answer.get("id")),
        model=_text(answer.get("model")),
        system_fingerprint=_text(answer.get("system_fingerprint")),
        created=int(answer.get("created") or 0),
        extra_json=_json(beside),
    )


def extra_of_answer(answer: Json) -> Json:
    """The members of an answer or a chunk, beside its choices, that have no field of ours."""
    return _extra(answer, _ANSWER)


def _extra(members: Json, known: frozenset[str]) -> Json:
    """The members that have no field of ours, without those that say nothing."""
    if members.keys() <= known:
        return _NOTHING
    return {name: value for name, value in members.items() if name not in known and value is not None}


def _extra_json(choice: Json, name: str, inner: Json) -> str:
    members, within = _extra(choice, _CHOICE), _extra(inner, _MESSAGE)
    return _json({**members, name: within} if within else members)


def _json(members: Json) -> str:
    return _ENCODER.encode(members) if members else ""


def read_usage(usage: Json) -> Usage:
    """OpenAI's counts overlap (cached is part of prompt, reasoning part of completion); ours are disjoint."""
    prompt = usage.get("prompt_tokens_details") or _NOTHING
    completion = usage.get("completion_tokens_details") or _NOTHING
    cached, written = _count(prompt.get("cached_tokens")), _count(prompt.get("cache_write_tokens"))
    reasoning = _count(completion.get("reasoning_tokens"))
    return Usage(
        input_tokens=max(_count(usage["prompt_tokens"]) - cached - written, 0),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=max(_count(usage["completion_tokens"]) - reasoning, 0),
        reasoning_tokens=reasoning,
        source=UsageSource.REPORTED,
        reported_json=_json({name: value for name, value in usage.items() if value is not None}),
    )


def _read_logprobs(logprobs: Any) -> Logprobs | None:
    if not logprobs:
        return None
    content, refusal = logprobs.get("content") or (), logprobs.get("refusal") or ()
    if not (content or refusal):
        return None
    return Logprobs(content=tuple(map(_token_logprob, content)), refusal=tuple(map(_token_logprob, refusal)))


def _token_logprob(token: Json) -> TokenLogprob:
    return TokenLogprob(
        token=_text(token["token"]),
        logprob=float(token["logprob"]),
        token_bytes=_bytes(token.get("bytes")),
        top=tuple(
            TopLogprob(_text(top["token"]), float(top["logprob"]), _bytes(top.get("bytes")))
            for top in token.get("top_logprobs") or ()
        ),
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        raise TypeError(f"a text is expected, not a {type(value).__name__}")
    return value


def _count(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise TypeError(f"a count is expected, not {value!r:.20}")
    return value


def _bytes(values: list[int] | None) -> bytes | None:
    return None if values is None else bytes(values)
