"""What the use case needs from the world. Adapters implement these, `__main__` passes them in."""

from collections.abc import AsyncGenerator
from typing import Protocol

from dispatcher_service.answer import Completion, Delta, End
from dispatcher_service.catalogue import Deployment
from dispatcher_service.chat import Chat
from dispatcher_service.outcome import Prediction
from dispatcher_service.routing import ModelPair


class Scorer(Protocol):
    """Predicts win probabilities."""

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, scorer: str, timeout: float
    ) -> Prediction | None:
        """Answer within `timeout` seconds, or `None` for whatever reason there is no prediction."""


class Upstream(Protocol):
    """Calls models. Failures are `UpstreamError`s."""

    async def complete(self, deployment: Deployment, chat: Chat, *, timeout: float) -> Completion:
        """The whole answer, within `timeout` seconds."""

    def stream(self, deployment: Deployment, chat: Chat, *, timeout: float) -> AsyncGenerator[Delta | End, None]:
        """Deltas, then exactly one end. Closing the generator cancels the upstream's work."""
