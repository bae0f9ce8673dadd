"""Why it was weak, in sentences."""

from dispatcher_service.records.explaining import explain
from pointsman.dispatcher.v1 import decision_pb2
from pointsman.dispatcher.v1.decision_pb2 import DecisionRecord, ShadowDecision


def weak(**changes: object) -> decision_pb2.Decision:
    fields: dict[str, object] = {
        "tier": decision_pb2.TIER_WEAK,
        "model": "small",
        "reason": decision_pb2.REASON_BELOW_ALPHA,
        "alpha": 0.6329,
        "alpha_source": decision_pb2.ALPHA_SOURCE_SHARE,
        "win_probability": 0.512345,
        "cost_nano_usd": 16_800,
        "other_tier_cost_nano_usd": 440_000,
        "cost_source": decision_pb2.COST_SOURCE_REPORTED,
    }
    return decision_pb2.Decision(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_threshold_is_explained_with_its_numbers_and_what_the_other_model_would_have_cost() -> None:
    assert explain(DecisionRecord(decision=weak(), status="OK")) == (
        "It went weak, to small: the probability that the strong model answers better was 0.5123, below the alpha of "
        "the tenant's share of strong calls, 0.6329. It cost $0.0000168; the strong model would have cost about "
        "$0.00044 for as many tokens."
    )


def test_every_reason_is_explained_in_words() -> None:
    for name, reason in decision_pb2.Reason.items():
        if reason != decision_pb2.REASON_UNSPECIFIED:
            assert name not in explain(DecisionRecord(decision=weak(reason=reason)))


def test_a_stand_in_names_the_model_in_whose_place_it_answers() -> None:
    decision = weak(reason=decision_pb2.REASON_FALLBACK, instead_of="big")
    assert "took its place (big was chosen first)." in explain(DecisionRecord(decision=decision))


def test_of_many_models_every_models_odds_are_told_and_why_others_took_no_part() -> None:
    candidates = [
        decision_pb2.Candidate(model="tiny", left_out=decision_pb2.LEFT_OUT_TOOLS),
        decision_pb2.Candidate(model="small", beaten_by_strongest=0.6),
        decision_pb2.Candidate(model="medium", beaten_by_strongest=0.53),
        decision_pb2.Candidate(model="big", beaten_by_strongest=0.5),
    ]
    middle = weak(tier=decision_pb2.TIER_MIDDLE, model="medium", alpha=0.55, candidates=candidates)
    told = explain(DecisionRecord(decision=middle))
    assert told.startswith(
        "It went to the middle, to medium: it is the cheapest that the strongest beats with a probability below the "
        "alpha of the tenant's share of strong calls, 0.5500 (small 0.6000, medium 0.5300, big 0.5000). "
        "tiny was left out: the request has tools, and it calls none. It cost $0.0000168; the strongest model would"
    )
    strong = weak(
        tier=decision_pb2.TIER_STRONG, reason=decision_pb2.REASON_AT_OR_ABOVE_ALPHA, alpha=0.5, candidates=candidates
    )
    assert "the strongest beats every cheaper one with a probability at or above" in explain(
        DecisionRecord(decision=strong)
    )
    useful = weak(reason=decision_pb2.REASON_BEST_UTILITY, alpha=0.6, candidates=candidates)
    assert "its quality less λ times its cost was best, λ following from the alpha" in explain(
        DecisionRecord(decision=useful)
    )


def test_every_reason_to_leave_a_model_out_is_told_in_words() -> None:
    for value in decision_pb2.LeftOut.values():
        if value != decision_pb2.LEFT_OUT_UNSPECIFIED:
            candidates = [decision_pb2.Candidate(model="m", left_out=value)]
            assert "m was left out: unknown" not in explain(DecisionRecord(decision=weak(candidates=candidates)))


def test_an_early_end_and_a_shadow_are_told() -> None:
    record = DecisionRecord(
        decision=weak(cost_source=decision_pb2.COST_SOURCE_PENDING),
        status="UNAVAILABLE",
        error_reason="UPSTREAM_UNAVAILABLE",
        shadows=[
            ShadowDecision(
                kind=decision_pb2.SHADOW_KIND_DIAL, tier=decision_pb2.TIER_STRONG, alpha=0.5, win_probability=0.5123
            )
        ],
    )
    assert explain(record).endswith(
        "The request ended with UNAVAILABLE (UPSTREAM_UNAVAILABLE). Another dial, in its shadow, would have gone "
        "strong: 0.5123 against 0.5000."
    )


def test_a_request_that_was_refused_says_so() -> None:
    record = DecisionRecord(status="PERMISSION_DENIED", error_reason="FORBIDDEN")
    assert explain(record) == (
        "The request ended before a model was chosen. The request ended with PERMISSION_DENIED (FORBIDDEN)."
    )


def test_a_cascade_tells_every_stage_with_its_numbers() -> None:
    stages = [
        decision_pb2.Stage(
            model="small",
            result=decision_pb2.STAGE_RESULT_REJECTED,
            acceptance_probability=0.41236,
            threshold=0.7,
            cost_nano_usd=1_000_000,
            cost_source=decision_pb2.COST_SOURCE_REPORTED,
        ),
        decision_pb2.Stage(
            model="big", result=decision_pb2.STAGE_RESULT_NO_MONEY, cost_source=decision_pb2.COST_SOURCE_PENDING
        ),
    ]
    decision = weak(
        reason=decision_pb2.REASON_ANSWER_AT_HAND,
        strategy=decision_pb2.STRATEGY_CASCADE,
        stages=stages,
        alpha=None,
        cost_nano_usd=1_000_000,
    )
    text = explain(DecisionRecord(decision=decision, status="OK"))
    assert "no further one could be had, and of those at hand this one is most likely acceptable." in text
    assert (
        "Asked in turn: small (not accepted, acceptance probability 0.4124 against 0.7000, $0.001); "
        "big (not asked, for want of money or of the ledger)." in text
    )


def test_an_ensemble_tells_how_its_answers_did_against_each_other() -> None:
    stage = decision_pb2.Stage(
        model="small",
        result=decision_pb2.STAGE_RESULT_RANKED,
        win_rate=0.625,
        cost_source=decision_pb2.COST_SOURCE_PENDING,
    )
    decision = weak(reason=decision_pb2.REASON_BEST_RANKED, strategy=decision_pb2.STRATEGY_ENSEMBLE, stages=[stage])
    text = explain(DecisionRecord(decision=decision))
    assert "Asked at once: small (ranked, better than another answer with probability 0.6250)." in text


def test_the_hybrids_alphas_are_named() -> None:
    decision = weak(strategy=decision_pb2.STRATEGY_CASCADE, alpha_source=decision_pb2.ALPHA_SOURCE_FIXED, alpha=0.55)
    assert "below the cascade's easy_alpha, 0.5500." in explain(DecisionRecord(decision=decision))


def test_every_stage_result_is_told_in_words() -> None:
    for name, result in decision_pb2.StageResult.items():
        if result != decision_pb2.STAGE_RESULT_UNSPECIFIED:
            decision = weak(stages=[decision_pb2.Stage(model="small", result=result)])
            text = explain(DecisionRecord(decision=decision))
            assert name not in text
            assert "unknown" not in text
