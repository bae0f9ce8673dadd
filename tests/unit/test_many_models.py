"""Tenants of more than two models: what is compared, what is left out and told, and every rule on a ladder of three."""

import dataclasses

import pytest
from prometheus_client import CollectorRegistry

from dispatcher_service import kept, pricing, rendering
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import FixedAlpha, Model, OnScorerFailure, Shadow, StrongCallShare
from dispatcher_service.chat import Image, Message, PartKind, Role, Text, Tool
from dispatcher_service.errors import InvalidRequest, ModelsOff, UpstreamUnavailable
from dispatcher_service.metrics import Metrics
from dispatcher_service.outcome import Choice
from dispatcher_service.overrides import Override, OverrideKind
from dispatcher_service.pacing_targets import pacing_policy
from dispatcher_service.pricing import Price
from dispatcher_service.records import shadows
from dispatcher_service.routing import Ladder, LeftOut, Objective, Reason, Tier
from dispatcher_service.stickiness import Held, Sticky
from pointsman.dispatcher.v1 import decision_pb2
from tests.fakes import FakeScorer, FakeUpstream
from tests.unit.test_conversations import Talk
from tests.unit.test_dispatch import STRONG_COST, WEAK_COST, Bench, policy, request

# FakeUpstream reports 1000 input and 100 output tokens: 1,200, 3,600 and 12,000 nano-USD.
MIDDLE_PRICE = Price(input=3_000_000, cached_input=0, cache_write=0, output=6_000_000, reasoning=0)
MIDDLE_COST = 1000 * 3 + 100 * 6
LADDER = Ladder(("small", "medium", "big"))
BEATEN = {"big": 0.5, "medium": 0.53, "small": 0.6}


def medium(**changes: object) -> Model:
    base = Model(name="medium", prices=(MIDDLE_PRICE,), max_output_tokens=1000, part_tokens={PartKind.IMAGE: 1000})
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def bench(
    beaten: dict[str, float] | None = None,
    *,
    upstream: FakeUpstream | None = None,
    model: Model | None = None,
    **changes: object,
) -> Bench:
    scorer = FakeScorer(0.6, beaten=BEATEN if beaten is None else beaten)
    more: dict[str, object] = {"ladder": LADDER, "dial": FixedAlpha(0.55), "more": [model or medium()], **changes}
    return Bench(scorer, upstream, **more)  # type: ignore[arg-type]


async def chosen(one: Bench, **changes: object) -> Choice:
    return (await one.dispatcher.complete(request(**changes))).choice


def asking(*parts: Text | Image, tools: tuple[Tool, ...] = (), text_bytes: int = 4) -> object:
    message = Message(Role.USER, parts or (Text("hi"),))
    return dataclasses.replace(request().chat, messages=(message,), tools=tools, text_bytes=text_bytes)


async def test_the_cheapest_model_that_the_strongest_beats_too_seldom_answers() -> None:
    rungs = {alpha: (await chosen(bench(dial=FixedAlpha(alpha)))).model for alpha in (0.61, 0.6, 0.54, 0.53, 0.0)}
    assert rungs == {0.61: "small", 0.6: "medium", 0.54: "medium", 0.53: "big", 0.0: "big"}
    one = bench()
    choice = await chosen(one)
    assert (choice.decision.tier, choice.decision.reason) == (Tier.MIDDLE, Reason.BELOW_ALPHA)
    assert (choice.decision.alpha, choice.decision.win_probability) == (0.55, 0.6)
    bill = one.outcomes[0].bill
    assert bill is not None
    assert (bill.cost, bill.other_tier_cost, bill.all_strong_cost) == (MIDDLE_COST, STRONG_COST, STRONG_COST)
    costs = [pricing.cost(price, bill.usage) for price in one.outcomes[0].prices]
    assert costs == [WEAK_COST, MIDDLE_COST, STRONG_COST]


async def test_utility_weighs_quality_against_cost() -> None:
    # x of the middle is (3 - 1)/(10 - 1). Quality less λ·x at λ = .1: .4, .47 - .022, .5 - .1.
    assert (await chosen(bench(dial=FixedAlpha(0.6), objective=Objective.UTILITY))).decision.rung == 1
    choice = await chosen(bench(dial=FixedAlpha(0.53), objective=Objective.UTILITY))
    assert (choice.model, choice.decision.reason) == ("big", Reason.BEST_UTILITY)


