"""The artefact: a directory that holds a trained scorer, and the only reader of it.

model.onnx       input_ids, attention_mask int64 [batch, tokens] -> win_probability float [batch], calibrated
                 many models: also strong_model, weak_model int64 [batch], indices into the manifest's `models`,
                 and optionally -> wins_over_strong float [batch, models], each against the row's strong model
                 kinds `answer` and `ranker` judge answers and take more, see `judge`
tokenizer.json   a Hugging Face `tokenizers` file
golden.jsonl     conversations with the token ids and win probabilities that serving must reproduce
manifest.json    what the rest means, with their hashes; its own hash is the scorer's version
"""

import enum
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scorer_service.golden import GoldenRow, parse_golden_row
from scorer_service.preprocess import ANSWER_VERSION, PreprocessSpec

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
GOLDEN: Final = "golden.jsonl"
HASHED_FILES: Final = (MODEL, TOKENIZER, GOLDEN)


class Task(enum.Enum):
    """What an artefact is for."""

    PREDICT = "predict which model should answer"
    SCORE_ANSWER = "say whether an answer is acceptable"
    RANK_ANSWERS = "say which answer is best"


_TASKS: Final = {"answer": Task.SCORE_ANSWER, "ranker": Task.RANK_ANSWERS}
"""By router kind; all other kinds predict."""


