"""Conversations to win probabilities with ONNX Runtime: the path that serves is the path that is measured.

`OnnxScorer` runs a graph on token ids. `ConversationScorer` puts the artefact's preprocessing before it, and has
proved on the golden rows that both give what they gave when the artefact was exported.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, Manifest, ScorerArtifact
from scorer_service.preprocess import Encoded, Passage, Preprocessor, load_tokenizer, pad

GOLDEN_TOLERANCE: Final = 1e-4
"""Largest difference to a golden probability. Processors order float32 sums differently; a wrong file is far off."""

_MAX_TOKENS_PER_RUN: Final = 8_192
"""Padded tokens in one run of the graph: bounds its memory. Attention of 12 heads over 16 × 512 tokens is 200 MiB."""

_MAX_STRETCH: Final = 1.25
"""In one run, the longest input has at most this many times the tokens of the shortest: at most a fifth is padding."""

_REPLAY_ROWS: Final = 8
"""Golden rows of neighbouring lengths that are replayed in one padded run."""

Probabilities = npt.NDArray[np.float64]
Pair = tuple[str, str]
"""The strong and the weak model's name."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Outputs for a batch, in its order.

    Attributes:
        win_probability: [batch], calibrated, in [0, 1].
        model_win_probabilities: [batch, models], each of the manifest's models against the strongest; `None` if the
            artefact does not give them.
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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _usable_cpus()
        # Spinning workers answer a microsecond sooner and take the processor from the tokenizer and the event loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # What goes wrong is raised; its warnings are not our log format.
        try:
            self._session = onnxruntime.InferenceSession(
                str(artifact.model_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ArtifactError(
                f"{artifacts.MODEL} cannot be loaded ({_first_line(error)}): export it for the installed ONNX Runtime"
            ) from error
        self.manifest = artifact.manifest
        self._index = {model: index for index, model in enumerate(self.manifest.models)}
        inputs = {node.name for node in self._session.get_inputs()}
        outputs = {node.name: node.shape for node in self._session.get_outputs()}
        self.takes_pairs: Final = {"strong_model", "weak_model"} <= inputs
        """True if the graph scores any pair of the manifest's models; false if it knows one pair."""
        self.gives_models: Final = "model_win_probabilities" in outputs
        """True if it also scores every model against the strongest."""
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
        return _probabilities(win_probability).astype(np.float64)

    def _scores(self, batch: Sequence[Encoded], pairs: Sequence[Pair], *, models: bool) -> Scores:
        pairs = pairs or [self.pair] * len(batch)
        win_probability = np.empty(len(batch), dtype=np.float64)
        by_model = np.empty((len(batch), len(self.manifest.models)), dtype=np.float64) if models else None
        names = ["win_probability", "model_win_probabilities"] if models else ["win_probability"]
        for rows in _runs([len(encoded.input_ids) for encoded in batch]):
            feeds = self._feeds([batch[row] for row in rows], [pairs[row] for row in rows])
            outputs = self._session.run(names, feeds)
            win_probability[rows] = _probabilities(outputs[0])
            if by_model is not None:
                by_model[rows] = _probabilities(outputs[1])
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
                f"{artifacts.TOKENIZER} cannot be used ({_first_line(error)}): export the artefact again"
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
                f"{artifacts.MODEL} fails on {artifacts.GOLDEN} ({_first_line(error)}): export it again"
            ) from error
        golden = np.array([row.win_probability for row in rows])
        deviation = np.maximum(np.abs(alone - golden), np.abs(together - golden))
        worst = int(deviation.argmax())
        if deviation[worst] > GOLDEN_TOLERANCE:
            raise ArtifactError(
                f"{artifacts.GOLDEN} line {worst + 1}: win probability {alone[worst]:.6f} alone and "
                f"{together[worst]:.6f} in a batch, where {golden[worst]:.6f} was exported (tolerance "
                f"{GOLDEN_TOLERANCE:g}): the graph and the golden rows are not of one export, export both again"
            )
        return float(deviation[worst])

    def _score_padded(self, batch: Sequence[Encoded]) -> Probabilities:
        """Scores where nearly every input is padded, which the runs of `OnnxScorer.score` avoid."""
        order = sorted(range(len(batch)), key=lambda row: len(batch[row].input_ids))
        win_probability = np.empty(len(batch), dtype=np.float64)
        for start in range(0, len(order), _REPLAY_ROWS):
            rows = order[start : start + _REPLAY_ROWS]
            win_probability[rows] = self.onnx.score_together([batch[row] for row in rows])
        return win_probability


def open_scorer(directory: Path, *, threads: int = 0) -> ConversationScorer:
    """Load, check and prove the artefact in `directory`.

    Raises:
        ArtifactError: it cannot be served; one line says why and what to do.
    """
    return ConversationScorer(artifacts.load(directory), threads=threads)


def _runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Split a batch, given its inputs' lengths, into the rows of each run of the graph."""
    run: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[row]  # Ascending, so that this input would be the run's longest.
        if run and (longest > lengths[run[0]] * _MAX_STRETCH or longest * (len(run) + 1) > _MAX_TOKENS_PER_RUN):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _probabilities(output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.all((output >= 0) & (output <= 1)):  # also refuses NaN
        raise ArithmeticError(f"{artifacts.MODEL} gave a value outside [0, 1]")
    return output


def _usable_cpus() -> int:
    # Containers and taskset restrict a process to some CPUs; macOS cannot and has no such call.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
