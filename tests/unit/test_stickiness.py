"""Which model a conversation keeps: tool loop before sticky conversation before alpha."""

import pytest

from dispatcher_service.chat import Chat, Message, Role, Text, ToolCall
from dispatcher_service.routing import Decision, ModelPair, Reason, Tier
from dispatcher_service.stickiness import Held, Sticky, first, forced

PAIR = ModelPair(strong="big", weak="small")
MODELS = frozenset({"big", "small", "spare"})
USER = Message(Role.USER, (Text("hi"),))
ANSWER = Message(Role.ASSISTANT, (Text("hello"),))
CALLS = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")))
RESULT = Message(Role.TOOL, (Text("42"),), tool_call_id="1")


def decided(held: Held | None, sticky: Sticky, *, in_tool_loop: bool = False) -> tuple[Decision, ModelPair] | None:
    return forced(held, in_tool_loop=in_tool_loop, sticky=sticky, pair=PAIR, models=MODELS)


def test_strong_sticks_and_weak_stays_free_by_default() -> None:
    strong, weak = first(Tier.STRONG, "big"), first(Tier.WEAK, "small")
    choice = decided(strong, Sticky.STRONG)
    assert choice is not None
    assert (choice[0].tier, choice[0].reason, choice[0].alpha) == (Tier.STRONG, Reason.STICKY_CONVERSATION, None)
    assert decided(weak, Sticky.STRONG) is None
    assert decided(None, Sticky.STRONG) is None


def test_a_turn_that_a_limit_sent_weak_does_not_end_a_strong_conversation() -> None:
    choice = decided(first(Tier.STRONG, "big").then(Tier.WEAK, "small"), Sticky.STRONG)
    assert choice is not None
    assert choice[0].tier is Tier.STRONG


def test_off_lets_every_turn_go_back_to_weak() -> None:
    assert decided(first(Tier.STRONG, "big"), Sticky.OFF) is None


def test_both_keeps_weak_too() -> None:
    choice = decided(first(Tier.WEAK, "small"), Sticky.BOTH)
    assert choice is not None
    assert choice[0].tier is Tier.WEAK


@pytest.mark.parametrize("sticky", list(Sticky))
def test_a_tool_loop_keeps_the_model_that_made_the_calls_whatever_the_policy(sticky: Sticky) -> None:
    # It was strong once, but the calls were made by a fallback of the weak tier.
    held = Held(tier=Tier.WEAK, model="spare", was_strong=True)
    choice = decided(held, sticky, in_tool_loop=True)
    assert choice is not None
    decision, pair = choice
    assert (decision.reason, pair.of(decision.tier)) == (Reason.TOOL_LOOP, "spare")
    assert pair.strong == "big"


def test_a_tool_loop_whose_model_is_gone_is_decided_anew() -> None:
    held = first(Tier.STRONG, "retired")
    assert decided(held, Sticky.STRONG, in_tool_loop=True) is None


@pytest.mark.parametrize(
    ("messages", "inside"),
    [
        ((USER,), False),
        ((USER, ANSWER, USER), False),
        ((USER, CALLS, RESULT), True),
        ((USER, CALLS, RESULT, RESULT), True),
        ((USER, CALLS, RESULT, USER), True),
        ((USER, CALLS), False),
        ((USER, CALLS, RESULT, ANSWER), False),
        ((USER, CALLS, RESULT, ANSWER, USER), False),
        ((USER, CALLS, RESULT, CALLS, RESULT), True),
        ((RESULT,), False),
    ],
)
def test_a_tool_loop_lasts_from_the_first_result_to_the_models_next_words(
    messages: tuple[Message, ...], *, inside: bool
) -> None:
    assert Chat(messages=messages, text_bytes=1).in_tool_loop is inside
