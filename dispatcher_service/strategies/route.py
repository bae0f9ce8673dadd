"""`route`: a model is chosen before any is called, and its answer is given (RouteLLM)."""

from collections.abc import AsyncGenerator

from dispatcher_service.answer import Completion
from dispatcher_service.attempts import Attempts
from dispatcher_service.choosing import Chooser
from dispatcher_service.outcome import Choice
from dispatcher_service.progress import Progress
from dispatcher_service.strategies import Piece


class Route:
    """Implements `Strategy`."""

    def __init__(self, *, chooser: Chooser, attempts: Attempts) -> None:
        self._chooser = chooser
        self._attempts = attempts

    async def preview(self, progress: Progress) -> Choice:
        """The decision that would be made."""
        return await self._chooser.choose(progress, preview=True)

    async def complete(self, progress: Progress) -> Completion:
        """The chosen model's answer, or that of a model that stands in for it."""
        return await self._attempts.complete(progress.ask(await self._chooser.choose(progress)))

    async def stream(self, progress: Progress) -> AsyncGenerator[Piece, None]:
        """The same as it is written."""
        return self._attempts.stream(progress.ask(await self._chooser.choose(progress)))
