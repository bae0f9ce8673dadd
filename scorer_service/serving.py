"""A predicting scorer of the process: a loaded artefact, its queues, and what may be asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scorer_service.artifact import Manifest
from scorer_service.batching import Batcher
from scorer_service.errors import InvalidRequest, NotFound
from scorer_service.lanes import LaneLimits, Lanes
from scorer_service.metrics import ScorerMetrics
from scorer_service.preprocess import NoUserText, Passage, Turn
from scorer_service.scorer import ConversationScorer, Pair


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation and the pair it is scored for.

    `calibrated` and `pair_mismatch` are those of `ScoreResponse`: they depend on the pair alone.
    """

    passage: Passage
    pair: Pair
    calibrated: bool
    pair_mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer to one question. The seconds are those of its whole batch.

    `model_win_probabilities` follows the manifest's `models`; empty if the artefact does not give them.
    """

    win_probability: float
    model_win_probabilities: Sequence[float]
    tokens: int
    truncated: bool
    tokenization_seconds: float
    inference_seconds: float


class ServedScorer:
    """One predicting artefact behind its queues. Its name in requests is `name`."""

    def __init__(self, name: str, scorer: ConversationScorer, *, metrics: ScorerMetrics, limits: LaneLimits) -> None:
        """Starts nothing yet."""
        self.name: Final = name
        self.version: Final = scorer.artifact.version
        self.manifest: Final[Manifest] = scorer.manifest
        self.metrics: Final = metrics
        self._scorer = scorer
        self._lanes = Lanes(self._run, limits=limits, observer=metrics)
        metrics.watch_queue(self._lanes.depth)

    def question(self, turns: Sequence[Turn], *, strong_model: str, weak_model: str, at: str) -> Question:
        """Turn a request into what is queued; an empty model name stands for the scorer's own.

        Args:
            turns: the conversation.
            strong_model: name asked for.
            weak_model: name asked for.
            at: the request's path in the call, such as `requests[3].`, for the errors.

        Raises:
            InvalidRequest: no user text, or one model on both sides.
            NotFound: a scorer of many models does not know the name.
        """
        try:
            passage = self._scorer.preprocessor.passage(turns)
        except NoUserText:
            raise InvalidRequest(f"{at}conversation.turns", "add a user turn with text that is not blank") from None
        own = self._scorer.onnx.pair
        asked = (strong_model or own[0], weak_model or own[1])
        calibrated = asked in self.manifest.calibrated_pairs
        if not self._scorer.onnx.takes_pairs:
            return Question(passage, own, calibrated, pair_mismatch=asked != own)
        for field, model in zip(("strong_model", "weak_model"), asked, strict=True):
            if model not in self.manifest.models:
                known = ", ".join(self.manifest.models)
                raise NotFound(f"{at}{field}", f"scorer {self.name!r} knows no such model; it knows {known}")
        if asked[0] == asked[1]:
            raise InvalidRequest(f"{at}weak_model", "name another model than strong_model")
        return Question(passage, asked, calibrated, pair_mismatch=False)

    def lane(self, question: Question) -> Batcher[Question, Prediction]:
        """Where a question of this scorer waits."""
        return self._lanes.of(len(question.passage.text))

    async def close(self) -> None:
        """Stop the workers."""
        await self._lanes.close()

    def _run(self, questions: Sequence[Question]) -> list[Prediction]:
        scored = self._scorer.score([q.passage for q in questions], [q.pair for q in questions])
        self.metrics.ran(tokenization_seconds=scored.tokenization_seconds, inference_seconds=scored.inference_seconds)
        by_model = scored.scores.model_win_probabilities
        rows: list[list[float]] = [[]] * len(questions) if by_model is None else by_model.tolist()
        return [
            Prediction(
                win_probability=win_probability,
                model_win_probabilities=row,
                tokens=len(encoded.input_ids),
                truncated=encoded.truncated,
                tokenization_seconds=scored.tokenization_seconds,
                inference_seconds=scored.inference_seconds,
            )
            for win_probability, row, encoded in zip(
                scored.scores.win_probability.tolist(), rows, scored.encoded, strict=True
            )
        ]
