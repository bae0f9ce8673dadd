"""What of an answer is judged, and what needs no judge."""

import json

from dispatcher_service.answer import Completion
from dispatcher_service.chat import Chat, JsonSchemaFormat, PlainFormat

UNUSABLE = 0.0
"""The acceptance probability of an answer that is blank, or not the JSON that was asked for."""


def calls_tools(completion: Completion) -> bool:
    """Whether it is not an answer yet: nobody can judge calls whose results are not there."""
    return any(choice.tool_calls for choice in completion.choices)


def texts(completion: Completion) -> tuple[str, ...]:
    """What is judged: of each choice its content, or its refusal where it has none."""
    return tuple(choice.content or choice.refusal for choice in completion.choices)


def usable(text: str, chat: Chat) -> bool:
    """Whether a judge has anything to say: a blank answer is none, nor is broken JSON where JSON was asked for."""
    if not text.strip():
        return False
    if chat.response_format is not PlainFormat.JSON_OBJECT and not isinstance(chat.response_format, JsonSchemaFormat):
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
