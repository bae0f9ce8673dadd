"""From OpenAI's chat completions to our values: answers and pieces of answers.

The client library does not validate what it parses, so that an upstream that answers in another shape fails here, with
ValueError, TypeError or AttributeError; `upstream` translates them.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from openai import BaseModel
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage

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

_ANSWER: Final = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "choices", "usage", "obfuscation"}
)
"""Members of an answer that have a field of ours, or none because they say nothing: `obfuscation` is padding."""
_CHOICE: Final = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
_MESSAGE: Final = frozenset({"role", "content", "refusal", "tool_calls"})


def read_completion(completion: ChatCompletion) -> Completion:
    """A whole answer."""
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise ValueError("not a chat completion")
    return Completion(
        choices=tuple(sorted(map(_read_choice, completion.choices), key=lambda choice: choice.index)),
        usage=None if completion.usage is None else read_usage(completion.usage),
        origin=read_origin(completion, extra(completion, _ANSWER)),
    )


def _read_choice(choice: Any) -> Choice:
    message = choice.message
    calls = tuple(_read_call(call) for call in message.tool_calls or ())
    return Choice(
        index=choice.index,
        content=message.content or "",
        refusal=message.refusal or "",
        tool_calls=calls,
        finish_reason=read_finish_reason(choice.finish_reason),
        upstream_finish_reason=unknown_word(choice.finish_reason),
        logprobs=_read_logprobs(choice.logprobs),
        extra_json=_extra_json(choice, "message", message),
    )


def _read_call(call: Any) -> ToolCall:
    if call.type == "custom":
        return ToolCall(id=call.id, name=call.custom.name, arguments=call.custom.input, custom=True)
    return ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)


def _read_call_delta(call: Any) -> ToolCallDelta:
    # The package's chunks know functions only: a custom tool's piece is a member that it keeps as it came.
    custom = (call.model_extra or {}).get("custom")
    if custom is not None:
        name, arguments = custom.get("name"), custom.get("input")
    else:
        name, arguments = (call.function.name, call.function.arguments) if call.function else (None, None)
    return ToolCallDelta(
        index=call.index, id=call.id or "", name=name or "", arguments=arguments or "", custom=custom is not None
    )


def read_delta(choice: Any) -> Delta | None:
    """The piece that one choice of a chunk brings; `None` if it brings nothing to show."""
    piece = choice.delta
    calls = tuple(_read_call_delta(call) for call in piece.tool_calls or ())
    logprobs = _read_logprobs(choice.logprobs)
    extra_json = _extra_json(choice, "delta", piece)
    if not (piece.content or piece.refusal or calls or logprobs or extra_json):
        return None
    return Delta(
        index=choice.index,
        content=piece.content or "",
        refusal=piece.refusal or "",
        tool_calls=calls,
        logprobs=logprobs,
        extra_json=extra_json,
    )


def read_finish_reason(text: str) -> FinishReason:
    """OpenAI's word for it; a word that we do not know is `UNKNOWN`."""
    try:
        return FinishReason(text)
    except ValueError:
        return FinishReason.UNKNOWN


def unknown_word(text: str | None) -> str:
    """The upstream's finish reason where it is none of ours, else empty."""
    return text if text and read_finish_reason(text) is FinishReason.UNKNOWN else ""


def read_origin(answer: ChatCompletion | ChatCompletionChunk, beside: Mapping[str, Any]) -> Origin:
    """What the upstream says of its answer; `beside` is what it says that has no field."""
    return Origin(
        completion_id=answer.id or "",
        model=answer.model or "",
        system_fingerprint=answer.system_fingerprint or "",
        created=answer.created or 0,
        extra_json=_json(beside),
    )


def extra_of_chunk(chunk: ChatCompletionChunk) -> dict[str, Any]:
    """The members of a chunk, beside its choices, that have no field of ours."""
    return extra(chunk, _ANSWER)


def extra(model: BaseModel, known: frozenset[str]) -> dict[str, Any]:
    """The members that have no field of ours, without those that say nothing."""
    names = (model.model_fields_set | (model.model_extra or {}).keys()) - known
    # Most answers have none: then nothing is dumped.
    found = {name: getattr(model, name) for name in names}
    if all(value is None for value in found.values()):
        return {}
    return model.model_dump(mode="json", include=set(names), exclude_none=True, warnings=False)


def _extra_json(choice: BaseModel, name: str, inner: BaseModel) -> str:
    members = extra(choice, _CHOICE)
    within = extra(inner, _MESSAGE)
    if within:
        members[name] = within
    return _json(members)


def _json(members: Mapping[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")) if members else ""


def read_usage(usage: CompletionUsage) -> Usage:
    """OpenAI's counts overlap (cached is part of prompt, reasoning part of completion); ours are disjoint."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = (prompt and prompt.cached_tokens) or 0
    written = (prompt and prompt.cache_write_tokens) or 0
    reasoning = (completion and completion.reasoning_tokens) or 0
    return Usage(
        input_tokens=max(usage.prompt_tokens - cached - written, 0),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=max(usage.completion_tokens - reasoning, 0),
        reasoning_tokens=reasoning,
        source=UsageSource.REPORTED,
        reported_json=usage.model_dump_json(exclude_unset=True, exclude_none=True, warnings=False),
    )


def _read_logprobs(logprobs: Any) -> Logprobs | None:
    if logprobs is None or not (logprobs.content or logprobs.refusal):
        return None
    return Logprobs(
        content=tuple(_token_logprob(token) for token in logprobs.content or ()),
        refusal=tuple(_token_logprob(token) for token in logprobs.refusal or ()),
    )


def _token_logprob(token: Any) -> TokenLogprob:
    return TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        token_bytes=_bytes(token.bytes),
        top=tuple(TopLogprob(top.token, top.logprob, _bytes(top.bytes)) for top in token.top_logprobs or ()),
    )


def _bytes(values: list[int] | None) -> bytes | None:
    return None if values is None else bytes(values)
