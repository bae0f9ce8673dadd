"""The layer that recalls and remembers: what sticks, for whom, and what a failing store does."""

import dataclasses

import pytest

from dispatcher_service.answer import Choice, Completion, Delta, End, FinishReason, ToolCallDelta
from dispatcher_service.chat import Chat, Message, Role, Text, ToolCall
from dispatcher_service.conversations import Conversations, conversation_document, requests_of
from dispatcher_service.dispatch import Started
from dispatcher_service.errors import LedgerUnavailable, Unauthenticated
from dispatcher_service.ledger.contract import Document
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.routing import Reason
from dispatcher_service.stickiness import Sticky
from tests.fakes import USAGE, FakeScorer, FakeUpstream
from tests.unit.test_dispatch import Bench, policy, request

CALLS = (ToolCall("call_7", "lookup", "{}"),)


class CallingUpstream(FakeUpstream):
    """Answers every request with a tool call, streamed in two pieces."""

    async def complete(self, deployment, chat, *, max_tokens, timeout):  # type: ignore[no-untyped-def]
        self.models.append(deployment.model)
        choice = Choice(index=0, content="", tool_calls=CALLS, finish_reason=FinishReason.TOOL_CALLS)
        return Completion(choices=(choice,), usage=USAGE)

    async def stream(self, deployment, chat, *, max_tokens, timeout):  # type: ignore[no-untyped-def]
        self.models.append(deployment.model)
        yield Delta(tool_calls=(ToolCallDelta(0, "call_7", "lookup", "{"),))
        yield Delta(tool_calls=(ToolCallDelta(0, "", "", "}"),))
        yield End(finish_reasons=(FinishReason.TOOL_CALLS,), usage=USAGE)


class BrokenStore:
    """Fails every step, as a ledger does that cannot be reached."""

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        raise LedgerUnavailable("down")

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        raise LedgerUnavailable("down")

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        raise LedgerUnavailable("down")


class Talk:
    """Conversations over a real use case on fakes."""

    def __init__(
        self,
        win_probability: float = 0.9,
        upstream: FakeUpstream | None = None,
        store: MemoryLedger | BrokenStore | None = None,
        **changes: object,
    ) -> None:
        self.now = 1e9
        self.scorer = FakeScorer(win_probability)
        more = changes.pop("more", ())
        self.bench = Bench(self.scorer, upstream, None, more=more, **changes)
        self.store = store or MemoryLedger(lambda: self.now)
        self.observed: list[tuple[str, str]] = []
        catalogue = dataclasses.replace(
            self.bench.catalogue, tenants={name: policy(tenant_id=name, **changes) for name in ("t", "other")}
        )
        self.bench.catalogue = catalogue
        self.layer = Conversations(
            self.bench.rebuilt(),
            documents=self.store,
            catalogue=lambda: catalogue,
            observe=lambda operation, result, _: self.observed.append((operation, result)),
        )

    async def turn(self, win_probability: float, **changes: object) -> tuple[str, Reason]:
        self.scorer.win_probability = win_probability
        choice = (await self.layer.complete(request(**{"conversation_id": "c", **changes}))).choice
        return choice.model, choice.decision.reason


def loop(words: str = "What is 2 + 2?", call_id: str = "call_7") -> Chat:
    messages = (
        Message(Role.USER, (Text(words),)),
        Message(Role.ASSISTANT, (), tool_calls=(ToolCall(call_id, "lookup", '{"spaced": 1}'),)),
        Message(Role.TOOL, (Text("4"),), tool_call_id=call_id),
    )
    return Chat(messages=messages, text_bytes=20)


async def test_strong_sticks_to_its_conversation_and_to_no_other() -> None:
    talk = Talk()
    assert await talk.turn(0.1) == ("small", Reason.BELOW_ALPHA)
    assert await talk.turn(0.9) == ("big", Reason.AT_OR_ABOVE_ALPHA)
    calls = len(talk.scorer.calls)
    assert await talk.turn(0.1) == ("big", Reason.STICKY_CONVERSATION)
    assert len(talk.scorer.calls) == calls  # what is forced asks no scorer
    assert await talk.turn(0.1, conversation_id="d") == ("small", Reason.BELOW_ALPHA)
    assert await talk.turn(0.1, conversation_id="") == ("small", Reason.BELOW_ALPHA)
    assert await talk.turn(0.1, tenant_id="other") == ("small", Reason.BELOW_ALPHA)


