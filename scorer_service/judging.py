"""A scorer of the process that judges answers: a loaded artefact, its queues, and what may be asked of it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scorer_service import ranking
from scorer_service.artifact import Manifest, Task
from scorer_service.batching import Batcher
from scorer_service.errors import InvalidRequest
from scorer_service.judge import Judge
from scorer_service.lanes import LaneLimits, Lanes
from scorer_service.metrics import JudgeMetrics
from scorer_service.preprocess import AnswerPassages, NoUserText, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to one question to a judge. The seconds are those of its whole batch.

    Attributes:
        probability: that the answer is acceptable, or that the first of two is better.
        prompt_truncated: of the prompt, some was not read.
        truncated: the same of each answer.
        tokens: read of prompt and answers together.
    """

    probability: float
    prompt_truncated: bool
    truncated: tuple[bool, ...]
    tokens: int
    tokenization_seconds: float
    inference_seconds: float


class ServedJudge:
    """One artefact that judges answers, behind its queues. Its name in requests is `name`."""

    def __init__(self, name: str, judge: Judge, *, metrics: JudgeMetrics, limits: LaneLimits) -> None:
        """Starts nothing yet. A piece of work is one answer, or one comparison of two."""
        self.name: Final = name
        self.version: Final = judge.artifact.version
        self.manifest: Final[Manifest] = judge.manifest
        self.metrics: Final = metrics
        self._judge = judge
        self._lanes = Lanes(self._run, limits=limits, observer=metrics)
        metrics.watch_queue(self._lanes.depth)

    @property
    def task(self) -> Task:
        """What it is for."""
        return self.manifest.task

    def questions(self, turns: Sequence[Turn], answers: Sequence[str]) -> list[AnswerPassages]:
        """What is queued: for a scorer of answers each answer, for a ranker each two answers, in order.

        Raises:
            InvalidRequest: the conversation has no user text.
        """
        try:
            read = self._judge.preprocessor.passages(turns, answers)
        except NoUserText:
            raise InvalidRequest("conversation.turns", "add a user turn with text that is not blank") from None
        together = 2 if self.task is Task.RANK_ANSWERS else 1
        return [AnswerPassages(read.prompt, chosen) for chosen in itertools.combinations(read.answers, together)]

    def lane(self, question: AnswerPassages) -> Batcher[AnswerPassages, Verdict]:
        """Where a question to this judge waits."""
        return self._lanes.of(len(question.prompt.text) + sum(len(answer.text) for answer in question.answers))

    async def close(self) -> None:
        """Stop the workers."""
        await self._lanes.close()

    def _run(self, questions: Sequence[AnswerPassages]) -> list[Verdict]:
        judged = self._judge.judge(questions)
        self.metrics.ran(tokenization_seconds=judged.tokenization_seconds, inference_seconds=judged.inference_seconds)
        return [
            Verdict(
                probability=probability,
                prompt_truncated=row.prompt.truncated,
                truncated=tuple(answer.encoded.truncated for answer in row.answers),
                tokens=len(row.prompt.input_ids) + sum(len(answer.encoded.input_ids) for answer in row.answers),
                tokenization_seconds=judged.tokenization_seconds,
                inference_seconds=judged.inference_seconds,
            )
            for probability, row in zip(judged.probabilities.tolist(), judged.encoded, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """How one answer does against the others: the mean of what the comparisons said for it."""

    mean_win_probability: float
    truncated: bool


def rank(count: int, verdicts: Sequence[Verdict]) -> list[Place]:
    """Sum up the comparisons of `count` answers, in the order in which `ServedJudge.questions` made them."""
    truncated = [False] * count
    for (one, other), verdict in zip(itertools.combinations(range(count), 2), verdicts, strict=True):
        truncated[one], truncated[other] = verdict.truncated
    rates = ranking.win_rates(count, [verdict.probability for verdict in verdicts])
    return [Place(rate, cut) for rate, cut in zip(rates, truncated, strict=True)]