async def test_scorers_may_know_the_models_by_other_names() -> None:
    known_as = Ladder(LADDER.models, known_as=("s-1", "m-1", "b-1"))
    beaten = {"b-1": 0.5, "m-1": 0.53, "s-1": 0.6}
    assert (await chosen(bench(beaten, ladder=known_as))).model == "medium"


async def test_what_the_scorer_does_not_know_is_left_out_and_told() -> None:
    choice = await chosen(bench({"big": 0.5, "small": 0.54}))
    assert (choice.model, choice.left_out) == ("small", {1: LeftOut.NOT_SCORED})


async def test_a_scorer_of_one_pair_decides_between_the_ends() -> None:
    choice = await chosen(bench({}))
    assert (choice.model, choice.left_out) == ("big", {1: LeftOut.NOT_SCORED})
    assert (await chosen(bench({}, dial=FixedAlpha(0.7)))).model == "small"


async def test_where_fewer_than_two_can_be_told_apart_the_policy_for_no_prediction_decides() -> None:
    one = bench({}, overrides=(_off("small"),), on_scorer_failure=OnScorerFailure.STRONG)
    choice = await chosen(one)
    assert (choice.model, choice.decision.reason) == ("big", Reason.SCORER_UNAVAILABLE)


async def test_models_that_do_not_fit_are_left_out_and_told_why() -> None:
    image = asking(Text("What is this?"), Image("https://example.com/a.png"))
    choice = await chosen(bench({**BEATEN, "medium": 0.55}, dial=FixedAlpha(0.5)), chat=image)
    assert (choice.model, choice.left_out) == ("big", {0: LeftOut.MODALITY})
    # 40,000 bytes are about 10,000 tokens, and 1,000 more may be answered.
    long = asking(text_bytes=40_000)
    tight = bench(model=medium(context_window=10_999))
    assert (await chosen(tight, chat=long)).left_out == {1: LeftOut.CONTEXT_WINDOW}
    assert (await chosen(bench(model=medium(context_window=11_000)), chat=long)).model == "medium"
    tools = asking(tools=(Tool(name="f"),))
    assert (await chosen(bench(model=medium(tools=False)), chat=tools)).left_out == {1: LeftOut.TOOLS}


async def test_a_request_that_one_model_takes_is_decided_without_the_scorer() -> None:
    one = bench(model=medium(part_tokens={}))
    choice = await chosen(one, chat=asking(Image("https://example.com/a.png")))
    assert (choice.model, choice.decision.reason) == ("big", Reason.ONLY_FIT)
    assert one.scorer.calls == []


async def test_a_request_that_no_model_takes_is_refused_and_says_what_each_lacks() -> None:
    models = {
        name: dataclasses.replace(model, context_window=100 if name != "big" else None, tools=name != "big")
        for name, model in bench().catalogue.models.items()
    }
    one = bench()
    one.catalogue = dataclasses.replace(one.catalogue, models=models)
    with pytest.raises(
        InvalidRequest, match=r"medium: about 1001 tokens .* context_window is 100; big: it has no tools"
    ):
        await one.dispatcher.complete(request(chat=asking(tools=(Tool(name="f"),))))
    assert one.upstream.models == []


@pytest.mark.parametrize(("on_failure", "model"), [(OnScorerFailure.WEAK, "medium"), (OnScorerFailure.STRONG, "big")])
async def test_without_a_prediction_an_end_of_what_fits_answers(on_failure: OnScorerFailure, model: str) -> None:
    one = bench(on_scorer_failure=on_failure)
    one.scorer.win_probability = None
    choice = await chosen(one, chat=asking(Image("https://example.com/a.png")))
    assert (choice.model, choice.decision.reason) == (model, Reason.SCORER_UNAVAILABLE)


def _off(model: str) -> Override:
    return Override(OverrideKind.MODEL_OFF, model, 2e9)


