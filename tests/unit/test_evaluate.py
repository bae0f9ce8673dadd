"""What `pointsman evaluate` reports of tiny artefacts: served numbers, beside the baselines and the paper's rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from pointsman.cli import main
from scorer_service.preprocess import Role, Turn
from scorer_service.scorer import open_scorer
from tests import artifacts, shared_data
from tests.artifacts import MIDDLE, STRONG, WEAK
from training import evaluate, metrics, published, sketch, tables
from training.corpus import LabelledSet
from training.evaluate import Benchmark
from training.rankings import Prices
from training.tables import DataError

PRICES = Prices(10.0, 1.0)


def prompts(count: int = 60) -> tuple[str, ...]:
    generator = np.random.default_rng(0)
    return tuple(" ".join(generator.choice(artifacts.WORDS, size=generator.integers(1, 20))) for _ in range(count))


def benchmark(seed: int = 0, **more: str) -> Benchmark:
    generator = np.random.default_rng(seed)
    strong = (generator.random(60) < 0.8).astype(float)
    weak = (generator.random(60) < 0.5).astype(float)
    return Benchmark("tiny", LabelledSet("tiny", prompts(), strong, weak), "0" * 64, **more)


def test_the_probabilities_are_those_that_serving_gives(tmp_path: Path) -> None:
    scorer = open_scorer(artifacts.write(tmp_path / "a"))
    found = evaluate.win_probabilities(scorer, prompts())
    alone = [scorer.onnx.score([scorer.preprocessor.encode([Turn(Role.USER, text)])])[0] for text in prompts()]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="no text"):
        evaluate.win_probabilities(scorer, ["  "])


def test_a_result_agrees_with_the_metrics_of_its_scores(tmp_path: Path) -> None:
    first, second = (artifacts.write(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    told: list[tuple[str, int, int]] = []
    subject = benchmark()
    result = evaluate.evaluate(
        subject, evaluate.named_artifacts([first, second]), PRICES, draws=50, progress=lambda *told_: told.append(told_)
    )
    gain = subject.labelled.gain
    for artifact in result.artifacts:
        assert artifact.ranking.apgr.value == pytest.approx(metrics.apgr(artifact.probabilities, gain))
        assert artifact.ranking.apgr.low <= artifact.ranking.apgr.value <= artifact.ranking.apgr.high
        assert artifact.warnings == ()
    random, length, oracle = result.baselines
    assert random.apgr.value == pytest.approx(
        np.mean([metrics.apgr(scores, gain) for scores in metrics.random_scores(len(gain))])
    )
    assert length.apgr.value == pytest.approx(metrics.apgr([len(text) for text in prompts()], gain))
    assert all(oracle.apgr.value >= artifact.ranking.apgr.value for artifact in result.artifacts)
    assert result.wins == pytest.approx(np.mean(gain > 0))
    assert result.losses == pytest.approx(np.mean(gain < 0))
    compared = [(comparison.first, comparison.second) for comparison in result.comparisons]
    assert compared == [("a", "b"), ("a", "prompt length"), ("b", "prompt length")]
    assert result.comparisons[0].apgr.value == pytest.approx(
        result.artifacts[0].ranking.apgr.value - result.artifacts[1].ranking.apgr.value
    )
    assert told[-1] == ("b on tiny", 60, 60)


def test_prompts_about_one_passage_go_together_and_those_of_one_template_do_not() -> None:
    passage = "It was a dark night at the junction. " * 10
    texts = [f"question {place}" for place in range(98)]
    groups = evaluate.alike([*texts, passage + "Who?", passage + "Why?"])
    assert len(set(groups)) == 99
    assert groups[98] == groups[99]
    groups = evaluate.alike([*(passage + text for text in texts), "same", "same"])
    assert len(set(groups)) == 99
    assert groups[98] == groups[99]


def test_an_artefact_that_was_trained_on_the_file_is_no_result(tmp_path: Path) -> None:
    directory = artifacts.write(tmp_path / "a")
    artifacts.edit_manifest(directory, lambda manifest: manifest["data"].update({"x.csv": {"sha256": "0" * 64}}))
    result = evaluate.evaluate(benchmark(), evaluate.named_artifacts([directory]), PRICES, draws=10)
    [warning] = result.artifacts[0].warnings
    assert "was trained on x.csv, which is this very file" in warning


def test_an_artefact_that_has_seen_some_of_the_prompts_says_how_many(tmp_path: Path) -> None:
    directory = artifacts.write(tmp_path / "a")
    lessons = sketch.make([*prompts()[:15], "and others"])
    source = {"sha256": "1" * 64, "prompt_sketch": lessons}
    artifacts.edit_manifest(directory, lambda manifest: manifest["data"].update({"part.csv": source}))
    result = evaluate.evaluate(benchmark(), evaluate.named_artifacts([directory]), PRICES, draws=10)
    [warning] = result.artifacts[0].warnings
    # Two of the 60 are equal.
    assert "has seen about 26% of these prompts in part.csv (15 of 58" in warning


def test_a_scorer_of_many_models_scores_the_pair_that_is_asked_for(tmp_path: Path) -> None:
    scorers = evaluate.named_artifacts([artifacts.write(tmp_path / "many", many=True)])
    asked = benchmark(strong_model=STRONG, weak_model=MIDDLE)
    result = evaluate.evaluate(asked, scorers, PRICES, draws=10)
    expected = evaluate.win_probabilities(scorers["many"], prompts(), (STRONG, MIDDLE))
    np.testing.assert_array_equal(result.artifacts[0].probabilities, expected)
    assert "no calibrator for strong-model / middle-model" in result.artifacts[0].warnings[0]


def test_a_scorer_of_another_pair_says_so(tmp_path: Path) -> None:
    scorers = evaluate.named_artifacts([artifacts.write(tmp_path / "one")])
    result = evaluate.evaluate(benchmark(strong_model="X", weak_model="Y"), scorers, PRICES, draws=10)
    assert result.artifacts[0].warnings == (f"scores {STRONG} / {WEAK}, not X / Y",)


def test_artefacts_of_one_name_go_by_their_path(tmp_path: Path) -> None:
    paths = [artifacts.write(tmp_path / folder / "a") for folder in ("x", "y")]
    assert list(evaluate.named_artifacts(paths)) == [str(path) for path in paths]


def test_the_command_prints_a_table_and_writes_report_and_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = artifacts.write(tmp_path / "mine")
    rows = ["prompt,strong_correct,weak_correct"]
    labelled = benchmark().labelled
    rows += [f"{text},{s},{w}" for text, s, w in zip(prompts(), labelled.strong, labelled.weak, strict=True)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(rows))
    arguments = ["evaluate", "--artifact", str(directory), "--benchmark", f"gsm8k={file}"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--draws", "50"]) == 0
    printed = capsys.readouterr().out
    for expected in ("gsm8k: 60 labelled prompts", "mine", "random", "prompt length", "oracle", "Causal LLM (8B)"):
        assert expected in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    [found] = report["benchmarks"]
    assert found["artifacts"][0]["version"] == open_scorer(directory).artifact.version
    assert set(found["artifacts"][0]["cpt"]) == {"0.2", "0.5", "0.8"}
    assert found["published"][0]["apgr"] == 0.622
    text = (tmp_path / "out" / "report.md").read_text()
    for plot in ("gsm8k-pgr.png", "gsm8k-reliability.png", "gsm8k-scores.png"):
        assert f"![]({plot})" in text
        assert (tmp_path / "out" / plot).read_bytes().startswith(b"\x89PNG")


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = tmp_path / "worse.csv"
    worse.write_text("prompt,strong_score,weak_score\nq,0,1\n")
    for arguments, expected in (
        (["--benchmark", str(tmp_path / "none.csv")], "is missing"),
        (["--benchmark", str(worse)], "worse: the strong model's answers are not better on average"),
        (["--benchmark", str(worse), str(worse)], "give them as NAME=FILE"),
        (["--benchmark", str(worse), "--artifact", str(tmp_path)], "manifest.json is missing"),
    ):
        assert main(["evaluate", *arguments]) == 1
        assert expected in capsys.readouterr().err


def test_the_papers_rows_belong_to_its_benchmarks_only() -> None:
    assert published.rows("mmlu_dev")[0].apgr == 0.603
    assert published.rows("MT-Bench")[0].cpt50 == 0.1340
    assert published.rows("mmlu_pro") == ()
    assert published.rows("mine") == ()


def test_a_fingerprint_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert tables.fingerprint(tmp_path / "f").startswith("ba7816bf8f01cfea")


@shared_data.needed
def test_the_shipped_artefact_warns_of_its_own_training_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--benchmark", str(shared_data.FOLDER / "eval/gsm8k_dev.parquet"), "--draws", "20"]) == 0
    printed = capsys.readouterr().out
    assert "gsm8k_dev: 660 labelled prompts" in printed
    assert "was trained on eval/gsm8k_dev.parquet, which is this very file" in printed
