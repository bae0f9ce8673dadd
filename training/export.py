"""A trained router -> an artefact directory, or a refusal."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service import artifact
from scorer_service.artifact import Manifest
from scorer_service.golden import GoldenRow
from scorer_service.preprocess import Preprocessor, PreprocessSpec
from scorer_service.scorer import OnnxScorer
from training import golden
from training.errors import TrainingError

TOLERANCE = 1e-5
"""Largest difference between training's and serving's win probability that may leave the house."""

QUANTILES = 201
"""Evenly spaced levels from 0 to 1 of `score_quantiles`."""


class ExportError(TrainingError):
    """The artefact must not be shipped. The message is one line that says why."""


class TrainedRouter(Protocol):
    """What an export needs to know of a router; `win_probability` is that of its default pair."""

    @property
    def kind(self) -> str: ...

    @property
    def preprocess(self) -> PreprocessSpec: ...

    @property
    def tokenizer_json(self) -> str: ...

    def win_probability(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]: ...

    def onnx(self) -> onnx.ModelProto: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the manifest tells beyond the graph.

    Attributes:
        strong_model, weak_model: the pair; of a router of many models its default pair.
        score_quantiles: `QUANTILES` ascending win probabilities of the reference prompts.
        data: file name -> sha256, rows, licence.
        training: configuration, seed, versions.
        metrics: as measured, with label counts.
        models: of a router of many models, strongest first; empty stands for the pair.
        calibrated_pairs: whose calibrators are in the graph; empty stands for the pair.
    """

    strong_model: str
    weak_model: str
    score_quantiles: Sequence[float]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    models: tuple[str, ...] = ()
    calibrated_pairs: frozenset[tuple[str, str]] = frozenset()


def preprocessor(router: TrainedRouter) -> Preprocessor:
    """The serving path's tokenisation for this router."""
    return Preprocessor(Tokenizer.from_str(router.tokenizer_json), router.preprocess)


def write(router: TrainedRouter, provenance: Provenance, out: Path) -> artifact.ScorerArtifact:
    """Write the directory, then score the golden rows with what was written.

    Files that stand in `out` beside the artefact's own, such as a model card, stay.

    Raises:
        ExportError: the served probability of a golden row differs from training's by more than `TOLERANCE`. `out`
            is as it was.
    """
    encode = preprocessor(router).encode
    turns = golden.conversations()
    encoded = [encode(conversation) for conversation in turns]
    expected = router.win_probability([row.input_ids for row in encoded])
    rows = [
        GoldenRow(
            turns=conversation,
            input_ids=row.input_ids,
            truncated=row.truncated,
            win_probability=float(probability),
        )
        for conversation, row, probability in zip(turns, encoded, expected, strict=True)
    ]

    def check(draft: artifact.ScorerArtifact) -> None:
        refuse_difference(OnnxScorer(draft, threads=1).score(encoded), expected)

    content = Content(router.onnx(), router.tokenizer_json, rows)
    return publish(content, _manifest(router, provenance), out, check=check)


@dataclass(frozen=True, slots=True)
class Content:
    """What an artefact holds beside its manifest."""

    model: onnx.ModelProto
    tokenizer_json: str
    golden_rows: Sequence[GoldenRow]


def publish(
    content: Content, manifest: Manifest, out: Path, *, check: Callable[[artifact.ScorerArtifact], None]
) -> artifact.ScorerArtifact:
    """Write an artefact directory in one step: beside `out` first, and over to it if `check` raises nothing.

    Args:
        content: of the files.
        manifest: without their hashes.
        out: directory, made or overwritten.
        check: is shown the draft.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        draft = Path(name)
        onnx.save_model(content.model, draft / artifact.MODEL)
        (draft / artifact.TOKENIZER).write_text(content.tokenizer_json, encoding="utf-8")
        lines = "".join(row.to_json() + "\n" for row in content.golden_rows)
        (draft / artifact.GOLDEN).write_text(lines, encoding="utf-8")
        files = {file: artifact.sha256_of(draft / file) for file in artifact.HASHED_FILES}
        (draft / artifact.MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")
        check(artifact.load(draft))
        out.mkdir(exist_ok=True)
        # The manifest goes last: until it is there, the old one's hashes do not fit, and nothing mixed is served.
        for file in (*artifact.HASHED_FILES, artifact.MANIFEST):
            (draft / file).replace(out / file)
    return artifact.load(out)


def _manifest(router: TrainedRouter, provenance: Provenance) -> Manifest:
    pair = provenance.strong_model, provenance.weak_model
    return Manifest(
        router_kind=router.kind,
        strong_model=provenance.strong_model,
        weak_model=provenance.weak_model,
        models=provenance.models or pair,
        preprocess=router.preprocess,
        score_quantiles=tuple(map(float, provenance.score_quantiles)),
        calibrated_pairs=provenance.calibrated_pairs or frozenset({pair}),
        files={},
        data=provenance.data,
        training=provenance.training,
        metrics=provenance.metrics,
    )


def refuse_difference(served: NDArray[np.float64], expected: NDArray[np.float32]) -> None:
    """Compare what the graph says of the golden rows with what training says.

    Raises:
        ExportError: they differ by more than `TOLERANCE` somewhere.
    """
    difference = np.abs(served - expected)
    worst = int(np.argmax(difference))
    if not difference[worst] <= TOLERANCE:  # also refuses NaN
        raise ExportError(
            f"golden row {worst + 1} is {expected[worst]:.7f} in training and {served[worst]:.7f} in the graph: "
            f"they may differ by {TOLERANCE:g} at most"
        )
