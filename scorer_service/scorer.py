"""Conversations to win probabilities with ONNX Runtime: the path that serves is the path that is measured.

`OnnxScorer` runs a graph on token ids. `ConversationScorer` puts the artefact's preprocessing before it, and has
proved on the golden rows that both give what they gave when the artefact was exported.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scorer_service import artifact as artifacts
from scorer_service import onnx_session
from scorer_service.artifact import ArtifactError, Manifest, ScorerArtifact, Task
from scorer_service.onnx_session import Probabilities
from scorer_service.preprocess import Encoded, Passage, Preprocessor, load_tokenizer, pad

_STATIC_KIND: Final = "static"

Pair = tuple[str, str]
"""The strong and the weak model's name."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Outputs for a batch, in its order.

    Attributes:
        win_probability: [batch], calibrated, in [0, 1].
        model_win_probabilities: [batch, models], each of the manifest's models against the row's strong model; `None`
            if the artefact does not give them.
    """

    win_probability: Probabilities
    model_win_probabilities: Probabilities | None


class OnnxScorer:
    """Runs one artefact's graph. Safe to share between threads; `score` releases the GIL while it runs."""

    def __init__(self, artifact: ScorerArtifact, *, threads: int) -> None:
        """Load the graph.

        Args:
            artifact: a checked directory.
            threads: that work on one run; 0 takes as many as the process may use.

        Raises:
            ArtifactError: ONNX Runtime refuses the graph, or it has not the inputs and outputs of the format.
        """
        self._session = onnx_session.open_session(artifact, threads=threads)
        self.manifest = artifact.manifest
        static = self.manifest.router_kind == _STATIC_KIND
        self._stretch = onnx_session.STATIC_STRETCH if static else onnx_session.ENCODER_STRETCH
        self._index = {model: index for index, model in enumerate(self.manifest.models)}
        inputs = {node.name for node in self._session.get_inputs()}
        outputs = {node.name: node.shape for node in self._session.get_outputs()}
        self.takes_pairs: Final = {"strong_model", "weak_model"} <= inputs
        """True if the graph scores any pair of the manifest's models; false if it knows one pair."""
        self.gives_models: Final = "wins_over_strong" in outputs
        """True if it also scores every model against the strong one."""
        expected = {"input_ids", "attention_mask"} | ({"strong_model", "weak_model"} if self.takes_pairs else set())
        if inputs != expected or len(outputs.get("win_probability", ())) != 1:
            raise ArtifactError(
                f"{artifacts.MODEL} takes {sorted(inputs)} and gives {sorted(outputs)}, which is not the format's: "
                "export the artefact again"
            )
        if not self.takes_pairs and len(self.manifest.models) != 2:
            raise ArtifactError(
                f"{artifacts.MANIFEST} lists {len(self.manifest.models)} models, and {artifacts.MODEL} takes no "
                "strong_model and weak_model: export the artefact again"
            )

    @property
    def pair(self) -> Pair:
        """The pair that is scored unless another is asked for."""
        return self.manifest.strong_model, self.manifest.weak_model

    def score(self, batch: Sequence[Encoded], pairs: Sequence[Pair] = ()) -> Probabilities:
        """`score_models` without the probabilities per model."""
        return self._scores(batch, pairs, models=False).win_probability

    def score_models(self, batch: Sequence[Encoded], pairs: Sequence[Pair] = ()) -> Scores:
        """Score a batch of any size and mix of lengths.

        Inputs of like length run together, so that padding stays bounded. A row's numbers do not depend on the rest
        of the batch beyond float32 rounding (1e-6).

        Args:
            batch: the inputs.
            pairs: one per input, of models that the manifest lists; empty for the artefact's own. A graph that knows
                one pair scores that pair, whatever is asked.

        Raises:
            KeyError: a model is not in the manifest.
            ArithmeticError: the graph gave what is no probability.
        """
        return self._scores(batch, pairs, models=self.gives_models)

    def score_together(self, batch: Sequence[Encoded]) -> Probabilities:
        """Score in one run, padded to the longest input whatever the lengths: shows whether padding changes a score."""
        [win_probability] = self._session.run(["win_probability"], self._feeds(batch, [self.pair] * len(batch)))
        return onnx_session.probabilities(win_probability).astype(np.float64)

    def _scores(self, batch: Sequence[Encoded], pairs: Sequence[Pair], *, models: bool) -> Scores:
        pairs = pairs or [self.pair] * len(batch)
        win_probability = np.empty(len(batch), dtype=np.float64)
        by_model = np.empty((len(batch), len(self.manifest.models)), dtype=np.float64) if models else None
        names = ["win_probability", "wins_over_strong"] if models else ["win_probability"]
        for rows in onnx_session.runs([len(encoded.input_ids) for encoded in batch], stretch=self._stretch):
            feeds = self._feeds([batch[row] for row in rows], [pairs[row] for row in rows])
            outputs = self._session.run(names, feeds)
            win_probability[rows] = onnx_session.probabilities(outputs[0])
            if by_model is not None:
                by_model[rows] = onnx_session.probabilities(outputs[1])
        return Scores(win_probability, by_model)

    def _feeds(self, batch: Sequence[Encoded], pairs: Sequence[Pair]) -> dict[str, Any]:
        input_ids, attention_mask = pad(batch, self.manifest.preprocess.pad_id)
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.takes_pairs:
            feeds["strong_model"] = np.array([self._index[strong] for strong, _ in pairs], dtype=np.int64)
            feeds["weak_model"] = np.array([self._index[weak] for _, weak in pairs], dtype=np.int64)
        return feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPassages:
    """What `ConversationScorer.score` returns: the inputs as read, their scores, and seconds for the whole batch."""

    encoded: Sequence[Encoded]
    scores: Scores
    tokenization_seconds: float
    inference_seconds: float


