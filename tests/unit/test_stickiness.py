"""Which model a conversation keeps: tool loop before sticky conversation before alpha."""

import pytest

from dispatcher_service.chat import Chat, Message, Role, Text, ToolCall
from dispatcher_service.routing import Ladder, Tier
from dispatcher_service.stickiness import Held, Sticky, first, kept, lowest, rung_of

LADDER = Ladder(("small", "big"))
MODELS = frozenset({"big", "small", "spare"})
USER = Message(Role.USER, (Text("hi"),))
ANSWER = Message(Role.ASSISTANT, (Text("hello"),))
CALLS = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")))
RESULT = Message(Role.TOOL, (Text("42"),), tool_call_id="1")


STRONG, WEAK = first(LADDER, 1, "big"), first(LADDER, 0, "small")


def test_strong_sticks_and_weak_stays_free_by_default() -> None:
    assert lowest(STRONG, Sticky.STRONG, LADDER) == 1
    assert lowest(WEAK, Sticky.STRONG, LADDER) == 0
    assert lowest(None, Sticky.STRONG, LADDER) == 0


def test_a_turn_that_a_limit_sent_weak_does_not_end_a_strong_conversation() -> None:
    assert lowest(STRONG.then(LADDER, 0, "small"), Sticky.STRONG, LADDER) == 1


def test_off_lets_every_turn_go_back_to_weak() -> None:
    assert lowest(STRONG, Sticky.OFF, LADDER) == 0


def test_of_many_models_a_conversation_goes_no_lower_than_it_has_been() -> None:
    ladder = Ladder(("a", "b", "c"))
    held = first(ladder, 1, "b").then(ladder, 0, "a")
    assert (held.tier, held.highest, lowest(held, Sticky.STRONG, ladder)) == (Tier.WEAK, "b", 1)
    assert lowest(held.then(ladder, 2, "c"), Sticky.STRONG, ladder) == 2
    # A model that left the ladder holds nothing; having been at the strong end always does.
    assert lowest(held, Sticky.STRONG, Ladder(("a", "c"))) == 0
    assert lowest(Held(tier=Tier.WEAK, model="a", was_strong=True), Sticky.STRONG, ladder) == 2


def test_the_rung_that_answered_last_is_known_by_its_tier_and_in_the_middle_by_its_name() -> None:
    ladder = Ladder(("a", "b", "c", "d"))
    middle = first(ladder, 2, "spare")
    assert [rung_of(held, ladder) for held in (first(ladder, 0, "x"), middle, first(ladder, 3, "x"))] == [0, 2, 3]
    assert rung_of(first(ladder, 2, "c"), ladder) == 2
    assert rung_of(middle, Ladder(("a", "b", "d"))) == 1, "a rung that is gone"
    assert rung_of(middle, LADDER) == 1


def test_a_tool_loop_keeps_the_model_that_made_the_calls() -> None:
    # It was strong once, but the calls were made by a fallback of the weak tier.
    held = Held(tier=Tier.WEAK, model="spare", was_strong=True)
    assert kept(held, LADDER, MODELS) == (Ladder(("spare", "big")), 0)


def test_a_tool_loop_whose_model_is_gone_is_decided_anew() -> None:
    assert kept(first(LADDER, 1, "retired"), LADDER, MODELS) is None
    assert kept(None, LADDER, MODELS) is None


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
