"""The scorer inside the dispatcher's own process, for small deployments: the same artefact, the same numbers.

The one place where a service imports the other. Nothing imports this module but `scorer_opening.py`, and that only when
the configuration asks for it (extra `embedded`). It scores on a thread of its own; the event loop only waits. A large
model belongs in a service: here it would take the dispatcher's processors.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dispatcher_service import chat as chats
from dispatcher_service.chat import Chat
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorers import NoPrediction
from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError
from scorer_service.preprocess import NoUserText, Role, Turn
from scorer_service.scorer import ConversationScorer, open_scorer

NAME = "default"
"""What the artefact is called in predictions, as the scorer service calls its shipped one."""

MAX_WAITING = 64
"""Conversations that may wait for the thread; more get no prediction. Of the shipped artefact these take 20 ms."""

_ROLES = {
    chats.Role.SYSTEM: Role.SYSTEM,
    chats.Role.DEVELOPER: Role.SYSTEM,
    chats.Role.USER: Role.USER,
    chats.Role.ASSISTANT: Role.ASSISTANT,
    chats.Role.TOOL: Role.TOOL,
}


class CannotEmbed(Exception):
    """The artefact cannot be served. The message is one line that says why and what to do."""


class EmbeddedScorer:
    """Implements `scorers.Predictor`."""

    def __init__(self, scorer: ConversationScorer) -> None:
        """`scorer` has proved its golden rows; see `open_embedded`."""
        self._scorer = scorer
        self._quantiles = tuple(scorer.manifest.score_quantiles)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-scorer")
        self._waiting = 0

    async def predict(
        self, chat: Chat, *, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction:
        """See `scorers.Predictor.predict`."""
        if scorer not in ("", NAME):
            raise NoPrediction("NOT_FOUND", f"the embedded scorer is called {NAME!r}, not {scorer!r}")
        if self._waiting >= MAX_WAITING:
            raise NoPrediction("RESOURCE_EXHAUSTED", f"{self._waiting} conversations wait for the embedded scorer")
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._predict, chat, pair, every_model)
        try:
            # Work that has not begun by then is taken back, work that has is finished unseen.
            return await asyncio.wait_for(work, timeout)
        except TimeoutError as error:
            raise NoPrediction("DEADLINE_EXCEEDED", f"not within {timeout:g} s") from error
        except ArithmeticError as error:
            raise NoPrediction("SICK", str(error)) from error
        finally:
            self._waiting -= 1

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict:
        """Not here: `tenants.py` lets no strategy that needs it come this far."""
        raise NoPrediction("UNIMPLEMENTED", "answers are judged by a scorer service")

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking:
        """As `score_answer`."""
        raise NoPrediction("UNIMPLEMENTED", "answers are judged by a scorer service")

    async def close(self) -> None:
        """Stop the thread."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _predict(self, chat: Chat, pair: ModelPair, every_model: bool) -> Prediction:
        turns = [Turn(_ROLES[message.role], message.text) for message in chat.messages]
        try:
            passage = self._scorer.preprocessor.passage(turns)
        except NoUserText as error:
            raise NoPrediction("INVALID_ARGUMENT", "no user turn with text that is not blank") from error
        own, asked = self._scorer.onnx.pair, (pair.strong, pair.weak)
        takes_pairs = self._scorer.onnx.takes_pairs
        if takes_pairs and not {*asked} <= {*self._scorer.manifest.models}:
            raise NoPrediction("NOT_FOUND", f"the embedded scorer does not know {pair.strong!r} and {pair.weak!r}")
        scored = self._scorer.score([passage], [asked if takes_pairs else own])
        by_model = scored.scores.model_win_probabilities if every_model else None
        over_strong = [] if by_model is None else by_model[0].tolist()
        return Prediction(
            win_probability=float(scored.scores.win_probability[0]),
            scorer=NAME,
            scorer_version=self._scorer.artifact.version,
            pair_mismatch=not takes_pairs and asked != own,
            quantiles=self._quantiles,
            beaten=dict(zip(self._scorer.manifest.models, (1.0 - each for each in over_strong), strict=False)),
        )


def open_embedded(artifact: str, *, threads: int = 1) -> EmbeddedScorer:
    """Load, check and prove an artefact. Takes a second and blocks: call it in a thread.

    Args:
        artifact: its directory; empty for the shipped one.
        threads: that work on one run of the model.

    Raises:
        CannotEmbed: it cannot be served.
    """
    directory = Path(artifact) if artifact else Path(artifacts.__file__).parent / "artifacts" / NAME
    try:
        return EmbeddedScorer(open_scorer(directory, threads=threads))
    except ArtifactError as error:
        raise CannotEmbed(f"{error} ({directory})") from error
