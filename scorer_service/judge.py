"""Answers to probabilities with ONNX Runtime: is an answer acceptable, and which of two is better?

The graph of kind `answer` takes the prompt and one answer:

    input_ids, attention_mask     int64 [batch, tokens], the prompt
    answer_ids, answer_mask       int64 [batch, answer tokens]
    answer_marks                  float32 [batch, marks], see `marks`
    -> acceptance_probability     float32 [batch], calibrated

That of kind `ranker` takes two answers, as first_… and second_… in place of answer_…, and of each

    first_conclusion              int64 [batch]
    -> win_probability            float32 [batch], P(the first is better), a tie counting one half

A ranker is asked in both orders, and what it says is averaged: an answer gains nothing by its place.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from scorer_service import artifact as artifacts
from scorer_service import onnx_session
from scorer_service.artifact import ArtifactError, Manifest, ScorerArtifact, Task
from scorer_service.golden import GoldenRow
from scorer_service.onnx_session import Probabilities
from scorer_service.preprocess import (
    AnswerPassages,
    AnswerPreprocessor,
    EncodedAnswers,
    load_tokenizer,
    pad,
    stack_marks,
)

SIDES: Final = {Task.SCORE_ANSWER: ("answer",), Task.RANK_ANSWERS: ("first", "second")}
"""The names that a graph has for its answers, by task."""

OUTPUT: Final = {Task.SCORE_ANSWER: "acceptance_probability", Task.RANK_ANSWERS: "win_probability"}
"""The name of its output, by task."""

_MARKS_TOLERANCE: Final = 1e-6
"""Relative. Mathematics libraries differ in the last digit of a logarithm."""


class OnnxJudge:
    """Runs one artefact's graph. Safe to share between threads; it releases the GIL while it runs."""

    def __init__(self, artifact: ScorerArtifact, *, threads: int) -> None:
        """Load the graph; `threads` as for `onnx_session.open_session`.

        Raises:
            ArtifactError: it cannot be loaded, or has not the inputs and outputs of its kind.
        """
        self.manifest: Final = artifact.manifest
        self.sides: Final = SIDES[self.manifest.task]
        self._session = onnx_session.open_session(artifact, threads=threads)
        self._output = OUTPUT[self.manifest.task]
        parts = ("ids", "mask", "marks", "conclusion") if len(self.sides) > 1 else ("ids", "mask", "marks")
        expected = {"input_ids", "attention_mask", *(f"{side}_{part}" for side in self.sides for part in parts)}
        inputs = {node.name for node in self._session.get_inputs()}
        outputs = {node.name for node in self._session.get_outputs()}
        if inputs != expected or outputs != {self._output}:
            raise ArtifactError(
                f"{artifacts.MODEL} takes {sorted(inputs)} and gives {sorted(outputs)}, which is not what kind "
                f"{self.manifest.router_kind!r} takes and gives: export the artefact again"
            )

    def probabilities(self, batch: Sequence[EncodedAnswers]) -> Probabilities:
        """What the graph says of each row, which holds as many answers as the graph has sides: [batch].

        Inputs of like length run together. A row's number does not depend on the rest of the batch beyond float32
        rounding (1e-6).

        Raises:
            ArithmeticError: the graph gave what is no probability.
        """
        found = np.empty(len(batch), dtype=np.float64)
        for rows in onnx_session.runs(_lengths(batch)):
            found[rows] = self.together([batch[row] for row in rows])
        return found

    def both_orders(self, batch: Sequence[EncodedAnswers]) -> Probabilities:
        """`probabilities` of rows of two answers, averaged with one minus those of the same rows turned around."""
        turned = [replace(row, answers=row.answers[::-1]) for row in batch]
        straight, back = np.split(self.probabilities([*batch, *turned]), 2)
        mean: Probabilities = (straight + (1.0 - back)) / 2.0
        return mean

    def together(self, batch: Sequence[EncodedAnswers]) -> Probabilities:
        """`probabilities` in one run, padded whatever the lengths."""
        pad_id = self.manifest.preprocess.pad_id
        input_ids, attention_mask = pad([row.prompt for row in batch], pad_id)
        feeds: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        for place, side in enumerate(self.sides):
            answers = [row.answers[place] for row in batch]
            feeds[f"{side}_ids"], feeds[f"{side}_mask"] = pad([answer.encoded for answer in answers], pad_id)
            feeds[f"{side}_marks"], conclusions = stack_marks([answer.marks for answer in answers])
            if len(self.sides) > 1:
                feeds[f"{side}_conclusion"] = conclusions
        [output] = self._session.run([self._output], feeds)
        return onnx_session.probabilities(output).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What `Judge.judge` returns: the inputs as read, a probability for each, and seconds for the whole batch."""

    encoded: Sequence[EncodedAnswers]
    probabilities: Probabilities
    tokenization_seconds: float
    inference_seconds: float


class Judge:
    """An artefact of kind `answer` or `ranker` in working order: its golden rows gave the golden numbers."""

    def __init__(
        self, artifact: ScorerArtifact, *, threads: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Load tokenizer and graph, and replay the golden rows.

        Raises:
            ArtifactError: a part does not load, or a golden row does not come out as it went in.
        """
        self.artifact: Final = artifact
        try:
            self.preprocessor: Final = AnswerPreprocessor(
                load_tokenizer(artifact.tokenizer_path), artifact.manifest.preprocess
            )
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ArtifactError(
                f"{artifacts.TOKENIZER} cannot be used ({onnx_session.first_line(error)}): export the artefact again"
            ) from error
        self.onnx: Final = OnnxJudge(artifact, threads=threads)
        self._clock = clock
        self.golden_deviation: Final = self._replay()
        """Largest difference between a golden probability and ours."""

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    def judge(self, batch: Sequence[AnswerPassages]) -> Judged:
        """Say of each answer how likely it is acceptable, or of each two how likely the first is better.

        Args:
            batch: what `preprocessor.passages` chose: one answer each for kind `answer`, two for kind `ranker`.

        Raises:
            ArithmeticError: the graph gave what is no probability.
        """
        started = self._clock()
        encoded = self.preprocessor.encode(batch)
        tokenized = self._clock()
        ranks = self.manifest.task is Task.RANK_ANSWERS
        found = self.onnx.both_orders(encoded) if ranks else self.onnx.probabilities(encoded)
        return Judged(
            encoded=encoded,
            probabilities=found,
            tokenization_seconds=tokenized - started,
            inference_seconds=self._clock() - tokenized,
        )

    def _replay(self) -> float:
        rows = self.artifact.golden_rows()
        try:
            encoded = self.preprocessor.encode(
                [self.preprocessor.passages(row.turns, [answer.text for answer in row.answers]) for row in rows]
            )
        except ValueError as error:
            raise ArtifactError(f"{artifacts.GOLDEN} has a row without user text: export the artefact again") from error
        for number, (row, ours) in enumerate(zip(rows, encoded, strict=True), start=1):
            if len(row.answers) != len(self.onnx.sides):
                raise ArtifactError(
                    f"{artifacts.GOLDEN} line {number} has {len(row.answers)} answers, and kind "
                    f"{self.manifest.router_kind!r} judges {len(self.onnx.sides)}: export the artefact again"
                )
            if not _agree(row, ours):
                raise ArtifactError(
                    f"{artifacts.GOLDEN} line {number}: the text becomes other token ids or marks than at export, so "
                    "that every score would be wrong: install the versions it was exported with, or export it again"
                )
        together = np.empty(len(encoded), dtype=np.float64)
        try:
            for chosen in onnx_session.padded_runs(_lengths(encoded)):
                together[chosen] = self.onnx.together([encoded[row] for row in chosen])
            alone = np.concatenate([self.onnx.together([one]) for one in encoded])
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ArtifactError(
                f"{artifacts.MODEL} fails on {artifacts.GOLDEN} ({onnx_session.first_line(error)}): export it again"
            ) from error
        golden = np.array([row.win_probability for row in rows])
        return onnx_session.golden_deviation(golden, alone, together, "probability")


