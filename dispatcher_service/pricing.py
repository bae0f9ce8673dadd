"""Tokens to money. Money is integer nano-USD, prices integer nano-USD per million tokens; no float holds money."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatcher_service.closed_set import ClosedSet

NanoUsd = int
"""Billionths of a US dollar."""

NANO_USD_PER_USD = 1_000_000_000
_TOKENS_PER_PRICE = 1_000_000
_BYTES_PER_ESTIMATED_TOKEN = 4


class UsageSource(ClosedSet):
    """Where token counts come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in disjoint classes: their sum is what was processed."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    source: UsageSource
    reported_json: str = field(default="", compare=False)
    """The upstream's own usage object, where the counts come from; empty if it reported none."""

    @property
    def total(self) -> int:
        """Tokens of all classes."""
        return (
            self.input_tokens
            + self.cached_input_tokens
            + self.cache_write_tokens
            + self.output_tokens
            + self.reasoning_tokens
        )

    def by_class(self) -> dict[str, int]:
        """Counts by the name of their class, which is also a metric label."""
        return {
            "input": self.input_tokens,
            "cached_input": self.cached_input_tokens,
            "cache_write": self.cache_write_tokens,
            "output": self.output_tokens,
            "reasoning": self.reasoning_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, by class, from a moment on. Unit: nano-USD per million tokens.

    `effective_from` is in seconds since the epoch; 0 means ever since.
    """

    input: NanoUsd
    cached_input: NanoUsd
    cache_write: NanoUsd
    output: NanoUsd
    reasoning: NanoUsd
    effective_from: int = 0
    version: str = field(init=False, repr=False, compare=False)
    """Names these numbers and their date: equal for equal prices, on every host."""

    def __post_init__(self) -> None:
        numbers = (self.effective_from, self.input, self.cached_input, self.cache_write, self.output, self.reasoning)
        object.__setattr__(self, "version", hashlib.sha256(repr(numbers).encode()).hexdigest()[:12])


def price_at(prices: Sequence[Price], now: float) -> Price:
    """The price in force at a time in seconds since the epoch.

    `prices` ascend by `effective_from`, at least one. Before the first begins, the first holds: a model is never free.
    """
    latest = prices[-1]
    if latest.effective_from <= now:  # as good as always: asked for every model on every call
        return latest
    return next((price for price in reversed(prices) if price.effective_from <= now), prices[0])


def cost(price: Price, usage: Usage) -> NanoUsd:
    """The cost of one call: `ceil(Σ tokens · price / 10⁶)`, rounded once, up, so that many calls never sum low."""
    total = (
        usage.input_tokens * price.input
        + usage.cached_input_tokens * price.cached_input
        + usage.cache_write_tokens * price.cache_write
        + usage.output_tokens * price.output
        + usage.reasoning_tokens * price.reasoning
    )
    return -(-total // _TOKENS_PER_PRICE)


def plain_costs(prices: Sequence[Price], input_tokens: Sequence[int], output_tokens: Sequence[int]) -> list[NanoUsd]:
    """The costs of calls without cached or reasoning tokens, each rounded up alike."""
    return [
        -(-(read * price.input + written * price.output) // _TOKENS_PER_PRICE)
        for price, read, written in zip(prices, input_tokens, output_tokens, strict=True)
    ]


def estimate_usage(*, prompt_bytes: int, answer_bytes: int) -> Usage:
    """Token counts for a call whose upstream reported none: one token per 4 UTF-8 bytes of text, rounded up.

    English prose has about 4 bytes per token in common byte-pair vocabularies. Code and other scripts have fewer,
    so that the estimate may be low for them: it is marked as one, and counted.
    """
    return Usage(
        input_tokens=-(-prompt_bytes // _BYTES_PER_ESTIMATED_TOKEN),
        output_tokens=-(-answer_bytes // _BYTES_PER_ESTIMATED_TOKEN),
        source=UsageSource.ESTIMATED,
    )
