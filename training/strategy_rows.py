"""Prompts with several models' answers, their cost, and what served scorers say of them: what strategies are judged on.

Every probability comes from `scorer_service`, through an artefact that was written and loaded.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dispatcher_service.routing import EVEN
from scorer_service.artifact import Manifest
from scorer_service.judge import Judge
from scorer_service.preprocess import Role, Turn
from scorer_service.scorer import ConversationScorer
from training import evaluate, minilm, sketch
from training.answer_rows import AnswerRows, read
from training.tables import DataError, names

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

PAIR = ("weak", "strong")
"""The models of a `pair` file, which does not name them."""

_BLOCK = 256
_SEEN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class AnsweredPrompts:
    """Prompts that every model of a ladder answered.

    Attributes:
        models: cheapest first; the last is the strongest.
        prompts: [prompts].
        answers: one tuple of texts per model.
        quality: [prompts, models].
        cost: of each call in USD: tokens of prompt and answer, by the encoder's tokenizer, times the model's price.
        rows: the same as graded answers, model after model.
    """

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    quality: Floats
    cost: Floats
    rows: AnswerRows


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of each prompt before and after its calls.

    Attributes:
        quality, cost: of every model's answer, [prompts, models], cheapest first.
        beaten: P(the strongest model's answer is better), before any call, [prompts, models]: one half for itself, NaN
            for a model that the router does not compare.
        acceptances: P(the answer is acceptable), of every model's but the last's, [prompts, models - 1].
        preferences: P(the cheaper model's answer is better), of every two in the order of `itertools.combinations`,
            [prompts, pairs].
    """

    quality: Floats
    cost: Floats
    beaten: Floats
    acceptances: Floats
    preferences: Floats

    def chosen(self, rows: Rows) -> "Scored":
        """Some of the prompts."""
        return Scored(
            self.quality[rows], self.cost[rows], self.beaten[rows], self.acceptances[rows], self.preferences[rows]
        )

    @property
    def win_probability(self) -> Floats:
        """P(the strongest model's answer is better than the cheapest's), before any call, [prompts]."""
        return self.beaten[:, 0]

    @property
    def top(self) -> int:
        """The strongest model's column."""
        return int(self.cost.shape[1]) - 1

    @property
    def all_strong_cost(self) -> float:
        """Of a call in the mean, if all go to the strongest model."""
        return float(self.cost[:, -1].mean())


def read_answered(path: Path, usd: Mapping[str, float], *, max_bad_share: float) -> AnsweredPrompts:
    """Read a file of graded answers, in any format of `answer_rows`.

    Args:
        path: of the file.
        usd: what each model costs per million tokens, cheapest first; of a `pair` file, those of `PAIR`.
        max_bad_share: more bad rows than this share are an error.

    Raises:
        DataError: no prompt has the answers of all of them, or the last model's are not better than the first's.
    """
    rows = read(path, max_bad_share=max_bad_share)
    by_model: dict[str, dict[str, int]] = {model: {} for model in usd}
    for row, (model, prompt) in enumerate(zip(rows.models, rows.prompts, strict=True)):
        if model in by_model:
            by_model[model].setdefault(prompt, row)
    first, *others = by_model.values()
    prompts = [prompt for prompt in first if all(prompt in own for own in others)]
    if not prompts:
        raise DataError(
            f"{path} has no prompt with answers of all of {', '.join(usd)}: it has those of "
            f"{names(sorted(set(rows.models)))}"
        )
    places = np.array([[own[prompt] for own in by_model.values()] for prompt in prompts], np.intp)
    quality = rows.quality[places]
    if quality[:, -1].mean() <= quality[:, 0].mean():
        *_, strongest = usd
        raise DataError(
            f"{path}: the answers of {strongest!r} are not better than the cheapest model's, so that there is nothing "
            "to choose"
        )
    kept = rows.chosen(places.T.ravel())
    answers = tuple(kept.answers[start : start + len(prompts)] for start in range(0, places.size, len(prompts)))
    of_prompt, *of_answers = (_tokens(texts) for texts in (prompts, *answers))
    cost = (of_prompt[:, None] + np.stack(of_answers, axis=1)) * np.array(list(usd.values())) / 1e6
    return AnsweredPrompts(tuple(usd), tuple(prompts), answers, quality, cost, kept)


def warnings(manifests: Sequence[Manifest], prompts: Sequence[str]) -> Iterator[str]:
    """One sentence per artefact that has seen these prompts in training."""
    for manifest in manifests:
        for name, source in manifest.data.items():
            marks = source.get("prompt_sketch", "") if isinstance(source, dict) else ""
            seen = sketch.overlap(str(marks), prompts)
            if seen.share >= _SEEN_SHARE:
                yield (
                    f"kind {manifest.router_kind!r} has seen about {seen.share:.0%} of these prompts in {name}: "
                    "what is found on them promises more than traffic keeps"
                )


def compared(predictor: ConversationScorer, models: Sequence[str], prompts: Sequence[str]) -> Floats:
    """`Scored.beaten` as the dispatcher would have it: a router that knows one pair only takes it for the ends."""
    beaten = np.full((len(prompts), len(models)), np.nan)
    beaten[:, -1] = EVEN
    known = set(predictor.manifest.models) if predictor.onnx.gives_models else set()
    if len(models) == len(PAIR) or not known >= {models[0], models[-1]}:
        beaten[:, 0] = evaluate.win_probabilities(predictor, prompts)
        return beaten
    for place, model in enumerate(models[:-1]):
        if model in known:
            beaten[:, place] = evaluate.win_probabilities(predictor, prompts, (models[-1], model))
    return beaten


def accepted(judge: Judge, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> Floats:
    """`Scored.acceptances`, of every model's answers but the last's, as served."""
    return np.stack([judged(judge, prompts, list(zip(texts, strict=True))) for texts in answers[:-1]], axis=1)


def preferred(ranker: Judge, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> Floats:
    """`Scored.preferences` as served."""
    pairs = itertools.combinations(answers, 2)
    return np.stack([judged(ranker, prompts, list(zip(*pair, strict=True))) for pair in pairs], axis=1)


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
