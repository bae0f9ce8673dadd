"""Reading and refusing artefact directories."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, load
from scorer_service.preprocess import Role, Turn
from tests.artifacts import STRONG, WEAK, edit_file, edit_manifest, write


def _refusal(directory: Path) -> str:
    with pytest.raises(ArtifactError) as raised:
        load(directory).golden_rows()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_written_artifact_is_read_back(tmp_path: Path) -> None:
    loaded = load(write(tmp_path))
    assert (loaded.manifest.strong_model, loaded.manifest.weak_model) == (STRONG, WEAK)
    assert loaded.manifest.models == (STRONG, WEAK)
    assert loaded.manifest.calibrated_pairs == {(STRONG, WEAK)}
    assert len(loaded.manifest.score_quantiles) == 201
    assert loaded.golden_rows()[0].turns == (Turn(Role.USER, "hello"),)


def test_a_manifest_survives_writing_and_reading() -> None:
    content = load_sample()
    manifest = artifacts.parse_manifest(content)
    assert artifacts.parse_manifest(manifest.to_json().encode()) == manifest


def test_the_version_is_the_hash_of_the_manifest(tmp_path: Path) -> None:
    directory = write(tmp_path)
    before = load(directory).version
    assert len(before) == 16
    edit_manifest(directory, lambda document: document["metrics"].update(apgr=0.7))
    assert load(directory).version != before


@pytest.mark.parametrize("name", [artifacts.MANIFEST, *artifacts.HASHED_FILES])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    assert f"{name} is missing" in _refusal(tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "nowhere is not a directory" in _refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", artifacts.HASHED_FILES)
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    with (write(tmp_path) / name).open("ab") as file:
        file.write(b" ")
    assert f"{name} has SHA-256" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(format=2), "format 2, and this scorer reads format 1"),
        (lambda d: d["preprocess"].update(version=9), "unknown preprocess version 9"),
        (lambda d: d["preprocess"].update(truncation_side="middle"), "'middle'"),
        (lambda d: d.update(weak_model=d["strong_model"]), "must differ"),
        (lambda d: d.update(weak_model="another"), "models must"),
        (lambda d: d.update(score_quantiles=[0.4, 0.3]), "ascend"),
        (lambda d: d.update(score_quantiles=[0.4, 1.3]), "probabilities"),
        (lambda d: d.update(score_quantiles=[0.4, float("nan")]), "probabilities"),
        (lambda d: d.pop("models"), "'models'"),
        (lambda d: d["files"].pop("model.onnx"), "'model.onnx'"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    edit_manifest(write(tmp_path), change)
    assert problem in _refusal(tmp_path)


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / artifacts.MANIFEST).write_text("{")
    assert "manifest.json cannot be read" in _refusal(tmp_path)


@pytest.mark.parametrize("line", ["{", "{}", '{"turns": [{"role": "robot", "text": "x"}]}'])
def test_a_broken_golden_row_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    edit_file(write(tmp_path), artifacts.GOLDEN, lambda text: f"{text}{line}\n")
    assert "golden.jsonl line 6 is no golden row" in _refusal(tmp_path)


def test_an_artifact_that_proves_nothing_is_refused(tmp_path: Path) -> None:
    edit_file(write(tmp_path), artifacts.GOLDEN, lambda _: "")
    assert "golden.jsonl is empty" in _refusal(tmp_path)


def load_sample() -> bytes:
    """A manifest as another tool may write it: keys in another order, and one that is not known."""
    document = {
        "note": "unknown keys are ignored",
        "format": 1,
        "metrics": {"apgr": 0.7},
        "training": {},
        "data": {"rows": 3},
        "files": {"model.onnx": "a" * 64, "tokenizer.json": "b" * 64, "golden.jsonl": "c" * 64},
        "calibrated_pairs": [["s", "w"]],
        "score_quantiles": [0.1, 0.5, 0.9],
        "preprocess": {
            "version": 1,
            "max_tokens": 16,
            "truncation_side": "left",
            "pad_id": 0,
            "add_special_tokens": False,
        },
        "models": ["s", "w"],
        "weak_model": "w",
        "strong_model": "s",
        "router_kind": "static",
    }
    return json.dumps(document).encode()
