"""What `fit_answer` and `fit_ranker` share: answers as they are served, and the strength that is fitted to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.preprocess import EncodedAnswers, Role, Turn
from training import answer_rows, export, export_judge, kernel_fit, made_with, minilm, surface, word_vectors
from training.answer_rows import AnswerRows
from training.kernel_fit import Fitted
from training.minilm import MiniLm
from training.routers.judging import PREPROCESS, AnswerFeatures, Strength
from training.tables import DataError
from training.token_rows import TokenRows

Floats = NDArray[np.float64]

DEFAULT_ROWS = Path("eval/gsm8k_dev.parquet")
"""In the data folder: the only file there that holds answers."""

FEWEST = 40
"""Answers; fewer say next to nothing."""

_DIMENSIONS = 32
"""Columns of the word-vector table, as in the shipped static router."""


@dataclass(frozen=True, slots=True)
class Material:
    """Graded answers, tokenised and marked as serving does, one answer per row."""

    rows: AnswerRows
    encoded: tuple[EncodedAnswers, ...]
    model: MiniLm

    def chosen(self, rows: NDArray[np.intp]) -> "Material":
        """Some of the rows."""
        return Material(self.rows.chosen(rows), tuple(self.encoded[row] for row in rows), self.model)


def read(data: Path, rows: Path | None) -> Material:
    """Read a file of graded answers, or the data folder's.

    Raises:
        DataError: it cannot be used, or has too few answers.
        EncoderMissingError: the package with tokenizer and word embeddings is not there.
    """
    return material(answer_rows.read(rows or data / DEFAULT_ROWS))


def material(rows: AnswerRows) -> Material:
    """Tokenise and mark; errors as for `read`."""
    if len(rows.answers) < FEWEST:
        raise DataError(f"{rows.source.name} has {len(rows.answers)} graded answers: give {FEWEST} or more")
    model = minilm.load()
    read = export_judge.preprocessor(model.tokenizer_json, PREPROCESS)
    passages = [
        read.passages([Turn(Role.USER, prompt)], [answer])
        for prompt, answer in zip(rows.prompts, rows.answers, strict=True)
    ]
    return Material(rows, tuple(read.encode(passages)), model)


def fit(found: Material, targets: Floats, *, landmarks: int, seed: int) -> tuple[AnswerFeatures, Strength, Fitted]:
    """Features and strength of answers, fitted to these targets, [rows]."""
    answers = TokenRows.of([row.answers[0].encoded.input_ids for row in found.encoded])
    vectors = word_vectors.build(
        found.model.word_embeddings, answers, dimensions=_DIMENSIONS, control=minilm.CONTROL_IDS
    )
    features = AnswerFeatures.fit(surface.attribute_table(found.model.vocabulary), vectors, found.encoded)
    fitted = kernel_fit.fit(features(found.encoded), targets, found.rows.groups(), landmarks=landmarks, seed=seed)
    return features, Strength.of(fitted), fitted


def provenance(found: Material, config: Any, held_out: Floats, metrics: Mapping[str, Any]) -> export_judge.Provenance:
    """What the manifest says of a scorer trained with `config`, whose probabilities on held-out rows were these."""
    return export_judge.Provenance(
        score_quantiles=np.quantile(held_out, np.linspace(0.0, 1.0, export.QUANTILES)).tolist(),
        data={found.rows.source.name: found.rows.source.document()},
        training={"config": made_with.settings(config), "versions": made_with.versions()},
        metrics=metrics,
    )