@pytest.mark.parametrize(
    ("overrides", "model", "reason"),
    [
        ((Override(OverrideKind.ALL_WEAK, "", 2e9),), "small", Reason.OVERRIDE_WEAK),
        ((Override(OverrideKind.ALL_STRONG, "", 2e9),), "big", Reason.OVERRIDE_STRONG),
        ((Override(OverrideKind.ALL_WEAK, "", 2e9), _off("small")), "medium", Reason.OVERRIDE_WEAK),
        ((_off("medium"),), "big", Reason.AT_OR_ABOVE_ALPHA),
        ((_off("big"),), "medium", Reason.AT_OR_ABOVE_ALPHA),
        ((_off("small"), _off("big")), "medium", Reason.ONLY_FIT),
    ],
)
async def test_overrides_hold_on_what_is_left(overrides: tuple[Override, ...], model: str, reason: Reason) -> None:
    choice = await chosen(bench(overrides=overrides))
    assert (choice.model, choice.decision.reason) == (model, reason)
    off = {each.model for each in overrides if each.model}
    assert {LADDER.models[rung] for rung, why in choice.left_out.items() if why is LeftOut.TURNED_OFF} == off


async def test_all_models_off_is_an_error_that_names_them() -> None:
    with pytest.raises(ModelsOff, match="big and medium and small"):
        await chosen(bench(overrides=(_off("small"), _off("medium"), _off("big"))))


async def test_a_sticky_conversation_goes_no_lower_than_it_has_been_and_may_go_higher() -> None:
    held = Held(tier=Tier.MIDDLE, model="medium", was_strong=False, highest="medium")
    easy = {"big": 0.5, "medium": 0.51, "small": 0.5}
    choice = await chosen(bench(easy), held=held)
    assert (choice.model, choice.left_out) == ("medium", {0: LeftOut.STICKY_CONVERSATION})
    assert (await chosen(bench(easy, dial=FixedAlpha(0.505)), held=held)).model == "big"
    both = bench(easy, sticky=Sticky.BOTH)
    choice = await chosen(both, held=held)
    assert (choice.model, choice.decision.reason, both.scorer.calls) == ("medium", Reason.STICKY_CONVERSATION, [])
    strong = await chosen(bench(easy), held=Held(tier=Tier.WEAK, model="small", was_strong=True, highest="big"))
    assert (strong.model, strong.decision.reason) == ("big", Reason.STICKY_CONVERSATION)


async def test_a_turn_that_the_conversations_model_cannot_take_goes_to_one_that_can() -> None:
    held = Held(tier=Tier.STRONG, model="big", was_strong=True, highest="big")
    models = {
        name: dataclasses.replace(model, tools=name == "small") for name, model in bench().catalogue.models.items()
    }
    for sticky in (Sticky.STRONG, Sticky.BOTH):
        one = bench(sticky=sticky)
        one.catalogue = dataclasses.replace(one.catalogue, models=models)
        choice = await chosen(one, held=held, chat=asking(tools=(Tool(name="f"),)))
        assert (choice.model, choice.decision.reason) == ("small", Reason.ONLY_FIT)


async def test_a_conversation_remembers_the_strongest_of_three_that_answered() -> None:
    talk = Talk(ladder=LADDER, dial=FixedAlpha(0.55), more=[medium()])
    talk.scorer.beaten = {"big": 0.5, "medium": 0.53, "small": 0.6}
    assert await talk.turn(0.6) == ("medium", Reason.BELOW_ALPHA)
    talk.scorer.beaten = {"big": 0.5, "medium": 0.53, "small": 0.5}
    assert await talk.turn(0.5) == ("medium", Reason.BELOW_ALPHA), "small would do, and it goes no lower"
    assert await talk.turn(0.5, conversation_id="another") == ("small", Reason.BELOW_ALPHA)
    talk.scorer.beaten = {"big": 0.5, "medium": 0.6, "small": 0.6}
    assert await talk.turn(0.6) == ("big", Reason.AT_OR_ABOVE_ALPHA)
    assert await talk.turn(0.1) == ("big", Reason.STICKY_CONVERSATION)


