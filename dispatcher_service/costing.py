"""What an attempt may cost at most, and what it is expected to cost, before it is made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dispatcher_service import budget, pricing
from dispatcher_service.catalogue import Model
from dispatcher_service.chat import Chat, PartKind
from dispatcher_service.pricing import NanoUsd, Price, Usage

_TOKENS_PER_MESSAGE = 16
"""What templates put around a message or a tool. OpenAI's puts 3 or 4 there, the longest known ones some 10."""

_FIRST_GUESS = 256.0
_MEMORY = 200.0  # answers
_MOST: NanoUsd = 2**53 - 1
"""The ledger's largest amount, and so more than any limit holds."""


def with_output_bound(model: Model, chat: Chat) -> Chat:
    """The conversation as it is sent to a model: one that brings no `max_tokens` takes the model's."""
    if chat.max_tokens is not None or model.max_output_tokens is None:
        return chat
    return replace(chat, max_tokens=model.max_output_tokens)


def prompt_bound(model: Model, chat: Chat) -> int:
    """The most tokens that a conversation is for a model."""
    around = _TOKENS_PER_MESSAGE * (len(chat.messages) + len(chat.tools))
    return budget.prompt_bound(
        text_bytes=chat.text_bytes,
        overhead_tokens=model.prompt_overhead_tokens + around,
        part_tokens=_part_tokens(model, chat),
    )


def worst_case(model: Model, price: Price, chat: Chat) -> NanoUsd | None:
    """The most that one attempt can cost; `None` if neither the request nor the model bounds the answer."""
    output_tokens = with_output_bound(model, chat).max_tokens
    if output_tokens is None:
        return None
    most = budget.worst_case(
        price, prompt_tokens=prompt_bound(model, chat), output_tokens=output_tokens, answers=chat.choices
    )
    return min(most, _MOST)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What of a request every model's expected cost is made from."""

    text_tokens: int
    kinds: tuple[PartKind, ...]
    answers: int


def _expected_prompt(chat: Chat) -> _Prompt:
    text = pricing.estimate_usage(prompt_bytes=chat.text_bytes, answer_bytes=0).input_tokens
    return _Prompt(text, tuple(kind for _, kind in chat.other_parts()), chat.choices)


def expected_context(model: Model, chat: Chat) -> int:
    """About how many tokens of a model's context window a request takes, the most that it may answer included.

    The prompt is estimated like unreported usage: its bound would shut out a model at a quarter of its window.
    """
    prompt = pricing.estimate_usage(prompt_bytes=chat.text_bytes, answer_bytes=0).input_tokens
    return prompt + _part_tokens(model, chat) + (with_output_bound(model, chat).max_tokens or 0)


class Expectations:
    """Expected costs: the length of answers is the running mean of the model's, and 256 tokens before the first.

    It belongs to one process and begins anew with it: pacing corrects it whenever a call is settled.
    """

    def __init__(self) -> None:
        self._output_tokens: dict[str, float] = {}

    def cost(self, model: Model, price: Price, chat: Chat) -> NanoUsd:
        """What one attempt is expected to cost: no more than its worst case."""
        return self._cost(model, price, chat, _expected_prompt(chat))

    def costs(self, models: Sequence[Model], chat: Chat, *, at: float) -> tuple[NanoUsd, ...]:
        """The same of several models, at their prices of a time in seconds since the epoch."""
        prompt = _expected_prompt(chat)
        return tuple([self._cost(model, model.price_at(at), chat, prompt) for model in models])

    def _cost(self, model: Model, price: Price, chat: Chat, prompt: "_Prompt") -> NanoUsd:
        tokens = self._output_tokens.get(model.name, _FIRST_GUESS)
        bound = model.max_output_tokens if chat.max_tokens is None else chat.max_tokens
        if bound is not None:
            tokens = min(tokens, bound)
        input_tokens = prompt.text_tokens + sum(model.part_tokens.get(kind, 0) for kind in prompt.kinds)
        return min(pricing.plain_cost(price, input_tokens, round(tokens) * prompt.answers), _MOST)

    def observe(self, model: Model, usage: Usage, answers: int) -> None:
        """A model gave this many answers."""
        tokens = (usage.output_tokens + usage.reasoning_tokens) / answers
        known = self._output_tokens.get(model.name)
        self._output_tokens[model.name] = tokens if known is None else known + (tokens - known) / _MEMORY


def _part_tokens(model: Model, chat: Chat) -> int:
    return sum(model.part_tokens.get(kind, 0) for _, kind in chat.other_parts())
