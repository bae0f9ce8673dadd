"""Scorers and rankers of answers: what they learn from graded answers, and that the served graph says the same."""

from pathlib import Path

import numpy as np
import pytest

from scorer_service.artifact import ScorerArtifact
from scorer_service.judge import open_judge
from scorer_service.preprocess import Role, Turn
from tests import graded_answers
from training import answer_rows, fit_answer, fit_ranker, judge_report, judging, kernel_fit, train
from training.kernel_fit import PENALTIES, SHARPNESS
from training.routers.difficulty_kernel import gaussian
from training.routers.ranker import slope_of
from training.tables import DataError

SETTINGS = ["folds=4", "landmarks=64"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graded_answers.write(tmp_path_factory.mktemp("rows") / "sums.jsonl")


@pytest.fixture(scope="module")
def made(rows: Path) -> dict[str, ScorerArtifact]:
    return {
        kind: train.train(kind, rows.parent, rows.parent / kind, [f"rows={rows}", *SETTINGS])
        for kind in ("answer", "ranker")
    }


def test_a_scorer_of_answers_tells_right_from_wrong_on_prompts_held_out(made: dict[str, ScorerArtifact]) -> None:
    measured = made["answer"].manifest.metrics["all"]
    value, low, high = measured["auc"]["prompt and answer"]
    assert 0.9 < low <= value <= high <= 1.0
    assert measured["auc"]["prompt only"][0] < 0.8
    assert measured["brier_skill"] > 0.3


def test_a_ranker_picks_the_right_answer_of_prompts_held_out(made: dict[str, ScorerArtifact]) -> None:
    measured = made["ranker"].manifest.metrics
    assert measured["accuracy"]["ranker"][1] > 0.8
    assert measured["brier"] < measured["brier_of_one_half"]


@pytest.mark.parametrize("kind", ["answer", "ranker"])
def test_the_served_graph_says_what_training_says(made: dict[str, ScorerArtifact], rows: Path, kind: str) -> None:
    # Opening proves the golden rows; these are others, in one batch.
    judge = open_judge(made[kind].directory, threads=1)
    found = judging.read(rows.parent, rows)
    if kind == "answer":
        router, _ = fit_answer.train(found, fit_answer.Config(landmarks=64))
        chosen, expected = list(found.encoded), router.probability(found.encoded)
    else:
        ranker, _ = fit_ranker.train(found, fit_ranker.Config(landmarks=64))
        first, second, _ = fit_ranker.pairs(found)
        chosen = fit_ranker.together(found, first, second)
        expected = ranker.probability(chosen)
    np.testing.assert_allclose(judge.onnx.probabilities(chosen), expected, atol=1e-5, rtol=0)


def test_the_served_judges_prefer_the_right_answer(made: dict[str, ScorerArtifact]) -> None:
    answer, ranker = (open_judge(made[kind].directory, threads=1) for kind in ("answer", "ranker"))
    turns = [Turn(Role.USER, "Gus has 31 maps and gets 12 more from a friend. How many maps are there now?")]
    right, wrong = "31 + 12 = <<31+12=43>>43.\n#### 43", "31 + 12 = <<31+12=47>>47.\n#### 47"
    scores = answer.judge([answer.preprocessor.passages(turns, [text]) for text in (right, wrong)]).probabilities
    assert scores[0] > 0.7
    assert scores[1] < 0.4
    [preferred] = ranker.judge([ranker.preprocessor.passages(turns, [right, wrong])]).probabilities
    assert preferred > 0.8


def test_training_twice_gives_the_same_artefact(made: dict[str, ScorerArtifact], rows: Path, tmp_path: Path) -> None:
    again = train.train("answer", rows.parent, tmp_path / "again", [f"rows={rows}", *SETTINGS])
    assert again.version == made["answer"].version


def test_long_rows_and_pair_rows_are_the_same_answers(rows: Path, tmp_path: Path) -> None:
    pair = answer_rows.read(rows)
    lines = ["prompt,answer,correct,model"]
    lines += [
        f'"{prompt}","{answer}",{quality:g},{model}'
        for prompt, answer, quality, model in zip(pair.prompts, pair.answers, pair.quality, pair.models, strict=True)
    ]
    (tmp_path / "long.csv").write_text("\n".join(lines), encoding="utf-8")
    long = answer_rows.read(tmp_path / "long.csv")
    assert (long.prompts, long.answers, long.models) == (pair.prompts, pair.answers, pair.models)
    np.testing.assert_array_equal(long.quality, pair.quality)
    first, second = long.pairs()
    assert len(first) == 80
    assert all(long.prompts[one] == long.prompts[other] for one, other in zip(first, second, strict=True))


def test_wide_rows_of_three_models_and_long_ones_are_the_same_answers(tmp_path: Path) -> None:
    wide = answer_rows.read(graded_answers.write_three(tmp_path / "wide.jsonl", wide=True))
    long = answer_rows.read(graded_answers.write_three(tmp_path / "long.jsonl"))
    assert set(wide.models) == set(graded_answers.MODELS)
    answers = [
        sorted(zip(rows.prompts, rows.models, rows.answers, rows.quality.tolist(), strict=True))
        for rows in (wide, long)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("prompt,correct\na,1\n", "holds no graded answers"),
        ("prompt,answer,correct\na,,1\n", "no answer with text and quality"),
        ("prompt,answer,correct\na,b,1\n", "has 1 graded answers: give 40 or more"),
    ],
)
def test_a_file_that_teaches_nothing_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(DataError, match=problem):
        train.train("answer", tmp_path, tmp_path / "out", [f"rows={tmp_path / 'rows.csv'}"])


