"""`pointsman simulate` with strategies that read answers: every call that is made is paid for."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.pacing_targets import Reference
from dispatcher_service.pricing import Price
from dispatcher_service.routing import EVEN, Candidates
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy
from pointsman import cli
from tests import graded_answers
from tests.answer_artifacts import write_answer, write_ranker
from training import answered_calls, simulate, streams
from training.simulate_plans import Plan
from training.strategy_rows import Scored
from training.streams import Call, Traffic

REFERENCE = Reference("v", (0.0, 0.5, 1.0))
ANSWERED = ["--answers", "ANY", "--usd", "a=1", "b=2", "c=3"]
CALLS = [
    Call(0.0, (1, 10), Candidates.pair(0.1), acceptances=(0.2,)),  # easy: nobody reads the answer
    Call(1.0, (1, 10), Candidates.pair(0.5), acceptances=(0.7,)),  # a tie with the threshold accepts
    Call(2.0, (1, 10), Candidates.pair(0.5), acceptances=(0.6,)),
    Call(3.0, (1, 10), Candidates.pair(0.9), acceptances=(0.9,)),  # hard: strong at once
    Call(4.0, (1, 10), forced=1),
]
HYBRID = CascadePolicy(thresholds=(0.7,), easy_alpha=0.2, hard_alpha=0.9)
THREE = Candidates((0, 1, 2), (0.7, 0.6, EVEN), top=2)
BOTH = EnsemblePolicy()


def _rungs_and_costs(plan: Plan, calls: list[Call]) -> list[tuple[int | None, int]]:
    return [(result.rung, result.cost) for result in simulate.replay(calls, plan, REFERENCE).results]


def _of_three(*acceptances: float) -> Call:
    return Call(0.0, (1, 4, 10), THREE, acceptances=acceptances)


def _ranked(*preferences: float) -> Call:
    return Call(0.0, (1, 4, 10), THREE, preferences=preferences)


def test_a_hybrid_pays_for_each_call_it_makes() -> None:
    found = _rungs_and_costs(Plan(name="hybrid", reading=HYBRID), CALLS)
    assert found == [(0, 1), (0, 1), (1, 11), (1, 10), (1, 10)]


def test_a_plain_cascade_looks_at_no_prompt() -> None:
    found = _rungs_and_costs(Plan(name="cascade", reading=CascadePolicy(thresholds=(0.7,))), CALLS)
    assert [cost for _, cost in found] == [11, 1, 11, 1, 10]


def test_where_no_money_is_left_for_the_strong_answer_the_weak_one_stands() -> None:
    limits = (Limit(Period.DAY, 5),)
    plan = Plan(name="poor", reading=HYBRID, limits=limits, on_exhausted=OnExhausted.REJECT)
    assert _rungs_and_costs(plan, CALLS) == [(0, 1), (0, 1), (0, 1), (None, 0), (None, 0)]
    degraded = [result.degraded for result in simulate.replay(CALLS, plan, REFERENCE).results]
    assert degraded == [False, False, True, False, False]


def test_a_cascade_of_three_climbs_until_a_stage_accepts_and_pays_every_stage() -> None:
    plan = Plan(name="cascade", reading=CascadePolicy(thresholds=(0.7, 0.5)))
    calls = [_of_three(0.7, 0.0), _of_three(0.6, 0.5), _of_three(0.6, 0.4)]
    assert _rungs_and_costs(plan, calls) == [(0, 1), (1, 5), (2, 15)]


def test_where_the_money_ends_midway_the_answer_that_is_most_likely_acceptable_stands() -> None:
    plan = Plan(name="cascade", reading=CascadePolicy(thresholds=(0.9, 0.9)), limits=(Limit(Period.DAY, 12),))
    calls = [_of_three(0.6, 0.4), _of_three(0.4, 0.6)]
    assert _rungs_and_costs(plan, calls) == [(0, 5), (1, 5)]


def test_an_ensemble_pays_for_all_and_gives_the_answer_that_wins_most_comparisons() -> None:
    # Preferences are of (0, 1), (0, 2) and (1, 2). Rates: the middle one's (.8 + .6) / 2; and two equal ones.
    calls = [_ranked(0.2, 0.4, 0.6), _ranked(0.5, 0.7, 0.7), _ranked(0.1, 0.1, 0.1)]
    assert _rungs_and_costs(Plan(name="all", reading=BOTH), calls) == [(1, 15), (0, 15), (2, 15)]


def test_a_model_without_money_takes_no_part_in_an_ensemble_and_is_not_compared() -> None:
    call = _ranked(0.6, 0.1, 0.1)
    for amount, expected in ((14, (0, 5)), (4, (0, 1)), (0, (None, 0))):
        plan = Plan(name="poor", reading=BOTH, limits=(Limit(Period.DAY, amount),))
        [result] = simulate.replay([call], plan, REFERENCE).results
        assert (result.rung, result.cost) == expected
        assert result.degraded == (result.rung is not None)
    # With money for all, the strongest answer wins.
    assert _rungs_and_costs(Plan(name="rich", reading=BOTH), [call]) == [(2, 15)]


def test_an_ensemble_that_may_not_degrade_is_refused_where_one_model_does_not_fit() -> None:
    limits = (Limit(Period.DAY, 14),)
    plan = Plan(name="strict", reading=BOTH, limits=limits, on_exhausted=OnExhausted.REJECT)
    assert _rungs_and_costs(plan, [_ranked(0.6, 0.1, 0.1)]) == [(None, 0)]


def test_where_something_else_said_who_answers_an_ensemble_asks_that_model_alone() -> None:
    assert _rungs_and_costs(Plan(name="all", reading=BOTH), [Call(0.0, (1, 4, 10), forced=1)]) == [(1, 4)]


def _traffic(kind: str) -> Traffic:
    price = Price(input=0, cached_input=0, cache_write=0, output=1_000_000, reasoning=1_000_000)
    return Traffic(kind=kind, calls=4_000, days=1.0, strong=price, weak=price, input_tokens=10, output_tokens=10)


def test_harder_traffic_is_answered_worse() -> None:
    plain = streams.generate(_traffic("step"), (0.0, 1.0))
    calls = streams.generate(_traffic("step"), (0.0, 1.0), acceptances=(0.0, 1.0))
    assert [call.candidates for call in calls] == [call.candidates for call in plain]
    half = [call.acceptances[0] for call in calls[:2_000]], [call.acceptances[0] for call in calls[2_000:]]
    before, after = (sum(accepted) / len(accepted) for accepted in half)
    assert before == pytest.approx(0.5, abs=0.02)
    assert after < 0.3


@pytest.mark.parametrize("kind", ["iid", "step"])
def test_a_ranker_prefers_the_strong_answer_as_often_as_the_win_probability_says(kind: str) -> None:
    calls = streams.generate(_traffic(kind), (0.3, 0.9), preferences=(0.0, 0.5, 1.0))
    preferred = sum(call.preferences[0] < 0.5 for call in calls) / len(calls)
    expected = sum(call.candidates.beaten[0] for call in calls if call.candidates is not None) / len(calls)
    assert preferred == pytest.approx(expected, abs=0.02)


def test_the_command_shows_a_cascade_beside_a_fixed_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = str(write_answer(tmp_path / "judge"))
    arguments = ["simulate", "--strategy", "cascade", "--answer-artifact", judge, "--calls", "500", "--window", "250"]
    assert cli.main([*arguments, "--threshold", "0.5", "--usd-per-day", "100"]) == 0
    printed = capsys.readouterr().out
    assert "cascade 0.5" in printed
    assert "fixed α" in printed


def test_the_command_shows_an_ensemble_beside_all_strong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranker = str(write_ranker(tmp_path / "ranker"))
    arguments = ["simulate", "--strategy", "ensemble", "--ranker-artifact", ranker, "--calls", "500"]
    prices = ["--strong-price", "10,10", "--weak-price", "1,1"]
    assert cli.main([*arguments, *prices, "--window", "250"]) == 0
    plans = capsys.readouterr().out.splitlines()[-3:]
    assert any("ensemble" in line and "110%" in line for line in plans)
    assert any("fixed α 0.000" in line and "100%" in line for line in plans)


def test_drawn_calls_are_prompts_with_what_is_known_of_them_and_harder_ones_come_later() -> None:
    rows = Scored(
        quality=np.array([[1.0, 1.0], [0.0, 1.0]] * 50),
        cost=np.array([[1e-6, 2e-6]] * 100),
        beaten=np.stack([np.linspace(0.0, 0.99, 100), np.full(100, 0.5)], axis=1),
        acceptances=np.linspace(0.0, 0.99, 100)[:, None],
        preferences=np.empty((100, 0)),
    )
    calls = answered_calls.draw(rows, kind="step", calls=2_000, days=1.0, seed=0)
    assert {call.costs for call in calls} == {(1_000, 2_000)}
    for call in calls:
        assert call.candidates is not None
        [acceptance] = call.acceptances
        assert acceptance == call.candidates.beaten[0]
        assert call.qualities == (float(round(acceptance * 100) % 2 == 0), 1.0)
    halves = [sum(call.acceptances[0] for call in half) / 1_000 for half in (calls[:1_000], calls[1_000:])]
    assert halves == pytest.approx([0.495, 0.495 + 0.36], abs=0.03)


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (["cascade", "--answer-artifact", "JUDGE", "--threshold", "0.5", "0.6"], "cascade 0.5 0.6"),
        (["ensemble", "--ranker-artifact", "RANKER"], "ensemble"),
        (["route", "--share", "0.3"], "share 0.3"),
    ],
)
def test_the_command_replays_the_answered_prompts_of_three_models_with_their_quality(
    tmp_path: Path, strategy: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"JUDGE": str(write_answer(tmp_path / "j")), "RANKER": str(write_ranker(tmp_path / "r"))}
    answers = graded_answers.write_three(tmp_path / "three.jsonl")
    arguments = ["--answers", str(answers), "--usd", "large=10", "small=0.5", "medium=2", "--calls", "400"]
    table = tmp_path / "windows.csv"
    assert (
        cli.main(
            ["simulate", *arguments, "--window", "100", "--csv", str(table), "--strategy"]
            + [places.get(argument, argument) for argument in strategy]
        )
        == 0
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "drawn from 80 prompts with answers of small, medium, large" in printed
    with table.open(encoding="utf-8") as file:
        own = [row for row in csv.DictReader(file) if row["plan"] == name]
    assert len(own) == 4
    assert all(0.5 < float(row["quality"]) <= 1.0 for row in own)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["cascade", "--answer-artifact", "JUDGE", "--threshold", "0.5", "0.6"], 2, "--answers of more"),
        (["cascade", "--answer-artifact", "JUDGE", "--threshold", "0.5", *ANSWERED], 2, "--threshold: write 2"),
        (["ensemble", "--ranker-artifact", "RANKER", "--answers", "NONE"], 1, "is missing"),
        (["cascade"], 2, "--strategy cascade needs --answer-artifact and --threshold"),
        (["cascade", "--answer-artifact", "JUDGE", "--threshold", "2"], 2, "are in [0, 1]"),
        (["cascade", "--answer-artifact", "JUDGE", "--threshold", "0.5", "--share", "0.3"], 2, "holds no --share"),
        (["cascade", "--answer-artifact", "RANKER", "--threshold", "0.5"], 2, "give one of kind 'answer'"),
        (["cascade", "--answer-artifact", "NONE", "--threshold", "0.5"], 1, "is not a directory"),
        (["ensemble"], 2, "--strategy ensemble needs --ranker-artifact"),
        (["ensemble", "--ranker-artifact", "JUDGE"], 2, "give one of kind 'ranker'"),
        (["ensemble", "--ranker-artifact", "RANKER", "--share", "0.3"], 2, "holds no --share"),
    ],
)
def test_options_that_make_no_strategy_are_refused(
    tmp_path: Path, arguments: list[str], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"JUDGE": str(write_answer(tmp_path / "j")), "RANKER": str(write_ranker(tmp_path / "r"))}
    given = [places.get(argument, argument) for argument in arguments]
    assert cli.main(["simulate", "--strategy", *given]) == code
    assert problem in capsys.readouterr().err