class ConversationScorer:
    """An artefact in working order: its golden rows gave the golden numbers."""

    def __init__(
        self, artifact: ScorerArtifact, *, threads: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Load tokenizer and graph, and replay the golden rows.

        Raises:
            ArtifactError: a part does not load, or a golden row does not come out as it went in.
        """
        self.artifact: Final = artifact
        try:
            self.preprocessor: Final = Preprocessor(
                load_tokenizer(artifact.tokenizer_path), artifact.manifest.preprocess
            )
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ArtifactError(
                f"{artifacts.TOKENIZER} cannot be used ({onnx_session.first_line(error)}): export the artefact again"
            ) from error
        self.onnx: Final = OnnxScorer(artifact, threads=threads)
        self._clock = clock
        self.golden_deviation: Final = self._replay()
        """Largest difference between a golden win probability and ours."""

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    def score(self, passages: Sequence[Passage], pairs: Sequence[Pair] = ()) -> ScoredPassages:
        """Tokenise and score what `preprocessor.passage` chose; arguments and errors as `OnnxScorer.score_models`."""
        started = self._clock()
        encoded = self.preprocessor.encode_passages(passages)
        tokenized = self._clock()
        scores = self.onnx.score_models(encoded, pairs)
        return ScoredPassages(
            encoded=encoded,
            scores=scores,
            tokenization_seconds=tokenized - started,
            inference_seconds=self._clock() - tokenized,
        )

    def _replay(self) -> float:
        rows = self.artifact.golden_rows()
        try:
            encoded = [self.preprocessor.encode(row.turns) for row in rows]
        except ValueError as error:
            raise ArtifactError(f"{artifacts.GOLDEN} has a row without user text: export the artefact again") from error
        for number, (row, ours) in enumerate(zip(rows, encoded, strict=True), start=1):
            if (ours.input_ids, ours.truncated) != (row.input_ids, row.truncated):
                raise ArtifactError(
                    f"{artifacts.GOLDEN} line {number}: the text becomes other token ids than at export, so that "
                    "every score would be wrong: install the versions it was exported with, or export it again"
                )
        try:
            together = self._score_padded(encoded)
            alone = np.concatenate([self.onnx.score([one]) for one in encoded])
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ArtifactError(
                f"{artifacts.MODEL} fails on {artifacts.GOLDEN} ({onnx_session.first_line(error)}): export it again"
            ) from error
        golden = np.array([row.win_probability for row in rows])
        return onnx_session.golden_deviation(golden, alone, together, "win probability")

    def _score_padded(self, batch: Sequence[Encoded]) -> Probabilities:
        """Scores where nearly every input is padded, which the runs of `OnnxScorer.score` avoid."""
        win_probability = np.empty(len(batch), dtype=np.float64)
        for rows in onnx_session.padded_runs([len(encoded.input_ids) for encoded in batch]):
            win_probability[rows] = self.onnx.score_together([batch[row] for row in rows])
        return win_probability


def open_scorer(directory: Path, *, threads: int = 0) -> ConversationScorer:
    """Load, check and prove the artefact in `directory`.

    Raises:
        ArtifactError: it cannot be served, or does not predict; one line says why and what to do.
    """
    artifact = artifacts.load(directory)
    if artifact.manifest.task is not Task.PREDICT:
        raise ArtifactError(
            f"kind {artifact.manifest.router_kind!r} is to {artifact.manifest.task.value}, and one is needed here that "
            f"is to {Task.PREDICT.value}: give another artefact"
        )
    return ConversationScorer(artifact, threads=threads)