async def test_a_conversation_is_forgotten_when_its_time_is_over() -> None:
    talk = Talk(conversation_ttl=600.0)
    await talk.turn(0.9)
    talk.now += 599
    assert await talk.turn(0.1) == ("big", Reason.STICKY_CONVERSATION)
    talk.now += 599  # since the last turn
    assert await talk.turn(0.1) == ("big", Reason.STICKY_CONVERSATION)
    talk.now += 600
    assert await talk.turn(0.1) == ("small", Reason.BELOW_ALPHA)


async def test_route_reads_what_is_remembered_and_remembers_nothing() -> None:
    talk = Talk()
    asked = request(conversation_id="c")
    assert (await talk.layer.route(asked)).decision.reason is Reason.AT_OR_ABOVE_ALPHA
    assert await talk.turn(0.1) == ("small", Reason.BELOW_ALPHA)
    await talk.turn(0.9)
    assert (await talk.layer.route(asked)).decision.reason is Reason.STICKY_CONVERSATION


async def test_a_tool_loop_keeps_its_model_without_a_conversation_id() -> None:
    talk = Talk(upstream=CallingUpstream(), sticky=Sticky.OFF)
    assert await talk.turn(0.1, conversation_id="") == ("small", Reason.BELOW_ALPHA)
    assert await talk.turn(0.9, conversation_id="", chat=loop()) == ("small", Reason.TOOL_LOOP)
    # The same calls after other words, or other calls, are another loop.
    assert await talk.turn(0.9, conversation_id="", chat=loop("Other")) == ("big", Reason.AT_OR_ABOVE_ALPHA)
    assert await talk.turn(0.9, conversation_id="", chat=loop(call_id="x")) == ("big", Reason.AT_OR_ABOVE_ALPHA)


async def test_a_tool_loop_comes_before_a_sticky_conversation() -> None:
    talk = Talk(upstream=CallingUpstream())
    await talk.turn(0.9)
    # Another branch of the conversation was answered by the weak model, which made other calls.
    weak = request(chat=dataclasses.replace(request().chat, messages=(Message(Role.USER, (Text("branch"),)),)))
    talk.scorer.win_probability = 0.1
    await talk.layer.complete(weak)
    assert await talk.turn(0.9, chat=loop("branch")) == ("small", Reason.TOOL_LOOP)
    assert await talk.turn(0.1, chat=loop()) == ("big", Reason.TOOL_LOOP)


async def test_a_streamed_tool_call_is_remembered_from_its_pieces() -> None:
    talk = Talk(0.1, upstream=CallingUpstream())
    async for _ in talk.layer.stream(request()):
        pass
    assert await talk.turn(0.9, conversation_id="", chat=loop()) == ("small", Reason.TOOL_LOOP)


async def test_an_answer_that_the_caller_breaks_off_is_remembered_too() -> None:
    talk = Talk(0.9)
    events = talk.layer.stream(request(conversation_id="c"))
    assert isinstance(await anext(events), Started)
    assert isinstance(await anext(events), Delta)
    await events.aclose()
    await talk.layer.close()
    assert await talk.turn(0.1) == ("big", Reason.STICKY_CONVERSATION)


async def test_a_store_that_fails_fails_no_request() -> None:
    talk = Talk(store=BrokenStore())
    assert await talk.turn(0.9) == ("big", Reason.AT_OR_ABOVE_ALPHA)
    assert await talk.turn(0.1) == ("small", Reason.BELOW_ALPHA)
    assert await talk.turn(0.1, chat=loop()) == ("small", Reason.BELOW_ALPHA)
    assert talk.observed == [("recall", "failed"), ("remember", "failed")] * 3


async def test_the_document_holds_the_latest_request_ids_and_no_text() -> None:
    talk = Talk()
    for number in range(70):
        await talk.turn(0.9, request_id=f"r-{number}")
    assert isinstance(talk.store, MemoryLedger)
    document = await talk.store.get_document("t", conversation_document("c"))
    assert document is not None
    assert requests_of(document) == tuple(f"r-{number}" for number in range(6, 70))
    assert b"2 + 2" not in document.body


async def test_a_request_of_an_unknown_tenant_reaches_the_use_case_untouched() -> None:
    talk = Talk()
    with pytest.raises(Unauthenticated):
        await talk.turn(0.9, tenant_id="nobody")
    assert talk.observed == []
