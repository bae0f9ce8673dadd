"""From a data folder to served scores: `kernel` and `static` train on labels, are measured, and are served."""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from pointsman.cli import main
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from scorer_service import artifact
from scorer_service.scorer import open_scorer
from tests import battles, processes
from training import data, evaluate

pytestmark = pytest.mark.timeout(240)

KINDS = ("kernel", "static")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the artefacts `kernel`, `static` and `again`, a `static` of the same seed."""
    folder = battles.write_folder(tmp_path_factory.mktemp("data") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)  # the cache of encoded prompts lies in the working directory
        for kind, out in (("kernel", "kernel"), ("static", "static"), ("static", "again")):
            made = main(
                [
                    *("train", "--router", kind, "--data", str(folder), "--out", str(folder / out)),
                    *("--set", f"labels={folder / 'labels.csv'}", "--set", "landmarks=64", "--set", "folds=5"),
                ]
            )
            assert made == 0
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_tells_what_it_was_trained_on(folder: Path, kind: str) -> None:
    manifest = artifact.load(folder / kind).manifest
    assert manifest.router_kind == kind
    assert manifest.training["config"]["labels"] == "labels.csv"
    assert manifest.training["config"]["landmarks"] == 64
    assert manifest.data["labels.csv"]["rows"] == 240
    assert not [name for name in manifest.data if name.startswith("eval/")]
    assert manifest.metrics["labels"]["labels"] == 240
    assert manifest.metrics["arena_hard"]["labels"] == 40


def test_training_again_with_the_same_seed_gives_the_same_numbers(folder: Path) -> None:
    once, again = (artifact.load(folder / name).golden_rows() for name in ("static", "again"))
    np.testing.assert_allclose(
        [row.win_probability for row in again], [row.win_probability for row in once], atol=1e-6, rtol=0
    )


def test_both_are_measured_in_one_report_on_rows_they_have_not_seen(folder: Path, tmp_path: Path) -> None:
    report = ["--benchmark", f"traffic={folder / 'kept_back.csv'}", "--out", str(tmp_path), "--draws", "50"]
    assert main(["evaluate", "--artifact", *(str(folder / kind) for kind in KINDS), *report]) == 0
    [found] = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    assert [each["name"] for each in found["artifacts"]] == list(KINDS)
    for each in found["artifacts"]:
        # Harder tasks are where the weak model fails: a router that learnt nothing would stand at one half.
        assert each["apgr"]["value"] > 0.55
        assert each["warnings"] == []


async def test_the_scorer_serves_what_evaluation_measured(folder: Path) -> None:
    prompts = data.read(folder / "kept_back.csv").pair().prompts[:12]
    served = ",".join(f"{kind}={folder / kind}" for kind in KINDS)
    with processes.scorer({"SCORER_ARTIFACTS": served}) as scorer:
        async with grpc.aio.insecure_channel(scorer.grpc) as channel:
            stub = scorer_pb2_grpc.ScorerServiceStub(channel)
            for kind in KINDS:
                asked = [
                    scorer_pb2.ScoreRequest(
                        conversation=scorer_pb2.Conversation(
                            turns=[scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=prompt)]
                        ),
                        scorer=kind,
                    )
                    for prompt in prompts
                ]
                answers = [(await stub.Score(request, timeout=10)).win_probability for request in asked]
                measured = evaluate.win_probabilities(open_scorer(folder / kind), prompts)
                np.testing.assert_allclose(answers, measured, atol=1e-6, rtol=0)
