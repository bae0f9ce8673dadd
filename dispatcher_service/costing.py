"""What an attempt may cost at most, and what it is expected to cost, before it is made."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def output_bound(model: Model, asked: int | None) -> int | None:
    """The most tokens of one answer: the `max_tokens` that was asked, else the model's; `None` if nothing bounds it."""
    return model.max_output_tokens if asked is None else asked


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
    output_tokens = output_bound(model, chat.max_tokens)
    if output_tokens is None:
        return None
    most = budget.worst_case(
        price, prompt_tokens=prompt_bound(model, chat), output_tokens=output_tokens, answers=chat.choices
    )
    return min(most, _MOST)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What of a request every model's estimates are made from: read once, and then asked about any number of models.

    Attributes:
        text_tokens: about how many its text is. Its bound would shut out a model at a quarter of its window.
        parts: path and kind of every part that is not text.
        answers: how many are asked for.
        max_tokens: the most of one answer that the request allows; `None` leaves that to the model.
    """

    text_tokens: int
    parts: tuple[tuple[str, PartKind], ...]
    answers: int
    max_tokens: int | None

    @classmethod
    def of(cls, chat: Chat) -> "Prompt":
        """Of a conversation."""
        text = pricing.estimate_usage(prompt_bytes=chat.text_bytes, answer_bytes=0).input_tokens
        return cls(text, tuple(chat.other_parts()), chat.choices, chat.max_tokens)

    def tokens(self, model: Model) -> int:
        """About how many tokens it is for a model."""
        if not self.parts:
            return self.text_tokens
        return self.text_tokens + sum(model.part_tokens.get(kind, 0) for _, kind in self.parts)

    def context(self, model: Model) -> int:
        """About how many tokens of a model's context window it takes with its longest answer."""
        return self.tokens(model) + (output_bound(model, self.max_tokens) or 0)


class Expectations:
    """Expected costs: the length of answers is the running mean of the model's, and 256 tokens before the first.

    It belongs to one process and begins anew with it: pacing corrects it whenever a call is settled.
    """

    def __init__(self) -> None:
        self._output_tokens: dict[str, float] = {}

    def costs(self, models: Sequence[Model], prices: Sequence[Price], prompt: Prompt) -> tuple[NanoUsd, ...]:
        """What one attempt at each model is expected to cost: no more than its worst case."""
        known = self._output_tokens
        answers = [known.get(model.name, _FIRST_GUESS) for model in models]
        bounds = [output_bound(model, prompt.max_tokens) for model in models]
        outputs = [
            round(answer if bound is None or answer < bound else bound) * prompt.answers
            for answer, bound in zip(answers, bounds, strict=True)
        ]
        inputs = [prompt.tokens(model) for model in models] if prompt.parts else [prompt.text_tokens] * len(models)
        costs = pricing.plain_costs(prices, inputs, outputs)
        return tuple(costs if max(costs) <= _MOST else [min(cost, _MOST) for cost in costs])

    def observe(self, model: Model, usage: Usage, answers: int) -> None:
        """A model gave this many answers."""
        tokens = (usage.output_tokens + usage.reasoning_tokens) / answers
        known = self._output_tokens.get(model.name)
        self._output_tokens[model.name] = tokens if known is None else known + (tokens - known) / _MEMORY


def _part_tokens(model: Model, chat: Chat) -> int:
    return sum([model.part_tokens.get(kind, 0) for _, kind in chat.other_parts()])
