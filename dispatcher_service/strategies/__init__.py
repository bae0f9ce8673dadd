"""How a tenant's requests come to an answer: one module per strategy, and what they have in common here.

A strategy says which models are asked, in what order, and whose answer is given. Deployments, retries and money are
the business of `attempts`; tool loops, sticky conversations and operators' overrides that of `choosing`. A strategy
holds no state between requests.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.outcome import Choice
from dispatcher_service.progress import Progress


@dataclass(frozen=True, slots=True)
class Replaced:
    """What came of a stream is void: another model's answer begins."""

    choice: Choice


RETURN_SECONDS = 0.1
"""Of the caller's deadline: kept back for the way home of an answer that is there."""

Piece = Delta | Replaced | End
"""Of a streamed answer. `Replaced` comes only where the request accepts it."""


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
        """The answer as it is written, once it is known whom to ask: pieces, the last of which is its end.

        Raises:
            PointsmanError: there is none; the generator raises what comes later.
        """
