"""Overlays over a tenant's section, and overrides: what is in force, and what comes back from the document."""

import dataclasses
from decimal import Decimal

import pytest

from dispatcher_service import overlay, overrides
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.chat import Message, Role, Text, ToolCall
from dispatcher_service.errors import BudgetExhausted, ModelsOff, UpstreamUnavailable
from dispatcher_service.overlay import Change, Json, Overlay, OverlayError
from dispatcher_service.overrides import Override, OverrideKind
from dispatcher_service.routing import Ladder, Reason, Tier
from dispatcher_service.sections import TenantSection
from dispatcher_service.stickiness import Held
from pointsman.dispatcher.v1 import budget_pb2
from tests.fakes import FakeScorer, FakeUpstream
from tests.unit.test_dispatch import Bench, request

BY = Change("c1", "ada", "a test", 1e9)
LADDER = Ladder(("small", "big"))
FILE = TenantSection.model_validate(
    {"strong_model": "big", "weak_model": "small", "strong_call_share": 0.3, "usd_per_day": "50"}
)


def _set(
    before: Overlay | None = None, *, unset: tuple[str, ...] = (), reset: tuple[str, ...] = (), **values: Json
) -> Overlay:
    return overlay.with_values(before or Overlay(), values, unset=unset, reset=reset, change=BY)


def test_values_are_laid_over_the_file_and_the_rest_stays() -> None:
    laid = overlay.apply(FILE, _set(strong_call_share=0.1, on_exhausted="reject", usd_per_month="12.5"))
    assert (laid.strong_call_share, laid.on_exhausted, laid.usd_per_month) == (0.1, OnExhausted.REJECT, Decimal("12.5"))
    assert (laid.usd_per_day, laid.strong_model) == (Decimal(50), "big")


def test_an_alpha_puts_the_files_share_out_of_force_and_the_other_way_round() -> None:
    fixed = _set(alpha=0.6)
    laid = overlay.apply(FILE, fixed)
    assert (laid.alpha, laid.strong_call_share) == (0.6, None)
    back = overlay.apply(FILE, _set(fixed, strong_call_share=0.2))
    assert (back.alpha, back.strong_call_share) == (None, 0.2)


def test_a_limit_can_be_taken_away_and_left_to_the_file_again() -> None:
    without = _set(unset=("usd_per_day",))
    assert overlay.apply(FILE, without).usd_per_day is None
    assert overlay.apply(FILE, _set(without, reset=("usd_per_day",))) == FILE


@pytest.mark.parametrize(
    ("key", "value"), [("strong_call_share", 1.5), ("on_exhausted", "shrug"), ("usd_per_day", "9000001"), ("pace", "x")]
)
def test_a_value_that_its_key_cannot_have_is_refused_by_name(key: str, value: Json) -> None:
    wanted = overlay.with_values(Overlay(), {key: value}, unset=(), reset=(), change=BY)
    with pytest.raises(OverlayError, match=key):
        overlay.apply(FILE, wanted)


def test_overlays_come_back_from_their_document() -> None:
    overlays = {
        "acme": overlay.with_override(
            _set(unset=("usd_per_day",), alpha=0.25), Override(OverrideKind.MODEL_OFF, "big", 2e9), change=BY
        ),
        overlay.EVERYONE: overlay.with_override(Overlay(), Override(OverrideKind.ALL_WEAK, "", 2e9), change=BY),
    }
    assert overlay.read(overlay.write(overlays)) == overlays
    for nonsense in (b"[]", b"nonsense", b'{"acme": {}}', b'{"acme": 7}'):
        with pytest.raises(ValueError, match=r".*"):
            overlay.read(nonsense)


def test_a_tenant_is_turned_to_one_tier_at_a_time_and_models_go_off_one_by_one() -> None:
    own = Overlay()
    for kind, model in (
        (OverrideKind.ALL_WEAK, ""), (OverrideKind.MODEL_OFF, "big"), (OverrideKind.ALL_STRONG, ""),
        (OverrideKind.MODEL_OFF, "small"), (OverrideKind.MODEL_OFF, "big"),
    ):  # fmt: skip
        own = overlay.with_override(own, Override(kind, model, 2e9), change=BY)
    found = [(each.override.kind, each.override.model) for each in own.overrides]
    assert found == [
        (OverrideKind.ALL_STRONG, ""),
        (OverrideKind.MODEL_OFF, "small"),
        (OverrideKind.MODEL_OFF, "big"),
    ]
    assert overlay.without_overrides(own, change=BY).overrides == ()
    later = Change("c2", "ada", "a test", 2e9)
    fresh = overlay.with_override(own, Override(OverrideKind.ALL_WEAK, "", 3e9), change=later)
    assert [each.override.expires_at for each in fresh.overrides] == [3e9], "expired ones go"


