"""The scorers of the configuration in force: opened anew when `[scorer]` changes, while requests go on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from dispatcher_service.breaker import BreakerState
from dispatcher_service.chat import Chat
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorer_targets import ScorerTarget
from dispatcher_service.scorers import Scorers

_MARGIN_SECONDS = 1.0

Open = Callable[[ScorerTarget], Awaitable[Scorers]]
"""Opens the scorers of a configuration; what it raises leaves the old ones in place."""

Watch = Callable[[Mapping[str, Callable[[], BreakerState]]], None]
"""Is shown the breakers of newly opened scorers, by name."""


class LiveScorers:
    """Implements `ports.Scorer` and `ports.Judge`."""

    def __init__(self, target: ScorerTarget, scorers: Scorers, *, open_: Open, watch: Watch) -> None:
        """Takes over `scorers`, which were opened for `target`."""
        self._target = target
        self._scorers = scorers
        self._open = open_
        self._watch = watch
        self._old: list[Scorers] = []
        self._closing: set[asyncio.Task[None]] = set()
        watch(scorers.breakers())

    @classmethod
    async def opened(cls, target: ScorerTarget, *, open_: Open, watch: Watch) -> "LiveScorers":
        """The scorers of the configuration at the start. Raises what `open_` raises."""
        return cls(target, await open_(target), open_=open_, watch=watch)

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction | None:
        """See `ports.Scorer.score`."""
        return await self._scorers.score(
            chat, tenant_id=tenant_id, pair=pair, every_model=every_model, scorer=scorer, timeout=timeout
        )

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict | None:
        """See `ports.Judge.score_answer`."""
        return await self._scorers.score_answer(chat, answer, scorer=scorer, timeout=timeout)

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking | None:
        """See `ports.Judge.rank_answers`."""
        return await self._scorers.rank_answers(chat, answers, scorer=scorer, timeout=timeout)

    async def follow(self, target: ScorerTarget) -> None:
        """Go over to a configuration's scorers, if they are others. Raises what opening them raises."""
        if target == self._target:
            return
        opened = await self._open(target)
        longest = max(self._target.timeout, self._target.answer_timeout)
        old, patience = self._scorers, longest + _MARGIN_SECONDS
        self._target, self._scorers = target, opened
        self._watch(opened.breakers())
        # What was asked for before has its answer by then.
        self._old.append(old)
        task = asyncio.create_task(self._close_later(old, patience))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all of them."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for scorers in (*self._old, self._scorers):
            await scorers.close()

    async def _close_later(self, scorers: Scorers, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._old.remove(scorers)
        await scorers.close()
