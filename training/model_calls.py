"""Calls of models for labels, through an OpenAI-compatible endpoint: bounded in time, counted in money."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import openai
from openai import AsyncOpenAI, DefaultAioHttpClient

from dispatcher_service.pricing import NanoUsd, Price, Usage, UsageSource, cost

ATTEMPTS = 3
_FATAL = (401, 403, 404)
"""Statuses that the next prompt would get too."""
_PASSING = (408, 409, 429)
"""Statuses that may be another one soon, like those of 500 and more. The rest are this prompt's fault."""
_FIRST_PAUSE = 1.0
_MOST_TOKENS = 1024


class LabelError(Exception):
    """The run cannot go on. The message says why and what to do; what is labelled so far is kept."""


class Unfinished(Exception):
    """One prompt has no label this time. The message says why."""


@dataclass(slots=True)
class Tally:
    """A run so far."""

    labelled: int = 0
    failed: int = 0
    resumed: int = 0
    calls: int = 0
    spent: NanoUsd = 0
    last_failure: str = ""


class Chat(Protocol):
    """Asks a model and returns its text with what that cost."""

    async def __call__(self, model: str, messages: Sequence[Mapping[str, str]]) -> tuple[str, NanoUsd]: ...


class Endpoint:
    """`Chat` over HTTP. An async context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        prices: Mapping[str, Price],
        *,
        timeout: float,
        tally: Tally,
        max_tokens_parameter: str = "max_completion_tokens",
    ) -> None:
        """
        Args:
            base_url: of the OpenAI-compatible API, ending in /v1 as a rule.
            api_key: `None` where the endpoint wants none.
            prices: of every model that is called.
            timeout: seconds for one call.
            tally: counts calls and money.
            max_tokens_parameter: what the endpoint calls the bound of an answer.
        """
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,  # Ours to count.
            timeout=timeout,
            http_client=DefaultAioHttpClient(),
        )
        self._prices = prices
        self._timeout = timeout
        self._bound = {max_tokens_parameter: _MOST_TOKENS}
        self._tally = tally

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def __call__(self, model: str, messages: Sequence[Mapping[str, str]]) -> tuple[str, NanoUsd]:
        """Ask once, and again after a passing failure.

        Raises:
            LabelError: the endpoint refuses what every other prompt would ask too.
            Unfinished: it does not answer.
        """
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                # The client's own timeout is for each read, not for the call.
                async with asyncio.timeout(self._timeout):
                    completion = await self._client.chat.completions.create(
                        model=model,
                        messages=list(messages),  # type: ignore[arg-type]
                        extra_body=self._bound,
                    )
                return self._read(model, completion)
            except openai.APIStatusError as error:
                problem = f"{model}: HTTP {error.status_code} ({error.message})"
                if error.status_code in _FATAL:
                    raise LabelError(f"{problem}: check the address, the key and the model's name") from error
                if error.status_code < 500 and error.status_code not in _PASSING:
                    break
            except (openai.APIError, TimeoutError, OSError) as error:
                problem = f"{model}: {str(error) or 'no answer in time'}"
            except (ValueError, TypeError, AttributeError, IndexError) as error:
                problem = f"{model}: answered what is no chat completion ({error})"
        raise Unfinished(problem)

    def _read(self, model: str, completion: Any) -> tuple[str, NanoUsd]:
        text, usage = completion.choices[0].message.content, completion.usage
        if not isinstance(text, str) or usage is None:
            raise ValueError("no text" if usage is not None else "no usage, so that its cost is unknown")
        details = usage.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details is not None else 0
        tokens = Usage(
            input_tokens=usage.prompt_tokens - cached,
            cached_input_tokens=cached,
            output_tokens=usage.completion_tokens,  # reasoning is among them, at the same price
            source=UsageSource.REPORTED,
        )
        spent = cost(self._prices[model], tokens)
        self._tally.calls += 1
        self._tally.spent += spent
        return text, spent
