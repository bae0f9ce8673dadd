"""A trained scorer of answers -> an artefact directory, or a refusal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.artifact import Manifest, ScorerArtifact
from scorer_service.golden import GoldenAnswer, GoldenRow
from scorer_service.judge import SIDES, OnnxJudge
from scorer_service.preprocess import AnswerPreprocessor, EncodedAnswers, PreprocessSpec
from training import export, golden_answers


class TrainedJudge(Protocol):
    """What an export needs to know of it."""

    @property
    def kind(self) -> str: ...

    @property
    def preprocess(self) -> PreprocessSpec: ...

    @property
    def tokenizer_json(self) -> str: ...

    def probability(self, rows: Sequence[EncodedAnswers]) -> NDArray[np.float32]: ...

    def onnx(self) -> onnx.ModelProto: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the manifest tells beyond the graph; the fields are those of `export.Provenance`."""

    score_quantiles: Sequence[float]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


def preprocessor(tokenizer_json: str, spec: PreprocessSpec) -> AnswerPreprocessor:
    """The serving path's preprocessing."""
    return AnswerPreprocessor(Tokenizer.from_str(tokenizer_json), spec)


def write(judge: TrainedJudge, provenance: Provenance, out: Path) -> ScorerArtifact:
    """Write the directory, then judge the golden answers with what was written.

    Raises:
        ExportError: a served probability differs from training's by more than `export.TOLERANCE`. `out` is as it was.
    """
    manifest = Manifest(
        router_kind=judge.kind,
        strong_model="",
        weak_model="",
        models=(),
        preprocess=judge.preprocess,
        score_quantiles=tuple(map(float, provenance.score_quantiles)),
        calibrated_pairs=frozenset(),
        files={},
        data=provenance.data,
        training=provenance.training,
        metrics=provenance.metrics,
    )
    sides = len(SIDES[manifest.task])
    read = preprocessor(judge.tokenizer_json, judge.preprocess)
    judged = [(turns, answers[:sides]) for turns, answers in golden_answers.judged()]
    encoded = read.encode([read.passages(turns, answers) for turns, answers in judged])
    expected = judge.probability(encoded)
    rows = [
        GoldenRow(
            turns=turns,
            input_ids=row.prompt.input_ids,
            truncated=row.prompt.truncated,
            win_probability=float(probability),
            answers=tuple(
                GoldenAnswer(
                    text=text,
                    input_ids=answer.encoded.input_ids,
                    truncated=answer.encoded.truncated,
                    marks=answer.marks.values,
                    conclusion=answer.marks.conclusion,
                )
                for text, answer in zip(answers, row.answers, strict=True)
            ),
        )
        for (turns, answers), row, probability in zip(judged, encoded, expected, strict=True)
    ]

    def check(draft: ScorerArtifact) -> None:
        export.refuse_difference(OnnxJudge(draft, threads=1).probabilities(encoded), expected)

    content = export.Content(judge.onnx(), judge.tokenizer_json, rows)
    return export.publish(content, manifest, out, check=check)