async def test_the_next_stronger_model_stands_in_first_and_then_the_cheaper_one() -> None:
    def broken(name: str) -> UpstreamUnavailable:
        return UpstreamUnavailable(name, "broke", may_be_billed=False)

    one = bench(upstream=FakeUpstream(failing={"medium-1": broken("medium-1")}), fallback_to_other_tier=True)
    choice = await chosen(one)
    assert (choice.model, choice.decision.reason, choice.instead_of) == ("big", Reason.FALLBACK, "medium")
    failing = {name: broken(name) for name in ("medium-1", "big-1")}
    last = await chosen(bench(upstream=FakeUpstream(failing=failing), fallback_to_other_tier=True))
    assert (last.model, last.decision.tier) == ("small", Tier.WEAK)


async def test_a_limit_without_room_goes_to_the_cheapest_that_fits() -> None:
    # The worst case of an image with 1,000 tokens of answer is some 33,000 nano-USD at big and 10,000 at medium.
    image = asking(Image("https://example.com/a.png"))
    limits = (Limit(Period.HOUR, 20_000),)
    one = bench(dial=FixedAlpha(0.0), limits=limits, on_exhausted=OnExhausted.DEGRADE, pacing=None, sticky=Sticky.OFF)
    choice = await chosen(one, chat=image)
    assert (choice.model, choice.decision.reason) == ("medium", Reason.BUDGET_DEGRADED)
    assert choice.decision.win_probability == 0.53, "what was compared stays"


async def test_pacing_counts_the_way_from_cheapest_to_dearest() -> None:
    paced = pacing_policy(share=0.3, alpha=None, limits=(), window_calls=100)
    assert paced is not None
    one = bench(dial=StrongCallShare(0.3), pacing=paced)
    spent = 0
    for call in range(1_500):
        need = 0.5 + (call * 0.618034) % 1 * 0.2
        one.scorer.beaten = {"big": 0.5, "medium": 0.5 + (need - 0.5) / 2, "small": need}
        one.scorer.win_probability = need
        await one.dispatcher.complete(request())
        if call >= 500:
            spent += one.outcomes[-1].bill.cost if one.outcomes[-1].bill else 0
    assert (spent / 1_000 - WEAK_COST) / (STRONG_COST - WEAK_COST) == pytest.approx(0.3, abs=0.03)
    assert {outcome.choice.model for outcome in one.outcomes if outcome.choice} == {"small", "medium", "big"}


async def test_a_shadow_chooses_among_the_same_models() -> None:
    choice = await chosen(bench())
    shadow = shadows.by_dial(policy(shadow=Shadow(dial=FixedAlpha(0.7), scorer="")), choice)
    assert shadow is not None
    assert (shadow.model, shadow.decision.tier) == ("small", Tier.WEAK)
    assert choice.prediction is not None
    other = dataclasses.replace(choice.prediction, beaten={"big": 0.5, "medium": 0.9, "small": 0.9})
    found = shadows.by_scorer(policy(shadow=Shadow(dial=None, scorer="x")), choice, other)
    assert found is not None
    assert found.model == "big"


async def test_metrics_name_the_model_count_x_and_say_what_is_not_compared() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, tenants=["t"])
    for beaten in (BEATEN, {"big": 0.5, "small": 0.54}):
        one = bench(beaten)
        await chosen(one)
        metrics.observe(one.outcomes[0])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"pointsman_dispatcher_{name}", {"tenant": "t", **labels})

    assert (value("model_decisions_total", model="medium"), value("model_decisions_total", model="small")) == (1, 1)
    assert value("decisions_total", tier="middle") == 1
    # Medium stands at (3 - 1)/(10 - 1) of the way.
    assert value("strong_call_equivalents_total") == pytest.approx(2 / 9, abs=0.001)
    assert value("models_not_compared") == 1


async def test_a_result_is_kept_for_retries_with_what_was_compared() -> None:
    one = bench({"big": 0.5, "small": 0.54})
    result = kept.Result.of(await one.dispatcher.complete(request()))
    again = kept.read(kept.write(result))
    assert result.choice is not None
    assert again.choice is not None
    shown = rendering.decision(result.choice, result.bill)
    assert shown.candidates[1].left_out == decision_pb2.LEFT_OUT_NOT_SCORED
    assert rendering.decision(again.choice, again.bill) == shown
