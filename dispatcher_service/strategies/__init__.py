"""How a tenant's requests come to an answer: one module per strategy, and what they have in common here.

A strategy says which models are asked, in what order, and whose answer is given. Deployments, retries and money are
the business of `attempts`; tool loops, sticky conversations and operators' overrides that of `choosing`. A strategy
holds no state between requests.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.outcome import Choice
from dispatcher_service.progress import Progress

Piece = Delta | End


class Strategy(Protocol):
    """One way to an answer. Whose it is, is in `progress.choice`."""

    async def preview(self, progress: Progress) -> Choice:
        """Who would be asked first, and why. Asks nobody and moves nothing."""

    async def complete(self, progress: Progress) -> Completion:
        """The whole answer.

        Raises:
            PointsmanError: there is none.
        """

    async def stream(self, progress: Progress) -> AsyncGenerator[Piece, None]:
        """The answer as it is written, once it is known whom to ask: deltas, then exactly one end.

        Raises:
            PointsmanError: there is none; the generator raises what comes later.
        """
