"""Simulation: streams are what they say, plans are held as they are served, the numbers of a window are right."""

import csv
import json
from pathlib import Path

import pytest

from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.pacing_targets import PacingPolicy, Reference, ShareTarget, SpendTarget
from dispatcher_service.pricing import Price
from dispatcher_service.routing import Candidates, Tier, alpha_for_share
from pointsman import cli
from scorer_service import artifact
from scorer_service.settings import SHIPPED_ARTIFACT
from training import simulate, simulate_plans, simulate_windows, streams
from training.simulate_plans import Plan
from training.streams import Call, StreamError, Traffic

QUANTILES = tuple(0.5 + 0.2 * step / 200 for step in range(201))
REFERENCE = Reference("v1", QUANTILES)
STRONG = Price(input=10_000, cached_input=0, cache_write=0, output=30_000, reasoning=0)
WEAK = Price(input=600, cached_input=0, cache_write=0, output=600, reasoning=0)
FIXED = Plan(name="fixed", alpha=alpha_for_share(QUANTILES, 0.3))


def _stream(kind: str, calls: int = 4000) -> list[Call]:
    return streams.generate(Traffic(kind=kind, calls=calls, days=4.0, strong=STRONG, weak=WEAK), QUANTILES)


def _share(share: float = 0.3) -> Plan:
    return Plan(name="paced", pacing=PacingPolicy(targets=(ShareTarget(share),)))


@pytest.mark.parametrize("kind", streams.KINDS)
def test_a_stream_has_its_calls_in_order_and_the_same_ones_again(kind: str) -> None:
    calls = _stream(kind)
    assert len(calls) == 4000
    assert calls == _stream(kind)
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert calls[0].at >= streams.START
    assert calls[-1].at <= streams.START + 4 * 86_400


def test_a_step_takes_a_fixed_alpha_from_30_to_84_percent_strong_and_a_share_stays() -> None:
    """Percentiles above .7 are z > .524; at a hardness of 1.5 that is P(z > -.976) = .836."""
    calls = _stream("step")
    fixed = simulate_windows.by_calls(simulate.replay(calls, FIXED, REFERENCE), 1000)
    paced = simulate_windows.by_calls(simulate.replay(calls, _share(), REFERENCE), 1000)
    assert [window.share for window in fixed] == pytest.approx([0.3, 0.3, 0.836, 0.836], abs=0.04)
    assert [window.share for window in paced] == pytest.approx([0.3] * 4, abs=0.05)


@pytest.mark.parametrize("kind", streams.KINDS)
def test_every_window_is_within_the_guarantee(kind: str) -> None:
    replay = simulate.replay(_stream(kind), _share(), REFERENCE)
    policy = replay.plan.pacing
    assert policy is not None
    for window in simulate_windows.by_calls(replay, 500):
        assert abs(window.strong - 0.3 * window.calls) <= simulate_plans.guarantee(policy)


def test_the_gain_is_measured_against_the_best_calls_in_hindsight() -> None:
    """Strong are .6 and .7: gains .2 + .4. The best two of the window would have been .9 and .7: .8 + .4."""
    alphas = [0.5, 0.65, 0.65, 0.95]
    results = [
        simulate_plans.Result(
            call=Call(float(at), (1, 10), Candidates.pair(probability)),
            rung=int(probability >= alpha),
            asked=(int(probability >= alpha),),
            alpha=alpha,
            free=True,
        )
        for at, (probability, alpha) in enumerate(zip([0.6, 0.7, 0.55, 0.9], alphas, strict=True))
    ]
    (window,) = simulate_windows.by_calls(simulate_plans.Replay(FIXED, tuple(results)), 4)
    assert window.gain == pytest.approx(0.6)
    assert window.best_gain == pytest.approx(1.2)
    assert (window.strong, window.cost, window.alpha) == (2, 22, (0.5, 0.95))


