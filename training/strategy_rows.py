"""Prompts with two models' answers, what they cost, and what served scorers say of them: what strategies are judged on.

Every probability comes from `scorer_service`, through an artefact that was written and loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.judge import Judge
from scorer_service.preprocess import Role, Turn
from scorer_service.scorer import ConversationScorer
from training import evaluate, minilm
from training.answer_rows import AnswerRows, read
from training.rankings import Prices
from training.tables import DataError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

WEAK, STRONG = 0, 1
"""Columns of what is told of both models."""

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class AnsweredPrompts:
    """Prompts that both models answered.

    Attributes:
        prompts: [prompts].
        answers: one tuple of texts per model, the weak one's first.
        quality: [prompts, 2].
        cost: of each call in USD: tokens of prompt and answer, by the encoder's tokenizer, times the model's price.
        rows: the same as graded answers: all weak ones, then all strong ones.
    """

    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], tuple[str, ...]]
    quality: Floats
    cost: Floats
    rows: AnswerRows


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of each prompt before and after its calls, [prompts].

    Attributes:
        quality, cost: of both models' answers, [prompts, 2].
        win_probability: P(the strong answer is better), before any call.
        acceptance: P(the weak answer is acceptable), of its text.
        strong_preferred: P(the strong answer is better), of both texts.
    """

    quality: Floats
    cost: Floats
    win_probability: Floats
    acceptance: Floats
    strong_preferred: Floats

    def chosen(self, rows: Rows) -> "Scored":
        """Some of the prompts."""
        return Scored(
            self.quality[rows],
            self.cost[rows],
            self.win_probability[rows],
            self.acceptance[rows],
            self.strong_preferred[rows],
        )

    @property
    def all_strong_cost(self) -> float:
        """Of a call in the mean, if all go to the strong model."""
        return float(self.cost[:, STRONG].mean())


def read_answered(path: Path, prices: Prices, *, max_bad_share: float) -> AnsweredPrompts:
    """Read a `pair` file with answers.

    Raises:
        DataError: it holds none, or the strong model's answers are not better in the mean.
    """
    rows = read(path, max_bad_share=max_bad_share)
    by_side: dict[str, dict[str, int]] = {"weak": {}, "strong": {}}
    for row, (model, prompt) in enumerate(zip(rows.models, rows.prompts, strict=True)):
        by_side.get(model, {}).setdefault(prompt, row)
    prompts = [prompt for prompt in by_side["weak"] if prompt in by_side["strong"]]
    if not prompts:
        raise DataError(
            f"{path} has no prompt with both models' answers: strategies need strong_response and weak_response"
        )
    places = np.array([[by_side[side][prompt] for side in ("weak", "strong")] for prompt in prompts], np.intp)
    kept = rows.chosen(places.T.ravel())
    quality = rows.quality[places]
    if quality[:, STRONG].mean() <= quality[:, WEAK].mean():
        raise DataError(f"{path}: the strong model's answers are not better, so that there is nothing to choose")
    answers = kept.answers[: len(prompts)], kept.answers[len(prompts) :]
    tokens = [_tokens(texts) for texts in (prompts, *answers)]
    usd = np.array([prices.weak, prices.strong]) / 1e6
    cost = (tokens[0][:, None] + np.stack(tokens[1:], axis=1)) * usd
    return AnsweredPrompts(tuple(prompts), answers, quality, cost, kept)


def score(
    found: AnsweredPrompts, rows: Rows, predictor: ConversationScorer, judge: Judge, ranker: Judge
) -> tuple[Floats, Floats, Floats]:
    """Win probability, acceptance of the weak answer and preference for the strong one, of some prompts, as served."""
    prompts = [found.prompts[row] for row in rows]
    weak, strong = ([answers[row] for row in rows] for answers in found.answers)
    return (
        evaluate.win_probabilities(predictor, prompts),
        judged(judge, prompts, [(answer,) for answer in weak]),
        judged(ranker, prompts, list(zip(strong, weak, strict=True))),
    )


def judged(judge: Judge, prompts: Sequence[str], answers: Sequence[tuple[str, ...]]) -> Floats:
    """What a served judge says of answers to prompts, [prompts]."""
    passages = [
        judge.preprocessor.passages([Turn(Role.USER, prompt)], texts)
        for prompt, texts in zip(prompts, answers, strict=True)
    ]
    blocks = [passages[start : start + _BLOCK] for start in range(0, len(passages), _BLOCK)]
    return np.concatenate([judge.judge(block).probabilities for block in blocks])


def _tokens(texts: Sequence[str]) -> Floats:
    tokenizer = Tokenizer.from_str(minilm.load().tokenizer_json)
    return np.array([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))], np.float64)
