"""Labelling against a real HTTP server that speaks OpenAI chat completions: cost, limits, resuming, failures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pointsman.cli import main
from tests.openai_server import OpenAIServer, openai_server_thread
from training import data, model_calls
from training.data import Grades


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    """One call costs 15 + 5 cached input tokens at $1 and 8 output tokens at $2 per million: $0.000036."""
    running.bodies.clear()
    monkeypatch.setattr(model_calls, "_FIRST_PAUSE", 0.01)
    return running


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def judged(*grades: int) -> list[dict[str, Any]]:
    """The server repeats what it is sent, so that the weak answer can say how it will be graded."""
    return [
        {"prompt": f"q{place}", "strong_response": "best", "weak_response": f"so so. Grade: {grade}"}
        for place, grade in enumerate(grades)
    ]


def label(server: OpenAIServer, kind: str, prompts: Path, out: Path, *more: str) -> int:
    where = ["--base-url", server.base_url, "--prompts", str(prompts), "--out", str(out)]
    return main(["label", kind, *where, *more])


JUDGE = ("--judge", "j", "--price", "j=1,2")


def test_a_judge_grades_answers_and_the_cost_is_shown(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write(tmp_path / "prompts.jsonl", *judged(5, 2, 4))
    assert label(server, "judge", prompts, tmp_path / "out.jsonl", *JUDGE, "--concurrency", "1") == 0
    assert "3 prompts labelled; 3 calls for $0.000108" in capsys.readouterr().out
    content = data.read(tmp_path / "out.jsonl").content
    assert isinstance(content, Grades)
    np.testing.assert_array_equal(content.grades, [5, 2, 4])
    assert rows(tmp_path / "out.jsonl")[0]["cost_nano_usd"] == 36_000
    assert "best" in server.bodies[0]["messages"][1]["content"]


def test_a_run_goes_on_where_the_last_one_stopped(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = write(tmp_path / "prompts.jsonl", *judged(1, 2, 3, 4)), tmp_path / "out.jsonl"
    assert label(server, "judge", prompts, out, *JUDGE, "--limit", "2") == 0
    with out.open("a") as file:  # killed in the middle of a line
        file.write('{"prompt": "q2", "weak_')
    assert label(server, "judge", prompts, out, *JUDGE) == 0
    assert "2 prompts labelled, 2 had theirs" in capsys.readouterr().out
    assert [row["prompt"] for row in rows(out)] == ["q0", "q1", "q2", "q3"]
    assert len(server.bodies) == 4
    assert label(server, "judge", prompts, out, *JUDGE) == 0
    assert len(server.bodies) == 4


def test_spending_stops_at_the_bound(server: OpenAIServer, tmp_path: Path) -> None:
    prompts = write(tmp_path / "prompts.jsonl", *judged(1, 2, 3, 4))
    out = tmp_path / "out.jsonl"
    assert label(server, "judge", prompts, out, *JUDGE, "--max-usd", "0.00005", "--concurrency", "1") == 0
    assert len(rows(out)) == 2  # begun at $0 and at $0.000036, and not at $0.000072


def test_missing_answers_are_asked_of_the_models(server: OpenAIServer, tmp_path: Path) -> None:
    """The server answers `MODEL says: PROMPT`: the last number of both answers is the prompt's."""
    prompts = write(tmp_path / "p.jsonl", {"prompt": "7 times 8", "answer": 8}, {"prompt": "2 plus 2", "answer": "4"})
    models = ("--strong-model", "s", "--weak-model", "w", "--price", "s=10,10", "--price", "w=0,0")
    assert label(server, "golden", prompts, tmp_path / "out.jsonl", "--answers", "number", *models) == 0
    found = {row["prompt"]: (row["strong_correct"], row["weak_correct"]) for row in rows(tmp_path / "out.jsonl")}
    assert found == {"7 times 8": (1, 1), "2 plus 2": (0, 0)}
    assert rows(tmp_path / "out.jsonl")[0]["cost_nano_usd"] == 280_000
    assert {body["model"] for body in server.bodies} == {"s", "w"}
    assert len(data.read(tmp_path / "out.jsonl").pair().prompts) == 2


