"""What the playground says: decisions, budgets and failures as documents and sentences."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import grpc
import pytest

from apps.demo.catalogue import local_models, openai_models, toml
from apps.playground import documents
from apps.playground.serving import TENANT, tenants
from dispatcher_service.tenants import load_catalogue
from pointsman.client import (
    AlphaSource,
    Budget,
    Candidate,
    CostSource,
    Decision,
    LeftOut,
    PointsmanCallError,
    Reason,
    Stage,
    StageResult,
    Tier,
    WindowBudget,
)

DECISION = Decision(
    tier=Tier.WEAK,
    model="small",
    reason=Reason.BELOW_ALPHA,
    alpha=0.6,
    alpha_source=AlphaSource.OVERRIDE,
    win_probability=0.5,
    scorer="default",
    scorer_version="abc",
    pair_mismatch=False,
    cost_nano_usd=1_000,
    other_tier_cost_nano_usd=20_000,
    cost_source=CostSource.REPORTED,
)


def test_a_decision_has_what_both_models_cost_whichever_answered() -> None:
    weak = documents.decision(DECISION)
    assert (weak["cost"], weak["weak_cost"], weak["strong_cost"]) == (1_000, 1_000, 20_000)
    strong = documents.decision(replace(DECISION, tier=Tier.STRONG, cost_nano_usd=20_000, other_tier_cost_nano_usd=999))
    assert (strong["cost"], strong["weak_cost"], strong["strong_cost"]) == (20_000, 999, 20_000)


def test_costs_that_are_not_known_yet_are_null_and_not_zero() -> None:
    pending = documents.decision(replace(DECISION, cost_source=CostSource.PENDING, cost_nano_usd=0))
    assert (pending["cost"], pending["weak_cost"], pending["strong_cost"]) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "the win probability 0.500 is below your α, 0.600"),
        (
            {"reason": Reason.AT_OR_ABOVE_ALPHA, "alpha": 0.5, "alpha_source": AlphaSource.PACED},
            "the win probability 0.500 is at or above the α that pacing holds the tenant's targets with, 0.500",
        ),
        ({"alpha": 1.0000000000000002}, "the win probability 0.500 is below your α, never strong"),
        ({"reason": Reason.SCORER_UNAVAILABLE, "win_probability": None}, "there was no win probability in time"),
        (
            {"reason": Reason.FALLBACK, "instead_of": "big"},
            "the chosen model did not answer (big was chosen first)",
        ),
        ({"reason": Reason.UNKNOWN, "alpha": None}, "unknown"),
    ],
)
def test_a_decision_says_why(change: dict[str, object], why: str) -> None:
    assert documents.why(replace(DECISION, **change)) == why  # type: ignore[arg-type]


def test_every_reason_is_a_sentence_of_its_own() -> None:
    said = {documents.why(replace(DECISION, reason=reason)) for reason in Reason if reason is not Reason.UNKNOWN}
    assert len(said) == len(Reason) - 1


def test_amounts_of_a_budget_are_exact_text() -> None:
    window = WindowBudget(
        period="day",
        start=datetime(2026, 11, 24, tzinfo=UTC),
        end=datetime(2026, 11, 25, tzinfo=UTC),
        spent_usd=Decimal(1) / 1_000_000_000,
        reserved_usd=Decimal(0),
        limit_usd=Decimal("0.5"),
        left_usd=None,
    )
    [shown] = documents.budget(Budget(tenant_id="t", windows=(window,), overruns={}))
    assert shown == {
        "period": "day",
        "ends": "2026-11-25T00:00:00+00:00",
        "spent": "0.000000001",
        "reserved": "0",
        "limit": "0.5",
        "left": None,
    }


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PointsmanCallError(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
            "The dispatcher at host:1 cannot be reached. Check that it runs there, then try again.",
        ),
        (
            PointsmanCallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
            "The dispatcher at host:1 did not answer in time. Try again.",
        ),
        (
            PointsmanCallError(
                grpc.StatusCode.PERMISSION_DENIED, "alpha: this tenant's policy allows no override", reason="FORBIDDEN"
            ),
            "This tenant's policy does not allow an α of your own. Leave α to the tenant, or set "
            "allow_alpha_override = true in its policy.",
        ),
        (
            PointsmanCallError(grpc.StatusCode.PERMISSION_DENIED, "model: not yours", reason="FORBIDDEN"),
            "The dispatcher refused this: model: not yours.",
        ),
        (
            PointsmanCallError(
                grpc.StatusCode.UNAVAILABLE,
                "deployment a: broke off",
                reason="UPSTREAM_UNAVAILABLE",
                cost_nano_usd=1500,
            ),
            "The model did not answer: deployment a: broke off. It cost $0.0000015 all the same.",
        ),
        (
            PointsmanCallError(grpc.StatusCode.RESOURCE_EXHAUSTED, "requests_per_minute is 1", reason="RATE_LIMITED"),
            "Too many requests: requests_per_minute is 1.",
        ),
    ],
)
def test_a_failure_is_a_sentence_that_says_what_helps(error: PointsmanCallError, sentence: str) -> None:
    assert documents.failure(error, address="host:1") == sentence


def test_a_decision_lists_the_models_that_it_was_made_among() -> None:
    candidates = (
        Candidate(model="small", beaten_by_strongest=0.6, left_out=None),
        Candidate(model="tiny", beaten_by_strongest=None, left_out=LeftOut.TOOLS),
        Candidate(model="other", beaten_by_strongest=None, left_out=None),
    )
    assert documents.decision(replace(DECISION, candidates=candidates))["candidates"] == [
        {"model": "small", "words": "the strongest beats it with 0.600"},
        {"model": "tiny", "words": "left out: takes no tools"},
        {"model": "other", "words": "not compared"},
    ]


def test_a_decision_lists_its_stages_in_words() -> None:
    stage = Stage(
        model="small",
        result=StageResult.REJECTED,
        given=False,
        acceptance_probability=0.25,
        threshold=0.5,
        win_rate=None,
        cost_nano_usd=7,
        cost_source=CostSource.REPORTED,
    )
    ranked = replace(
        stage, result=StageResult.RANKED, given=True, acceptance_probability=None, threshold=None, win_rate=0.75
    )
    assert documents.decision(replace(DECISION, stages=(stage, ranked)))["stages"] == [
        {"model": "small", "given": False, "words": "not accepted (acceptance 0.250, threshold 0.500)", "cost": 7},
        {"model": "small", "given": True, "words": "ranked (win rate 0.750)", "cost": 7},
    ]


def test_of_many_models_the_strongest_answers_until_a_cheaper_one_is_good_enough() -> None:
    def among(*beaten: float | None) -> float | None:
        candidates = tuple(
            Candidate(model=f"m{index}", beaten_by_strongest=each, left_out=None) for index, each in enumerate(beaten)
        )
        return documents.strong_until(replace(DECISION, win_probability=0.8, candidates=candidates))

    assert among(0.8, 0.6, 0.5) == 0.6
    assert among(0.8, None, 0.5) == 0.8
    assert among() == 0.8


def test_what_the_weakest_of_many_models_costs_is_not_known_of_one_between() -> None:
    middle = documents.decision(replace(DECISION, tier=Tier.MIDDLE))
    assert (middle["cost"], middle["weak_cost"], middle["strong_cost"]) == (1_000, None, 20_000)


@pytest.mark.parametrize("models", [local_models("127.0.0.1:8080"), openai_models()], ids=["local", "openai"])
def test_the_dispatcher_accepts_the_pages_tenant(tmp_path: Path, models: object) -> None:
    path = tmp_path / "dispatcher.toml"
    path.write_text(toml(models, scorer="127.0.0.1:1", more_tenants=tenants()), encoding="utf-8")  # type: ignore[arg-type]
    policy = load_catalogue(path).tenants[TENANT]
    assert policy.allow_alpha_override, "the slider and side by side need it"
    assert policy.limits, "there is a budget to look at"
