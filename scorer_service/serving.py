"""The scorers of one process: a loaded artefact, its queue and worker, and what may be asked of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scorer_service.artifact import Manifest
from scorer_service.batching import Batcher
from scorer_service.errors import InvalidRequest, Loading, NotFound
from scorer_service.metrics import ScorerMetrics
from scorer_service.preprocess import NoUserText, Passage, Turn
from scorer_service.scorer import ConversationScorer, Pair

LONG_PASSAGE: Final = 16_384
"""Characters from which a passage waits in a lane of its own. Tokenising this many takes 5 to 25 ms."""


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
    """One artefact behind its queues. Its name in requests is `name`.

    A passage as long as the window of the shipped artefact allows costs the tokenizer half a second, five thousand
    times a common one. So there are two lanes, each with its own worker: long passages wait for each other only.
    """

    def __init__(
        self,
        name: str,
        scorer: ConversationScorer,
        *,
        metrics: ScorerMetrics,
        max_queue: int,
        max_long_queue: int,
        max_batch: int,
        batch_wait: float,
    ) -> None:
        """`max_queue` and `max_long_queue` bound the two lanes, in conversations; the rest is as for `Batcher`."""
        self.name: Final = name
        self.version: Final = scorer.artifact.version
        self.manifest: Final[Manifest] = scorer.manifest
        self.metrics: Final = metrics
        self._scorer = scorer
        self._common = Batcher(
            self._run, max_queue=max_queue, max_batch=max_batch, wait_seconds=batch_wait, observer=metrics
        )
        # One at a time: between two of them it is seen whether anybody still waits.
        self._long = Batcher(self._run, max_queue=max_long_queue, max_batch=1, wait_seconds=0, observer=metrics)
        metrics.watch_queue(lambda: self._common.depth() + self._long.depth())

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
        return self._long if len(question.passage.text) >= LONG_PASSAGE else self._common

    async def close(self) -> None:
        """Stop the workers."""
        await self._common.close()
        await self._long.close()

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


class Scorers:
    """All scorers of the process by name. Empty until they are loaded."""

    def __init__(self) -> None:
        self._by_name: Mapping[str, ServedScorer] = {}
        self._default = ""

    def open(self, scorers: Sequence[ServedScorer]) -> None:
        """From now on answer with these; the first is the default."""
        self._by_name = {scorer.name: scorer for scorer in scorers}
        self._default = scorers[0].name

    def get(self, name: str, *, at: str) -> ServedScorer:
        """The scorer of that name, or the default for an empty one.

        Raises:
            Loading: none is loaded yet.
            NotFound: none has the name; `at` is the path of the request that gave it.
        """
        if not self._by_name:
            raise Loading
        scorer = self._by_name.get(name or self._default)
        if scorer is None:
            raise NotFound(f"{at}scorer", f"no scorer has this name; there is {', '.join(sorted(self._by_name))}")
        return scorer

    def __iter__(self) -> Iterator[ServedScorer]:
        """The default first, the rest by name."""
        return iter(sorted(self._by_name.values(), key=lambda scorer: (scorer.name != self._default, scorer.name)))

    def is_default(self, scorer: ServedScorer) -> bool:
        """True for the scorer that answers requests which name none."""
        return scorer.name == self._default

    async def close(self) -> None:
        """Stop all workers."""
        for scorer in self:
            await scorer.close()
