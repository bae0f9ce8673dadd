"""What every scorer needs of ONNX Runtime: a session on an artefact's graph, and runs whose padding is bounded."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, ScorerArtifact

_MAX_TOKENS_PER_RUN: Final = 8_192
"""Padded tokens in one run of the graph: bounds its memory. Attention of 12 heads over 16 × 512 tokens is 200 MiB."""

ENCODER_STRETCH: Final = 1.25
"""In one run, the longest input has at most this many times the tokens of the shortest: at most a fifth is padding."""

STATIC_STRETCH: Final = 2.5
"""The same for graphs of word vectors alone: a run costs as much as some hundred tokens, however few it has."""

GOLDEN_TOLERANCE: Final = 1e-4
"""Largest difference to a golden probability. Processors order float32 sums differently; a wrong file is far off."""

_REPLAY_ROWS: Final = 8
"""Golden rows of neighbouring lengths that are replayed in one padded run."""

Probabilities = npt.NDArray[np.float64]


def open_session(artifact: ScorerArtifact, *, threads: int) -> onnxruntime.InferenceSession:
    """Load an artefact's graph.

    Args:
        artifact: a checked directory.
        threads: that work on one run; 0 takes as many as the process may use.

    Raises:
        ArtifactError: ONNX Runtime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _usable_cpus()
    # Spinning workers answer a microsecond sooner and take the processor from the tokenizer and the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # What goes wrong is raised; its warnings are not our log format.
    try:
        return onnxruntime.InferenceSession(str(artifact.model_path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(
            f"{artifacts.MODEL} cannot be loaded ({first_line(error)}): export it for the installed ONNX Runtime"
        ) from error


def runs(lengths: Sequence[int], *, stretch: float = ENCODER_STRETCH) -> Iterator[list[int]]:
    """Split a batch, given its inputs' lengths, into the rows of each run of the graph; `stretch` bounds padding."""
    run: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[row]  # Ascending, so that this input would be the run's longest.
        if run and (longest > lengths[run[0]] * stretch or longest * (len(run) + 1) > _MAX_TOKENS_PER_RUN):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def padded_runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Split golden rows, given their inputs' lengths, so that nearly every input is padded, which `runs` avoids."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), _REPLAY_ROWS):
        yield order[start : start + _REPLAY_ROWS]


def golden_deviation(golden: Probabilities, alone: Probabilities, together: Probabilities, what: str) -> float:
    """The largest difference between golden probabilities and the same rows' alone, and padded in a batch.

    Raises:
        ArtifactError: it is beyond `GOLDEN_TOLERANCE`; `what` names the probability.
    """
    deviation = np.maximum(np.abs(alone - golden), np.abs(together - golden))
    worst = int(deviation.argmax())
    if deviation[worst] > GOLDEN_TOLERANCE:
        raise ArtifactError(
            f"{artifacts.GOLDEN} line {worst + 1}: {what} {alone[worst]:.6f} alone and "
            f"{together[worst]:.6f} in a batch, where {golden[worst]:.6f} was exported (tolerance "
            f"{GOLDEN_TOLERANCE:g}): the graph and the golden rows are not of one export, export both again"
        )
    return float(deviation[worst])


def probabilities(output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers.

    Raises:
        ArithmeticError: one is outside [0, 1].
    """
    if not np.all((output >= 0) & (output <= 1)):  # also refuses NaN
        raise ArithmeticError(f"{artifacts.MODEL} gave a value outside [0, 1]")
    return output


def _usable_cpus() -> int:
    # Containers and taskset restrict a process to some CPUs; macOS cannot and has no such call.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