def open_judge(directory: Path, *, threads: int = 0) -> Judge:
    """Load, check and prove the artefact in `directory`.

    Raises:
        ArtifactError: it cannot be served, or judges no answers; one line says why and what to do.
    """
    artifact = artifacts.load(directory)
    if artifact.manifest.task is Task.PREDICT:
        raise ArtifactError(
            f"kind {artifact.manifest.router_kind!r} is to {Task.PREDICT.value} and judges no answers: give an "
            "artefact of kind 'answer' or 'ranker'"
        )
    return Judge(artifact, threads=threads)


def _lengths(batch: Sequence[EncodedAnswers]) -> list[int]:
    return [len(row.prompt.input_ids) + sum(len(answer.encoded.input_ids) for answer in row.answers) for row in batch]


def _agree(row: GoldenRow, ours: EncodedAnswers) -> bool:
    """Whether preprocessing made of a golden row what it made at export."""
    if (ours.prompt.input_ids, ours.prompt.truncated) != (row.input_ids, row.truncated):
        return False
    return all(
        (answer.encoded.input_ids, answer.encoded.truncated, answer.marks.conclusion)
        == (golden.input_ids, golden.truncated, golden.conclusion)
        and len(answer.marks.values) == len(golden.marks)
        and all(
            math.isclose(mine, theirs, rel_tol=_MARKS_TOLERANCE, abs_tol=_MARKS_TOLERANCE)
            for mine, theirs in zip(answer.marks.values, golden.marks, strict=True)
        )
        for answer, golden in zip(ours.answers, row.answers, strict=True)
    )