def test_answers_that_are_all_acceptable_are_refused_with_the_setting_to_change(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="acceptable=-1, with qualities from 0 to 1"):
        train.train("answer", rows.parent, tmp_path / "out", [f"rows={rows}", "acceptable=-1"])


def test_held_out_scores_are_those_of_a_fit_without_the_group() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 4)).astype(np.float32)
    outcomes, groups = generator.normal(size=30), np.repeat(np.arange(10), 3)
    fitted = kernel_fit.fit(features, outcomes, groups, landmarks=30, seed=0)
    assert fitted.sharpness in SHARPNESS
    assert fitted.penalty in PENALTIES
    scaled = features * np.float32(fitted.rate)
    kernel = gaussian(scaled, scaled).astype(np.float64)
    for group in range(10):
        seen, held = groups != group, groups == group
        ridge = kernel[np.ix_(seen, seen)] + fitted.penalty * np.eye(int(seen.sum()))
        # The bias is the mean of all rows: that alone is not held out.
        weights = np.linalg.solve(ridge, outcomes[seen] - fitted.bias)
        np.testing.assert_allclose(fitted.held_out[held], kernel[np.ix_(held, seen)] @ weights + fitted.bias, atol=1e-4)


def test_auc_counts_ties_one_half_and_rows_as_often_as_drawn() -> None:
    scores, labels = np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert judge_report.auc(scores, labels) == pytest.approx(3.5 / 4)
    assert judge_report.auc(scores, labels, np.array([1, 0, 1, 3])) == 1.0
    assert judge_report.auc(scores, labels, np.array([0, 1, 1, 0])) == 0.5
    assert np.isnan(judge_report.auc(scores, np.ones(4)))


def test_a_slope_is_the_likeliest_and_positive() -> None:
    generator = np.random.default_rng(0)
    differences = generator.normal(size=20_000)
    outcomes = (generator.random(20_000) < 1 / (1 + np.exp(-3 * differences))).astype(np.float64)
    assert slope_of(differences, outcomes) == pytest.approx(3.0, abs=0.15)
    assert slope_of(differences, 1 - outcomes) == 0.01
    assert slope_of(differences[:3], outcomes[:3]) == 0.01