def test_of_three_models_a_share_is_the_mean_of_x_and_the_best_choices_spend_as_much_of_it() -> None:
    """x is 0, .5 and 1. One call gains .4 half-way up and .5 at the top, the other .1 and .6: of one whole way up in
    all, the best is half of it for the first and half of the second's only step, which passes its middle over."""
    calls = [
        Call(0.0, (0, 5, 10), Candidates((0, 1, 2), (0.75, 0.55, 0.5), top=2)),
        Call(1.0, (0, 5, 10), Candidates((0, 1, 2), (0.8, 0.75, 0.5), top=2)),
    ]
    replay = simulate.replay(calls, Plan(name="fixed", alpha=0.76), REFERENCE)
    assert [result.rung for result in replay.results] == [0, 1]
    (window,) = simulate_windows.by_calls(replay, 2)
    assert (window.share, window.strong, window.cost) == (0.25, 0, 5)
    assert window.gain == pytest.approx(0.1)
    assert window.best_gain == pytest.approx(0.4)
    (window,) = simulate_windows.by_calls(simulate.replay(calls, Plan(name="fixed", alpha=0.6), REFERENCE), 2)
    assert [window.climbed, window.gain] == pytest.approx([1.5, 0.4 + 0.6])
    assert window.best_gain == pytest.approx(0.4 + 0.6)


