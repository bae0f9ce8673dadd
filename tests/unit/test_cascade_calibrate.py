"""`pointsman calibrate --strategy cascade`: thresholds for a budget, as a tenant's policy takes them."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from dispatcher_service.routing import NEVER_STRONG
from dispatcher_service.strategy_policies import StrategyName
from dispatcher_service.strategy_sections import CascadeSection, strategy_problems
from tests import artifacts, graded_answers
from tests.answer_artifacts import write_answer, write_ranker
from training import cascade_calibrate
from training.cascade_calibrate import Setting
from training.cli import main
from training.metrics import Interval
from training.strategy_plans import Hybrid
from training.strategy_rows import Scored
from training.tables import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of answered prompts, and artefacts that judge and route."""
    made = tmp_path_factory.mktemp("calibrate")
    graded_answers.write(made / "sums.jsonl")
    write_answer(made / "judge")
    write_ranker(made / "ranker")
    artifacts.write(made / "router")
    return made


def _calibrate(folder: Path, *arguments: str, strategy: str = "cascade", judge: str = "judge") -> int:
    files = ["--answers", str(folder / "sums.jsonl"), "--answer-artifact", str(folder / judge)]
    return main(["calibrate", "--strategy", strategy, "--artifact", str(folder / "router"), *files, *arguments])


def test_the_command_prints_the_lines_of_a_policy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "policy.toml"
    assert _calibrate(folder, "--budget", "0.3", "0.6", "--tenant", "search", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "80 prompts answered by weak, strong" in printed
    assert printed.count("[tenants.search.cascade]") == 2
    [tenant] = tomllib.loads(out.read_text())["tenants"].values()
    assert tenant["strategy"] == "cascade"
    [threshold] = tenant["cascade"]["thresholds"]
    assert 0.0 < threshold <= 1.0
    assert out.read_text() in printed


@pytest.mark.parametrize("wide", [False, True])
def test_of_three_models_there_is_a_threshold_for_each_but_the_dearest(
    folder: Path, capsys: pytest.CaptureFixture[str], *, wide: bool
) -> None:
    answers = graded_answers.write_three(folder / "three.jsonl", wide=wide)
    out = folder / "policy.toml"
    prices = ["--usd", "large=10", "small=0.5", "medium=2", "--answers", str(answers), "--out", str(out)]
    assert _calibrate(folder, "--budget", "0.6", *prices) == 0
    [tenant] = tomllib.loads(out.read_text())["tenants"].values()
    assert tenant["models"] == ["small", "medium", "large"]
    section = CascadeSection.model_validate(tenant["cascade"])
    assert not list(
        strategy_problems(
            StrategyName(tenant["strategy"]),
            models=tenant["models"],
            cascade=section,
            ensemble=None,
            routing_keys=(),
            embedded=False,
        )
    ), "the dispatcher takes what is printed"
    assert "80 prompts answered by small, medium, large" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prices", "code", "problem"),
    [
        (["large=10"], 2, "name two models or more, each once"),
        (["large=10", "large=1"], 2, "name two models or more, each once"),
        (["large=10", "tiny=1"], 1, "no prompt with answers of all of tiny, large: it has those of large, medium, sma"),
        (["small=10", "large=1"], 1, "the answers of 'small' are not better than the cheapest model's"),
    ],
)
def test_prices_that_make_no_ladder_are_refused(
    folder: Path, prices: list[str], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = graded_answers.write_three(folder / "three.jsonl")
    assert _calibrate(folder, "--answers", str(answers), "--usd", *prices) == code
    assert problem in capsys.readouterr().err


def test_the_hybrid_comes_from_the_same_calibration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _calibrate(folder, "--budget", "0.5", strategy="hybrid") == 0
    assert "thresholds = [" in capsys.readouterr().out


def test_alphas_stand_in_the_policy_where_there_are_some() -> None:
    some = Interval(0.5, 0.4, 0.6)
    plan = Hybrid((0.71234567,), easy_alpha=0.2, hard_alpha=0.9)
    text = cascade_calibrate.toml(Setting(0.5, plan, some, some, (0.5,), some), "a")
    assert tomllib.loads(text)["tenants"]["a"] == {
        "strategy": "cascade",
        # Rounded down: an answer that was at the threshold still is accepted.
        "cascade": {"thresholds": [0.712345], "easy_alpha": 0.2, "hard_alpha": 0.9},
    }
    plain = cascade_calibrate.toml(Setting(0.5, Hybrid((1.0,)), some, some, (0.5,), some), "a")
    assert tomllib.loads(plain)["tenants"]["a"]["cascade"] == {"thresholds": [1.0]}


def test_a_larger_budget_accepts_less() -> None:
    generator = np.random.default_rng(0)
    acceptance = generator.random(200)
    weak = generator.random(200) < acceptance
    rows = Scored(
        quality=np.stack([weak, np.ones(200)], axis=1),
        cost=np.tile([0.1, 1.0], (200, 1)),
        beaten=np.stack([generator.random(200), np.full(200, 0.5)], axis=1),
        acceptances=acceptance[:, None],
        preferences=np.empty((200, 0)),
    )
    prompts = [f"prompt {place}" for place in range(200)]
    found = cascade_calibrate.settings(rows, prompts, [0.2, 0.5, 0.9], hybrid=False)
    thresholds = [setting.plan.thresholds for setting in found]
    assert thresholds == sorted(thresholds)
    # 10 % pays for the weak answers, the rest for that share of strong ones.
    assert [round(1.0 - setting.accepted[0], 2) for setting in found] == [0.1, 0.4, 0.8]
    assert [setting.cost.value for setting in found] == pytest.approx([0.2, 0.5, 0.9], abs=0.006)
    assert found[1].gain.low > 0, "an answer that was read tells more than a prompt"
    assert all(setting.plan.hard_alpha == NEVER_STRONG for setting in found)


def test_a_budget_below_the_weak_model_and_too_few_prompts_are_refused(folder: Path) -> None:
    both, half = np.ones((60, 2)) * [0.5, 1.0], np.full((60, 1), 0.5)
    rows = Scored(both, both, np.full((60, 2), 0.5), half, half)
    prompts = [f"prompt {place}" for place in range(60)]
    with pytest.raises(DataError, match=r"give 0\.500 or more"):
        cascade_calibrate.settings(rows, prompts, [0.3], hybrid=False)
    with pytest.raises(DataError, match="too few for a threshold: give 50 or more"):
        cascade_calibrate.settings(rows.chosen(np.arange(10)), prompts[:10], [0.9], hybrid=False)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["calibrate", "--strategy", "cascade"], 2, "--strategy cascade needs --answers and --answer-artifact"),
        (["calibrate"], 2, "--strategy route needs --strong-call-share and --prompts"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert problem in capsys.readouterr().err


def test_another_kind_of_artefact_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for judge, problem in (("ranker", "give one of kind 'answer'"), ("router", "judges no answers")):
        assert _calibrate(folder, judge=judge) == 1
        assert problem in capsys.readouterr().err
