"""`pointsman evaluate --strategies`: every scorer trained anew for each fold, written, served, and compared."""

import json
from pathlib import Path

import pytest

from pointsman.cli import main
from tests import artifacts, battles, graded_answers


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_command_compares_strategies_in_the_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the encoder's cache goes there
    data, rows = battles.write_folder(tmp_path / "data"), graded_answers.write(tmp_path / "sums.jsonl", prompts=160)
    artifacts.write(tmp_path / "mine")
    arguments = ["evaluate", "--artifact", str(tmp_path / "mine"), "--benchmark", f"sums={rows}", "--draws", "50"]
    strategies = ["--strategies", "--router", "static", "--folds", "2", "--data", str(data)]
    assert main([*arguments, *strategies, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "every scorer (router 'static') and threshold fitted to the other 1 of 2 folds" in " ".join(printed.split())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["benchmarks"]) == 1
    [found] = report["strategies"]
    assert (found["name"], found["prompts"], found["folds"]) == ("sums", 160, 2)
    assert set(found["curves"]) == {"route", "cascade", "hybrid", "oracle"}
    half = found["budgets"].index(0.5)
    # Sums that do not come out are seen in the answer, and not in the prompt.
    assert found["curves"]["cascade"][half]["quality"]["value"] > found["curves"]["route"][half]["quality"]["value"]
    assert found["fixed"]["ensemble"]["cost"]["value"] > 1.0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Strategies" in text
    assert (tmp_path / "out" / "sums-strategies.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_three_models_are_compared_by_a_router_that_knows_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = graded_answers.write_three(tmp_path / "three.jsonl", prompts=120)
    artifacts.write(tmp_path / "mine")
    arguments = ["evaluate", "--artifact", str(tmp_path / "mine"), "--benchmark", str(rows), "--draws", "50"]
    strategies = ["--strategies", "--router", "sw", "--folds", "2", "--data", str(tmp_path)]
    prices = ["--usd", "large=10", "small=0.5", "medium=2"]
    assert main([*arguments, *strategies, *prices, "--out", str(tmp_path / "out")]) == 0
    assert "120 prompts with 3 answers" in " ".join(capsys.readouterr().out.split())
    [found] = json.loads((tmp_path / "out" / "report.json").read_text())["strategies"]
    assert found["usd_per_million_tokens"] == {"small": 0.5, "medium": 2.0, "large": 10.0}
    half = found["budgets"].index(0.5)
    assert found["curves"]["cascade"][half]["quality"]["value"] > found["curves"]["route"][half]["quality"]["value"]
    assert found["fixed"]["ensemble"]["cost"]["value"] > 1.2


def test_what_strategies_need_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("prompt,strong_correct,weak_correct\nq,1,0\nr,1,1\n")
    arguments = ["evaluate", "--benchmark", str(tmp_path / "labels.csv"), "--strategies", "--data"]
    assert main([*arguments, str(tmp_path), "--folds", "1"]) == 2
    assert "--strategies needs --data FOLDER (or POINTSMAN_DATA) and 2 folds or more" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path), "--draws", "20"]) == 1
    assert "holds no graded answers" in capsys.readouterr().err
