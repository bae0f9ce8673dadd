"""`cascade`: models are asked from the cheapest to the dearest until an answer is accepted (FrugalGPT).

With an `easy_alpha` or a `hard_alpha` it is the hybrid with routing: the prompt's win probability alone sends what is
clearly easy to the cheapest model and what is clearly hard to the strongest, each without a check.

Each stage's money is put aside before it is called, as for any other call. A stage without money or time, or whose
model does not answer, leaves the best of the answers that are there; what was paid for is given. Where a tool loop, a
sticky conversation, an override or the request's own alpha says who answers, there is nothing to cascade.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from dispatcher_service import cascading
from dispatcher_service.answer import Completion, End
from dispatcher_service.assembly import Assembly
from dispatcher_service.attempts import Attempts
from dispatcher_service.cascading import Zone
from dispatcher_service.choosing import Chooser, Opening
from dispatcher_service.outcome import Choice
from dispatcher_service.ports import Judge
from dispatcher_service.progress import Asked, Progress
from dispatcher_service.routing import AlphaSource, Reason
from dispatcher_service.strategies import Piece, Replaced
from dispatcher_service.strategies.climbing import Climb


class Cascade:
    """Implements `Strategy`."""

    def __init__(self, *, chooser: Chooser, attempts: Attempts, judge: Judge, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._chooser = chooser
        self._attempts = attempts
        self._judge = judge
        self._clock = clock

    async def preview(self, progress: Progress) -> Choice:
        """The model that would be asked first, or alone."""
        opened = await self._open(progress, preview=True)
        return opened.choice if isinstance(opened, Opening) else opened

    async def complete(self, progress: Progress) -> Completion:
        """The accepted answer, or the best one at hand."""
        opened = await self._open(progress)
        if isinstance(opened, Choice):
            return await self._attempts.complete(progress.ask(opened))
        climb = self._climb(progress, opened)
        at_hand: list[Completion] = []
        while (asked := climb.next()) is not None:
            with climb.asking(asked):
                completion = await self._attempts.complete(asked)
                if await climb.accepts(asked, completion):
                    return completion
                at_hand.append(completion)
        return at_hand[climb.fall_back()]

    async def stream(self, progress: Progress) -> AsyncGenerator[Piece, None]:
        """The same: at once when it is accepted, or as it is written, with what replaces it."""
        opened = await self._open(progress)
        if isinstance(opened, Choice):
            return self._attempts.stream(progress.ask(opened))
        return self._streamed(progress, self._climb(progress, opened))

    async def _streamed(self, progress: Progress, climb: Climb) -> AsyncGenerator[Piece, None]:
        live = progress.request.accept_replacement
        shown: Asked | None = None
        at_hand: list[tuple[Asked, Assembly, End]] = []
        while (asked := climb.next()) is not None:
            assembly = Assembly()
            with climb.asking(asked):
                async with contextlib.aclosing(self._attempts.stream(asked)) as events:
                    async for event in events:
                        if isinstance(event, End):
                            end = event
                            continue
                        assembly.add(event)
                        if live:
                            if shown is not None and shown is not asked:
                                yield Replaced(progress.answered)
                            shown = asked
                            yield event
                if await climb.accepts(asked, assembly.completion(end)):
                    break
                at_hand.append((asked, assembly, end))
        else:
            asked, assembly, end = at_hand[climb.fall_back()]
        if shown is not asked:
            if shown is not None:
                yield Replaced(progress.answered)
            for delta in assembly.deltas:
                yield delta
        yield end

    def _climb(self, progress: Progress, opening: Opening) -> Climb:
        return Climb(progress, opening, judge=self._judge, clock=self._clock)

    async def _open(self, progress: Progress, *, preview: bool = False) -> Choice | Opening:
        """What the prompt alone decides, or where the cascade begins."""
        policy = progress.policy.cascade
        assert policy is not None
        opened = await self._chooser.open(progress, Reason.CASCADE, predict=policy.looks_ahead, preview=preview)
        if isinstance(opened, Choice) or opened.choice.decision.win_probability is None:
            return opened
        zone = cascading.zone(
            opened.choice.decision.win_probability, easy_alpha=policy.easy_alpha, hard_alpha=policy.hard_alpha
        )
        if zone is Zone.HARD:
            return _alone(opened, opened.rungs[-1], Reason.AT_OR_ABOVE_ALPHA, policy.hard_alpha)
        if zone is Zone.EASY:
            return _alone(opened, opened.rungs[0], Reason.BELOW_ALPHA, policy.easy_alpha)
        return opened


def _alone(opening: Opening, rung: int, reason: Reason, alpha: float) -> Choice:
    """One model, without a check."""
    choice = opening.choice.on_rung(rung, reason)
    return replace(choice, decision=replace(choice.decision, alpha=alpha), alpha_source=AlphaSource.FIXED)