def _over(kind: OverrideKind, model: str = "", expires_at: float = 2e9) -> Override:
    return Override(kind, model, expires_at)


WEAK, STRONG, OFF = OverrideKind.ALL_WEAK, OverrideKind.ALL_STRONG, OverrideKind.MODEL_OFF


@pytest.mark.parametrize(
    ("active", "tier"),
    [
        ((), None),
        ((_over(WEAK),), Tier.WEAK),
        ((_over(STRONG),), Tier.STRONG),
        ((_over(STRONG), _over(WEAK)), Tier.STRONG),
        ((_over(OFF, "big"),), Tier.WEAK),
        ((_over(OFF, "small"),), Tier.STRONG),
        ((_over(OFF, "big"), _over(STRONG)), Tier.WEAK),
        ((_over(OFF, "another"),), None),
        ((_over(WEAK, expires_at=1e9),), None),
    ],
)
def test_the_first_tier_counts_and_a_model_that_is_off_outweighs_it(
    active: tuple[Override, ...], tier: Tier | None
) -> None:
    off = overrides.models_off(active, now=1e9)
    on = [rung for rung, model in enumerate(LADDER.models) if model not in off]
    decision = overrides.forced(active, LADDER, fitting=(0, 1), on=on, now=1e9)
    assert (None if decision is None else decision.tier) == tier


async def test_an_override_stands_above_the_scorer_a_sticky_conversation_and_the_callers_alpha() -> None:
    bench = Bench(FakeScorer(0.9), overrides=(_over(WEAK),))
    sticky = Held(tier=Tier.STRONG, model="big", was_strong=True)
    for wanted in (request(), request(held=sticky), request(alpha=0.0)):
        choice = (await bench.dispatcher.complete(wanted)).choice
        assert (choice.model, choice.decision.reason) == ("small", Reason.OVERRIDE_WEAK)
    assert bench.scorer.calls == []
    assert (await bench.dispatcher.route(request())).decision.reason is Reason.OVERRIDE_WEAK


async def test_a_tool_loop_keeps_its_model_under_an_override_and_is_refused_where_that_is_off() -> None:
    call = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c", "f", "{}"),))
    result = Message(Role.TOOL, (Text("4"),), tool_call_id="c")
    messages = (*request().chat.messages, call, result)
    looping = request(
        chat=dataclasses.replace(request().chat, messages=messages),
        held=Held(tier=Tier.STRONG, model="big", was_strong=True),
    )
    weak = Bench(FakeScorer(0.1), overrides=(_over(WEAK),))
    choice = (await weak.dispatcher.complete(looping)).choice
    assert (choice.model, choice.decision.reason) == ("big", Reason.TOOL_LOOP)
    off = Bench(FakeScorer(0.1), overrides=(_over(OFF, "big"),))
    with pytest.raises(ModelsOff, match="model big is turned off"):
        await off.dispatcher.complete(looping)
    assert off.upstream.models == []


async def test_an_override_ends_by_itself() -> None:
    bench = Bench(FakeScorer(0.9), overrides=(_over(WEAK, expires_at=1e9 + 60),))
    assert (await bench.dispatcher.complete(request())).choice.model == "small"
    bench.wall += 60
    assert (await bench.dispatcher.complete(request())).choice.model == "big"


async def test_with_both_models_off_nothing_is_called() -> None:
    bench = Bench(overrides=(_over(OFF, "big"), _over(OFF, "small")))
    with pytest.raises(ModelsOff):
        await bench.dispatcher.complete(request())
    assert bench.upstream.models == []


async def test_a_model_that_is_off_is_no_fallback_for_failure_or_money() -> None:
    failing = FakeUpstream(error=UpstreamUnavailable("big-1", "down", may_be_billed=False))
    bench = Bench(FakeScorer(0.9), failing, overrides=(_over(OFF, "small"),), fallback_to_other_tier=True)
    with pytest.raises(UpstreamUnavailable):
        await bench.dispatcher.complete(request())
    assert set(bench.upstream.models) == {"big"}
    poor = Bench(FakeScorer(0.9), overrides=(_over(OFF, "small"),), limits=(Limit(Period.DAY, 1),))
    with pytest.raises(BudgetExhausted):
        await poor.dispatcher.complete(request())
    assert poor.upstream.models == []


def test_what_is_changeable_are_keys_of_the_file_and_of_the_contract() -> None:
    assert set(overlay.CHANGEABLE) <= set(TenantSection.model_fields)
    amounts = {"nano_usd_per_hour", "nano_usd_per_day", "nano_usd_per_month", "overdraft_nano_usd"}
    named = {field for field in budget_pb2.PolicyValues.DESCRIPTOR.fields_by_name if field not in amounts}
    assert named == {key for key in overlay.CHANGEABLE if "usd" not in key}
