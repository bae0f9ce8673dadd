"""`pointsman simulate --strategy cascade`: every call that a cascade makes is paid for."""

from pathlib import Path

import pytest

from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.pacing_targets import Reference
from dispatcher_service.pricing import Price
from dispatcher_service.routing import Tier
from pointsman import cli
from tests.answer_artifacts import write_answer, write_ranker
from training import simulate, streams
from training.simulate import Cascade, Plan
from training.streams import Call, Traffic

REFERENCE = Reference("v", (0.0, 0.5, 1.0))
CALLS = [
    Call(0.0, 0.1, 1, 10, acceptance=0.2),  # easy: nobody reads the answer
    Call(1.0, 0.5, 1, 10, acceptance=0.7),  # a tie with the threshold accepts
    Call(2.0, 0.5, 1, 10, acceptance=0.6),
    Call(3.0, 0.9, 1, 10, acceptance=0.9),  # hard: strong at once
    Call(4.0, None, 1, 10, forced_strong=True),
]
HYBRID = Cascade(threshold=0.7, easy_alpha=0.2, hard_alpha=0.9)


def _tiers_and_costs(plan: Plan) -> list[tuple[Tier | None, int]]:
    return [(result.tier, result.cost) for result in simulate.replay(CALLS, plan, REFERENCE).results]


def test_a_hybrid_pays_for_each_call_it_makes() -> None:
    weak, strong = Tier.WEAK, Tier.STRONG
    found = _tiers_and_costs(Plan(name="hybrid", cascade=HYBRID))
    assert found == [(weak, 1), (weak, 1), (strong, 11), (strong, 10), (strong, 10)]


def test_a_plain_cascade_looks_at_no_prompt() -> None:
    found = _tiers_and_costs(Plan(name="cascade", cascade=Cascade(threshold=0.7)))
    assert [cost for _, cost in found] == [11, 1, 11, 1, 10]


def test_where_no_money_is_left_for_the_strong_answer_the_weak_one_stands() -> None:
    limits = (Limit(Period.DAY, 5),)
    plan = Plan(name="poor", cascade=HYBRID, limits=limits, on_exhausted=OnExhausted.REJECT)
    assert _tiers_and_costs(plan) == [(Tier.WEAK, 1), (Tier.WEAK, 1), (Tier.WEAK, 1), (None, 0), (None, 0)]
    degraded = [result.degraded for result in simulate.replay(CALLS, plan, REFERENCE).results]
    assert degraded == [False, False, True, False, False]


def test_harder_traffic_is_answered_worse() -> None:
    price = Price(input=0, cached_input=0, cache_write=0, output=1_000_000, reasoning=1_000_000)
    traffic = Traffic(
        kind="step", calls=4_000, days=1.0, strong=price, weak=price, input_tokens=10, output_tokens=10, seed=0
    )
    plain = streams.generate(traffic, (0.0, 1.0))
    calls = streams.generate(traffic, (0.0, 1.0), (0.0, 1.0))
    assert [call.win_probability for call in calls] == [call.win_probability for call in plain]
    half = [call.acceptance or 0.0 for call in calls[:2_000]], [call.acceptance or 0.0 for call in calls[2_000:]]
    before, after = (sum(accepted) / len(accepted) for accepted in half)
    assert before == pytest.approx(0.5, abs=0.02)
    assert after < 0.3


def test_the_command_shows_a_cascade_beside_a_fixed_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = str(write_answer(tmp_path / "judge"))
    arguments = ["simulate", "--strategy", "cascade", "--answer-artifact", judge, "--calls", "500", "--window", "250"]
    assert cli.main([*arguments, "--threshold", "0.5", "--usd-per-day", "100"]) == 0
    printed = capsys.readouterr().out
    assert "cascade 0.5" in printed
    assert "fixed α" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        ([], 2, "--strategy cascade needs --answer-artifact and --threshold"),
        (["--answer-artifact", "JUDGE", "--threshold", "2"], 2, "are in [0, 1]"),
        (["--answer-artifact", "JUDGE", "--threshold", "0.5", "--share", "0.3"], 2, "holds no --share"),
        (["--answer-artifact", "RANKER", "--threshold", "0.5"], 2, "give one of kind 'answer'"),
        (["--answer-artifact", "NONE", "--threshold", "0.5"], 1, "is not a directory"),
    ],
)
def test_options_that_make_no_cascade_are_refused(
    tmp_path: Path, arguments: list[str], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"JUDGE": str(write_answer(tmp_path / "j")), "RANKER": str(write_ranker(tmp_path / "r"))}
    given = [places.get(argument, argument) for argument in arguments]
    assert cli.main(["simulate", "--strategy", "cascade", *given]) == code
    assert problem in capsys.readouterr().err