class ArtifactError(Exception):
    """An artefact cannot be served. The message is one line: what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`manifest.json` as values.

    Attributes:
        router_kind: how it was made: `static`, `kernel`, `mf`, `sw`, `bert` or `causal_lm`, or of one that judges
            answers, `answer` or `ranker`.
        strong_model: of the pair it was fitted on; the default pair of a scorer of many models. Empty, as are the next
            and `models`, of one that judges answers: any model may have written them.
        weak_model: likewise.
        models: every model it knows, strongest first; for a scorer of one pair, that pair.
        preprocess: how a conversation becomes token ids.
        score_quantiles: of its probability on the reference prompts, at evenly spaced levels from 0 to 1.
        calibrated_pairs: the (strong, weak) pairs whose calibrator is in the graph.
        files: SHA-256 in hex of each of `HASHED_FILES`.
        data: fingerprint of the training data; not read here.
        training: configuration, seed and versions; not read here.
        metrics: as measured after training; not read here.
    """

    router_kind: str
    strong_model: str
    weak_model: str
    models: tuple[str, ...]
    preprocess: PreprocessSpec
    score_quantiles: tuple[float, ...]
    calibrated_pairs: frozenset[tuple[str, str]]
    files: Mapping[str, str]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def task(self) -> Task:
        """What it is for."""
        return _TASKS.get(self.router_kind, Task.PREDICT)

    def to_json(self) -> str:
        """The text of `manifest.json`: the same values give the same bytes, and so the same version."""
        spec = self.preprocess
        document = {
            "format": FORMAT,
            "router_kind": self.router_kind,
            "strong_model": self.strong_model,
            "weak_model": self.weak_model,
            "models": list(self.models),
            "preprocess": {
                "version": spec.version,
                "max_tokens": spec.max_tokens,
                "truncation_side": spec.truncation_side,
                "pad_id": spec.pad_id,
                "add_special_tokens": spec.add_special_tokens,
                # Not in version 1, whose readers know no such keys.
                **({"prefix": spec.prefix, "suffix": spec.suffix} if spec.version > 1 else {}),
                **({"answer_tokens": spec.answer_tokens} if spec.answer_tokens else {}),
            },
            "score_quantiles": list(self.score_quantiles),
            "calibrated_pairs": sorted(map(list, self.calibrated_pairs)),
            "files": dict(self.files),
            "data": dict(self.data),
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerArtifact:
    """A directory whose files are there and have the hashes that its manifest states.

    `version` is the first 16 hex digits of the SHA-256 of `manifest.json`: equal versions give equal numbers.
    """

    directory: Path
    version: str
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.directory / MODEL

    @property
    def tokenizer_path(self) -> Path:
        return self.directory / TOKENIZER

    def golden_rows(self) -> list[GoldenRow]:
        """Read `golden.jsonl`.

        Raises:
            ArtifactError: a line is no golden row, or there is none.
        """
        rows = []
        with (self.directory / GOLDEN).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    rows.append(parse_golden_row(json.loads(line)))
                except (ValueError, KeyError, TypeError) as error:
                    raise ArtifactError(
                        f"{GOLDEN} line {number} is no golden row ({error!r}): export it again"
                    ) from error
        if not rows:
            raise ArtifactError(f"{GOLDEN} is empty, so that nothing shows the scores to be right: export it again")
        return rows


def load(directory: Path) -> ScorerArtifact:
    """Read and check a directory; runs no model.

    Raises:
        ArtifactError: a file is missing, has another hash, or the manifest is not one this version can serve.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is not a directory: point the setting at an exported artefact")
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{MANIFEST} is missing: export the artefact again, or copy the whole directory") from None
    manifest = parse_manifest(content)
    for name in HASHED_FILES:
        _check_hash(directory / name, manifest.files[name])
    return ScorerArtifact(directory=directory, version=version_of(content), manifest=manifest)


def version_of(manifest_bytes: bytes) -> str:
    """`scorer_version` of an artefact with this `manifest.json`."""
    return hashlib.sha256(manifest_bytes).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_manifest(content: bytes) -> Manifest:
    """Parse `manifest.json`. Keys this version does not know are ignored.

    Raises:
        ArtifactError: it is no manifest, of another format, or cannot be right.
    """
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise ArtifactError(
                f"{MANIFEST} has format {document['format']!r}, and this scorer reads format {FORMAT}: "
                "export the artefact again, or run the scorer's version that it was made for"
            )
        manifest = _manifest(document)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{MANIFEST} cannot be read ({error!r}): export the artefact again") from error
    problem = _problem(manifest)
    if problem:
        raise ArtifactError(f"{MANIFEST}: {problem}; export the artefact again")
    return manifest


def _manifest(document: Mapping[str, Any]) -> Manifest:
    spec = document["preprocess"]
    return Manifest(
        router_kind=str(document["router_kind"]),
        strong_model=str(document["strong_model"]),
        weak_model=str(document["weak_model"]),
        models=tuple(map(str, document["models"])),
        preprocess=PreprocessSpec(
            version=int(spec["version"]),
            max_tokens=int(spec["max_tokens"]),
            truncation_side=spec["truncation_side"],
            pad_id=int(spec["pad_id"]),
            add_special_tokens=bool(spec["add_special_tokens"]),
            prefix=str(spec.get("prefix", "")),
            suffix=str(spec.get("suffix", "")),
            answer_tokens=int(spec.get("answer_tokens", 0)),
        ),
        score_quantiles=tuple(map(float, document["score_quantiles"])),
        calibrated_pairs=frozenset((str(strong), str(weak)) for strong, weak in document["calibrated_pairs"]),
        files={name: str(document["files"][name]) for name in HASHED_FILES},
        data=dict(document["data"]),
        training=dict(document["training"]),
        metrics=dict(document["metrics"]),
    )


def _problem(manifest: Manifest) -> str:
    """What cannot be right in a manifest, or nothing."""
    quantiles = manifest.score_quantiles
    if problem := manifest.preprocess.problem() or _task_problem(manifest):
        return problem
    if manifest.preprocess.truncation_side not in ("left", "right"):
        return f"truncation_side is {manifest.preprocess.truncation_side!r}, not 'left' or 'right'"
    if len(quantiles) < 2 or not all(0 <= q <= 1 for q in quantiles):  # also refuses NaN
        return "score_quantiles must be two or more probabilities"
    if any(low > high for low, high in itertools.pairwise(quantiles)):
        return "score_quantiles must ascend"
    return ""


def _task_problem(manifest: Manifest) -> str:
    """What does not go with the task in a manifest, or nothing."""
    kind, version = manifest.router_kind, manifest.preprocess.version
    judges = manifest.task is not Task.PREDICT
    if judges != (version == ANSWER_VERSION):
        return f"router kind {kind!r} does not go with preprocess version {version}"
    pair = {manifest.strong_model, manifest.weak_model}
    if judges:
        named = pair != {""} or manifest.models
        return f"router kind {kind!r} judges any model's answers, so it must name no models" if named else ""
    if len(pair) < 2 or not pair <= set(manifest.models) or len(set(manifest.models)) < len(manifest.models):
        return "models must be distinct and hold strong_model and weak_model, which must differ"
    return ""


def _check_hash(path: Path, expected: str) -> None:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path.name} is missing: export the artefact again, or copy the whole directory") from None
    if actual != expected:
        raise ArtifactError(
            f"{path.name} has SHA-256 {actual[:16]}…, and {MANIFEST} says {expected[:16]}…: "
            "it was changed or cut short, copy the whole directory again"
        )