def test_a_share_of_three_models_is_held() -> None:
    calls = [
        Call(call.at, (call.costs[0], sum(call.costs) // 2, call.costs[1]), _three(call.candidates))
        for call in _stream("step")
    ]
    windows = simulate_windows.by_calls(simulate.replay(calls, _share(), REFERENCE), 1000)
    assert [window.share for window in windows] == pytest.approx([0.3] * 4, abs=0.05)


def _three(pair: Candidates | None) -> Candidates:
    assert pair is not None
    return Candidates((0, 1, 2), (pair.beaten[0], (pair.beaten[0] + 0.5) / 2, 0.5), top=2)


def test_a_fixed_alpha_is_its_own_best_threshold() -> None:
    window = simulate_windows.total(simulate_windows.by_calls(simulate.replay(_stream("ramp"), FIXED, REFERENCE), 1000))
    assert window.gain == pytest.approx(window.best_gain)


def test_a_paced_share_keeps_nearly_all_of_the_gain_on_even_traffic() -> None:
    replay = simulate.replay(_stream("iid"), _share(), REFERENCE)
    window = simulate_windows.total(simulate_windows.by_calls(replay, 1000))
    assert window.gain / window.best_gain >= 0.99


@pytest.mark.parametrize("on_exhausted", [OnExhausted.DEGRADE, OnExhausted.REJECT])
def test_no_window_costs_more_than_its_limit(on_exhausted: OnExhausted) -> None:
    calls = _stream("diurnal")
    limit = Limit(Period.DAY, sum(call.costs[-1] for call in calls) // 12)
    plan = Plan(name="capped", alpha=0.0, limits=(limit,), on_exhausted=on_exhausted)
    days = simulate_windows.by_period(simulate.replay(calls, plan, REFERENCE), Period.DAY)
    assert len(days) == 4
    assert all(0.99 * limit.amount < day.cost <= limit.amount for day in days)
    degraded = sum(day.degraded for day in days)
    assert degraded > 0 if on_exhausted is OnExhausted.DEGRADE else degraded == 0
    assert sum(day.refused for day in days) > 0


def test_a_rate_of_spending_is_held_from_day_to_day() -> None:
    calls = _stream("iid", 8000)
    limit = sum(call.costs[-1] for call in calls) // 10
    target = SpendTarget(limit, Period.DAY)
    replay = simulate.replay(calls, Plan(name="paced", pacing=PacingPolicy(targets=(target,))), REFERENCE)
    days = simulate_windows.by_period(replay, Period.DAY)
    assert [day.cost / limit for day in days[1:]] == pytest.approx([1.0] * 3, abs=0.12)


def test_a_decision_that_something_else_made_stays_as_it_was() -> None:
    calls = [Call(float(at), (1, 10), forced=1 - at % 2) for at in range(10)]
    replay = simulate.replay(calls, _share(0.0), REFERENCE)
    assert [result.tier is Tier.STRONG for result in replay.results] == [True, False] * 5


def _record(**changes: object) -> str:
    decision = {
        "tier": "TIER_STRONG", "reason": "REASON_AT_OR_ABOVE_ALPHA", "alpha_source": "ALPHA_SOURCE_SHARE",
        "win_probability": 0.7, "scorer_version": "v1", "cost_nano_usd": "30", "other_tier_cost_nano_usd": "2",
        "cost_source": "COST_SOURCE_REPORTED", **changes,
    }  # fmt: skip
    return json.dumps({"tenant_id": "acme", "received_at": "2026-11-10T12:00:00.5Z", "decision": decision})


def test_a_decision_log_gives_both_costs_and_whether_a_threshold_decided(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    lines = [
        _record(),
        _record(tier="TIER_WEAK", win_probability=0.4, cost_nano_usd="2", other_tier_cost_nano_usd="30"),
        _record(reason="REASON_SCORER_UNAVAILABLE"),
        _record(alpha_source="ALPHA_SOURCE_OVERRIDE"),
        _record(cost_source="COST_SOURCE_PENDING"),
        json.dumps({"tenant_id": "other"}),
        json.dumps({"kind": "RECORD_KIND_FEEDBACK", "tenant_id": "acme", "rating": 1.0}),
    ]
    log.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    found = streams.read_log(log, tenant="acme")
    at = 1_794_312_000.5
    assert found.calls == [
        Call(at, (2, 30), Candidates.pair(0.7), forced=1),
        Call(at, (2, 30), Candidates.pair(0.4)),
        Call(at, (2, 30), forced=1),
        Call(at, (2, 30), forced=1),
    ]
    assert (found.versions, found.unpriced) == (("v1",), 1)


def test_the_log_of_a_tenant_of_many_models_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    log.write_text(_record(tier="TIER_MIDDLE", candidates=[{}, {}, {}]), encoding="utf-8")
    with pytest.raises(StreamError, match="tenant 'acme' has more than two models"):
        streams.read_log(log, tenant=None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{}\nnonsense\n", r"log:2: not JSON"), (_record(tier=None, win_probability="x"), r"log:1: .*DecisionRecord"),
     ("[]", "log:1: not a JSON object"), ("{}", "no record")],
)  # fmt: skip
def test_a_log_that_cannot_be_used_is_named_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "log"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StreamError, match=complaint):
        streams.read_log(path, tenant=None)


def test_the_command_prints_both_plans_and_writes_windows_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, plot = tmp_path / "windows.csv", tmp_path / "plot.png"
    arguments = ["simulate", "--share", "0.3", "--stream", "step", "--calls", "2000", "--window", "500"]
    assert cli.main([*arguments, "--csv", str(table), "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert "share 0.3" in out
    alpha = alpha_for_share(artifact.load(SHIPPED_ARTIFACT).manifest.score_quantiles, 0.3)
    fixed = f"fixed α {alpha:.3f}"
    assert fixed in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["plan"] for row in rows] == ["share 0.3"] * 4 + [fixed] * 4
    assert sum(int(row["calls"]) for row in rows) == 4000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no target"),
        (["--share", "1.5"], "--share"),
        (["--share", "0.3", "--tenant", "acme"], "--tenant goes with --log"),
        (["--usd-per-day", "50", "--strong-price", "10"], "--strong-price"),
        (["--usd-per-month", "10000000"], "limit"),
        (["--share", "0.3", "--calls", "0"], "--calls"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_mend(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *arguments]) == 2
    assert complaint in capsys.readouterr().err