def test_a_prompt_that_fails_is_left_for_the_next_run(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"prompt": text, "answer": "5"} for text in ("status 503", "status 400", "nonsense", "5")]
    prompts = write(tmp_path / "p.jsonl", *records)
    models = ("--strong-model", "s", "--weak-model", "w", "--price", "s=1,1", "--price", "w=1,1")
    out = tmp_path / "out.jsonl"
    assert label(server, "golden", prompts, out, "--answers", "number", *models, "--concurrency", "1") == 0
    assert "1 prompts labelled, 3 got none" in capsys.readouterr().out
    assert [row["prompt"] for row in rows(out)] == ["5"]
    asked = [body["messages"][0]["content"] for body in server.bodies]
    assert asked.count("status 503") == model_calls.ATTEMPTS
    assert asked.count("status 400") == 1


def test_answers_are_paid_for_once_though_the_judge_fails(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The judge's reply repeats the answer to grade: without a grade in the prompt there is none in it."""
    prompts, out = write(tmp_path / "p.jsonl", {"prompt": "no grade in here"}), tmp_path / "out.jsonl"
    models = ("--strong-model", "s", "--weak-model", "w", "--price", "s=1,2", "--price", "w=1,2")
    assert label(server, "judge", prompts, out, *JUDGE, *models) == 1
    assert "0 prompts labelled, 1 got none (j gave no grade" in capsys.readouterr().out
    assert [body["model"] for body in server.bodies] == ["s", "w", "j"]
    assert label(server, "judge", prompts, out, *JUDGE, *models) == 1
    assert [body["model"] for body in server.bodies[3:]] == ["j"]


def test_what_every_prompt_would_meet_ends_the_run(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    keyless = write(tmp_path / "p.jsonl", {"prompt": "status 401", "answer": "1"}, {"prompt": "1", "answer": "1"})
    models = ("--strong-model", "s", "--weak-model", "w", "--price", "s=1,1", "--price", "w=1,1")
    for arguments, expected in (
        (("golden", keyless, out, "--answers", "number", *models), "HTTP 401"),
        (
            ("golden", keyless, out, "--answers", "number", "--weak-model", "w", "--price", "w=1,1"),
            "name a --strong-model",
        ),
        (("judge", keyless, out, "--judge", "j"), "no price for j: give --price MODEL=IN,OUT"),
        (("judge", keyless, out, "--judge", "j", "--price", "j=free"), "--price j=free is not MODEL=IN,OUT"),
    ):
        kind, prompts, target, *more = arguments
        assert label(server, str(kind), Path(prompts), Path(target), *map(str, more)) == 1
        assert expected in capsys.readouterr().err


def test_quality_scores_become_hybrid_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example of tests/unit/test_hybrid.py: t* = 2 makes the first two prompts easy."""
    weak = [[4.0, 4.0], [3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]
    samples = write(
        tmp_path / "samples.jsonl",
        *({"prompt": f"q{i}", "strong_scores": [5.0, 5.0], "weak_scores": scores} for i, scores in enumerate(weak)),
    )
    assert main(["label", "hybrid", "--samples", str(samples), "--out", str(tmp_path / "out.parquet")]) == 0
    assert "4 transformed labels, t = 2, mean 0.500" in capsys.readouterr().out
    np.testing.assert_array_equal(data.read(tmp_path / "out.parquet").pair().gain, [-1, -1, 1, 1])
    bad = write(tmp_path / "bad.jsonl", {"prompt": "q", "strong_scores": 1, "weak_scores": 2})
    assert main(["label", "hybrid", "--samples", str(bad), "--out", str(tmp_path / "out.parquet")]) == 1
    assert "no column strong_scores with a list" in capsys.readouterr().err


def test_decontamination_leaves_the_other_rows_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.DataFrame(
        {"prompt": ["Why is the sky blue?", "Name a river."], "correct/S": [1.0, 0.0], "correct/W": [0.0, 0.0]}
    )
    frame.write_csv(tmp_path / "train.csv")
    (tmp_path / "eval.txt").write_text("why is the SKY blue\n")
    arguments = ["decontaminate", "--data", str(tmp_path / "train.csv"), "--against", str(tmp_path / "eval.txt")]
    assert main([*arguments, "--out", str(tmp_path / "clean.csv"), "--exact-only"]) == 0
    printed = capsys.readouterr().out
    assert "line 2: evaluation prompt 1, letter for letter" in printed
    assert "1 of 2 rows; left out 1 exact and 0 near" in printed
    assert data.read(tmp_path / "clean.csv").content.prompts == ("Name a river.",)
    assert main([*arguments, "--out", str(tmp_path / "clean.parquet"), "--exact-only"]) == 1
    assert "must be a .csv file" in capsys.readouterr().err
