"""One result per request id: replayed, in flight, in conflict, after a crash; what is kept and what is not."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dispatcher_service import kept
from dispatcher_service.answer import (
    Choice,
    Completion,
    Delta,
    End,
    FinishReason,
    Idempotency,
    Logprobs,
    Origin,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
)
from dispatcher_service.assembly import Assembly
from dispatcher_service.catalogue import OnLedgerFailure
from dispatcher_service.chat import Chat, Message, Request, Role, Text, ToolCall
from dispatcher_service.dispatch import Answer, Finished, Started, StreamEvent
from dispatcher_service.errors import (
    FirstFailed,
    IdempotencyConflict,
    InFlight,
    InvalidRequest,
    LedgerUnavailable,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.idempotency import Idempotent, result_document
from dispatcher_service.kept import Result
from dispatcher_service.ledger.contract import Document
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.ledger.sqlite import SqliteLedger
from tests.fakes import USAGE, FakeScorer, FakeUpstream
from tests.ledgers import ManualClock
from tests.unit.test_dispatch import Bench, request

CLOCK = ManualClock()


class Replica:
    """The layer over a real use case on fakes, with its own record of outcomes, and documents that may be shared."""

    def __init__(
        self,
        upstream: FakeUpstream | None = None,
        store: MemoryLedger | SqliteLedger | None = None,
        lease: float = 15.0,
        **changes: object,
    ) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryLedger(self.clock)
        self.bench = Bench(FakeScorer(0.9), upstream, None, **changes)
        self.events: list[str] = []
        self.layer = Idempotent(
            self.bench.dispatcher,
            documents=self.store,
            catalogue=lambda: self.bench.catalogue,
            observe=self.events.append,
            lease=lease,
        )

    @property
    def called(self) -> int:
        """How often the use case ran."""
        return len(self.bench.outcomes)

    async def stream(self, wanted: Request) -> list[StreamEvent]:
        return [event async for event in self.layer.stream(wanted)]


def named(**changes: object) -> Request:
    return request(caller_named=True, **changes)


async def test_a_retry_gets_the_first_answer_and_calls_nothing() -> None:
    replica = Replica()
    first = await replica.layer.complete(named())
    again = await replica.layer.complete(named(timeout=3.0))
    assert (first.idempotency, again.idempotency) == (Idempotency.KEPT, Idempotency.REPLAYED)
    assert (again.completion, again.bill) == (first.completion, first.bill)
    assert again.choice.decision == first.choice.decision
    assert replica.called == 1
    assert len(replica.bench.upstream.models) == 1
    assert replica.events == ["kept", "replayed"]


async def test_a_stream_is_replayed_as_decision_one_delta_and_end_whatever_the_retry_is() -> None:
    replica = Replica()
    started, *pieces, finished = await replica.stream(named())
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert len(pieces) == 2
    assert (started.idempotency, finished.idempotency) == (Idempotency.OFF, Idempotency.KEPT)
    again, delta, end = await replica.stream(named())
    assert isinstance(again, Started)
    assert isinstance(end, Finished)
    assert delta == Delta(content="Hello world")
    assert (again.idempotency, end.idempotency) == (Idempotency.REPLAYED, Idempotency.REPLAYED)
    assert (end.end, end.bill) == (finished.end, finished.bill)
    whole = await replica.layer.complete(named())
    assert whole.completion.choices[0].content == "Hello world"
    assert replica.called == 1


async def test_another_body_under_the_same_id_is_refused_and_names_the_field() -> None:
    replica = Replica()
    await replica.layer.complete(named())
    other = Chat(messages=(Message(Role.USER, (Text("And 3 + 3?"),)),), text_bytes=10)
    for changed in (named(chat=other), named(alpha=0.2), named(labels={"team": "search"})):
        with pytest.raises(IdempotencyConflict, match="request_id") as caught:
            await replica.layer.complete(changed)
        assert caught.value.status == "INVALID_ARGUMENT"
    assert replica.called == 1


async def test_an_id_belongs_to_its_tenant_and_a_request_without_one_is_never_replayed() -> None:
    replica = Replica()
    await replica.layer.complete(named())
    assert await replica.store.get_document("other", result_document("r")) is None
    for _ in range(2):
        assert (await replica.layer.complete(request())).idempotency is Idempotency.OFF
    assert replica.called == 3


async def test_a_tenant_may_keep_no_results() -> None:
    replica = Replica(idempotency_retention=0.0)
    for _ in range(2):
        assert (await replica.layer.complete(named())).idempotency is Idempotency.OFF
    assert replica.called == 2
    assert await replica.store.get_document("t", result_document("r")) is None


async def test_a_result_is_kept_for_the_tenants_retention() -> None:
    replica = Replica(idempotency_retention=60.0)
    await replica.layer.complete(named())
    replica.clock.now += 59
    assert (await replica.layer.complete(named())).idempotency is Idempotency.REPLAYED
    replica.clock.now += 2
    assert (await replica.layer.complete(named())).idempotency is Idempotency.KEPT
    assert replica.called == 2


class Hanging(FakeUpstream):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def complete(self, deployment, chat, *, max_tokens, timeout):  # type: ignore[no-untyped-def]
        self.begun.set()
        await self.go.wait()
        return await super().complete(deployment, chat, max_tokens=max_tokens, timeout=timeout)


async def test_a_request_in_flight_is_aborted_with_when_to_come_back_on_every_replica(tmp_path: Path) -> None:
    """Two replicas on one file: what one is answering, the other does not begin; then it has the first one's answer."""
    upstream = Hanging()
    here = Replica(upstream, SqliteLedger(tmp_path / "ledger.db", clock=CLOCK))
    there = Replica(None, SqliteLedger(tmp_path / "ledger.db", clock=CLOCK))
    first = asyncio.create_task(here.layer.complete(named()))
    await upstream.begun.wait()
    for replica in (here, there):
        with pytest.raises(InFlight) as caught:
            await replica.layer.complete(named())
        assert (caught.value.status, caught.value.retry_after) == ("ABORTED", 1.0)
    upstream.go.set()
    answer = await first
    again = await there.layer.complete(named())
    assert (again.completion, again.idempotency) == (answer.completion, Idempotency.REPLAYED)
    assert (here.called, there.called) == (1, 0)
    for replica in (here, there):
        await replica.store.close()


async def test_of_many_at_once_exactly_one_runs() -> None:
    replica = Replica()
    ends = await asyncio.gather(*(replica.layer.complete(named()) for _ in range(20)), return_exceptions=True)
    assert replica.called == 1
    answers = [end for end in ends if isinstance(end, Answer)]
    assert {answer.completion for answer in answers} == {answers[0].completion}
    assert all(isinstance(end, (Answer, InFlight)) for end in ends)


async def test_a_claim_is_renewed_while_its_request_runs_and_lapses_when_its_process_has_died() -> None:
    """Time for the claim passes on the ledger's clock, which stands still until it is moved."""
    upstream, clock = Hanging(), ManualClock()
    store = MemoryLedger(clock)
    replica, survivor = Replica(upstream, store, lease=0.03), Replica(store=store)
    first = asyncio.create_task(replica.layer.complete(named()))
    await upstream.begun.wait()
    for _ in range(5):
        claimed = await store.get_document("t", result_document("r"))
        assert claimed is not None
        clock.now += 0.02  # no lease by itself, three of them together
        while (renewed := await store.get_document("t", result_document("r"))) == claimed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert renewed is not None
    with pytest.raises(InFlight):
        await survivor.layer.complete(named())
    # Its process dies: nobody renews any more.
    renewing = next(task for task in asyncio.all_tasks() if "Idempotent._renew" in repr(task.get_coro()))
    renewing.cancel()
    clock.now += 0.031
    assert (await survivor.layer.complete(named())).idempotency is Idempotency.KEPT
    # Should the first one have lived after all: its answer is given, and the survivor's stays the one that is kept.
    upstream.go.set()
    assert (await first).idempotency is Idempotency.NOT_KEPT
    assert (await survivor.layer.complete(named())).idempotency is Idempotency.REPLAYED
    assert (replica.called, survivor.called) == (1, 1)


async def test_an_error_that_cost_nothing_is_not_kept_and_leaves_the_id_free_at_once() -> None:
    replica = Replica(FakeUpstream(error=UpstreamRejected("big-1", "no")))
    for calls in (1, 2):
        with pytest.raises(UpstreamRejected):
            await replica.layer.complete(named())
        assert replica.called == calls
    replica.bench.upstream.error = None
    assert (await replica.layer.complete(named())).idempotency is Idempotency.KEPT


async def test_an_error_that_cost_something_is_repeated_with_its_status_and_no_retry() -> None:
    replica = Replica(FakeUpstream(error=UpstreamTimeout("big-1", "no answer in 60 s", may_be_billed=True)))
    with pytest.raises(UpstreamTimeout):
        await replica.layer.complete(named())
    for _ in range(2):
        with pytest.raises(FirstFailed, match=r"no answer in 60 s \(repeated: .*new request_id") as caught:
            await replica.layer.complete(named())
        assert (caught.value.status, caught.value.reason) == ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT")
        assert caught.value.retry_after is None
    assert replica.called == 1
    with pytest.raises(IdempotencyConflict):
        await replica.layer.complete(named(alpha=0.1))


async def test_a_stream_that_broke_after_it_cost_something_is_repeated_as_its_error() -> None:
    broken = UpstreamUnavailable("big-1", "the stream ended early", may_be_billed=True)
    replica = Replica(FakeUpstream(error=broken, error_after=1))
    with pytest.raises(UpstreamUnavailable) as caught:
        await replica.stream(named())
    assert caught.value.retry_after is None, "a retry under the same id would only repeat it"
    with pytest.raises(FirstFailed, match="ended early"):
        await replica.stream(named())
    assert replica.called == 1


async def test_a_caller_who_went_away_may_ask_again_and_both_runs_are_billed() -> None:
    replica = Replica()
    events = replica.layer.stream(named())
    await anext(events)
    await anext(events)
    await events.aclose()
    await replica.layer.close()
    assert (await replica.layer.complete(named())).idempotency is Idempotency.KEPT
    assert [outcome.bill is not None for outcome in replica.bench.outcomes] == [True, True]


async def test_a_result_is_kept_when_the_caller_leaves_right_after_the_end() -> None:
    replica = Replica()
    events = replica.layer.stream(named())
    async for event in events:
        if isinstance(event, Finished):
            break
    await events.aclose()
    await replica.layer.close()
    assert (await replica.layer.complete(named())).idempotency is Idempotency.REPLAYED
    assert replica.events == ["kept", "replayed"]


async def test_a_result_of_more_than_one_mib_is_not_kept_and_says_so() -> None:
    replica = Replica(FakeUpstream(parts=("x" * kept.MAX_BYTES,)))
    for calls in (1, 2):
        assert (await replica.layer.complete(named())).idempotency is Idempotency.TOO_LARGE
        assert replica.called == calls


class BrokenStore:
    """Takes claims, and then fails."""

    broken = False

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        raise LedgerUnavailable("down")

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        if self.broken:
            raise LedgerUnavailable("down")
        return True

    async def delete_document(self, tenant_id: str, name: str) -> bool:
        raise LedgerUnavailable("down")


async def test_without_its_store_nothing_begins_and_what_was_answered_is_given() -> None:
    replica = Replica()
    store = replica.layer._documents = BrokenStore()
    assert (await replica.layer.complete(named())).idempotency is Idempotency.NOT_KEPT
    store.broken = True
    with pytest.raises(LedgerUnavailable):
        await replica.layer.complete(named())
    assert replica.called == 1


@pytest.mark.parametrize("policy", [OnLedgerFailure.WEAK, OnLedgerFailure.SERVE])
async def test_a_tenant_that_would_rather_have_answers_than_none_gets_them_without_its_store(
    policy: OnLedgerFailure,
) -> None:
    replica = Replica(on_ledger_failure=policy)
    store = replica.layer._documents = BrokenStore()
    store.broken = True
    assert (await replica.layer.complete(named())).idempotency is Idempotency.NOT_KEPT
    finished = (await replica.stream(named()))[-1]
    assert isinstance(finished, Finished)
    assert finished.idempotency is Idempotency.NOT_KEPT


async def test_a_document_that_cannot_be_read_counts_as_none() -> None:
    replica = Replica()
    for body in (b"nonsense", b"{}", b'{"hash": "x", "result": {"choice": 7}}'):
        name = result_document("r")
        known = await replica.store.get_document("t", name)
        await replica.store.put_document("t", name, body, expected=known.version if known else 0, lifetime=60)
        assert (await replica.layer.complete(named())).idempotency is Idempotency.KEPT
    assert replica.called == 3


async def test_a_refused_request_leaves_its_id_free() -> None:
    replica = Replica()
    unusable = dataclasses.replace(request().chat, extra_body={"best_of": 2})
    with pytest.raises(InvalidRequest):
        await replica.layer.complete(named(chat=unusable))
    assert (await replica.layer.complete(named())).idempotency is Idempotency.KEPT


def _logprobs(token: str) -> Logprobs:
    top = TopLogprob(token, -0.5, None)
    return Logprobs(content=(TokenLogprob(token, float("-inf"), b"\xff\x00", (top,)),))


async def test_every_part_of_an_answer_survives_being_kept() -> None:
    replica = Replica()
    answer = await replica.layer.complete(request())
    choices = (
        Choice(
            index=0,
            content="é𝄞",
            refusal="no",
            tool_calls=(ToolCall("call_1", "look_up", '{"a": 1.0}'), ToolCall("call_2", "f", "")),
            finish_reason=FinishReason.TOOL_CALLS,
            logprobs=_logprobs("a"),
            extra_json='{"stop_reason":7,"message":{"reasoning_content":"é","annotations":[1.0]}}',
        ),
        Choice(index=1, content="", finish_reason=FinishReason.UNKNOWN, upstream_finish_reason="eos"),
    )
    origin = Origin(
        completion_id="c", model="m", system_fingerprint="f", created=9, extra_json='{"service_tier":"flex"}'
    )
    full = dataclasses.replace(answer, completion=Completion(choices=choices, usage=USAGE, origin=origin))
    again = kept.read(kept.write(Result.of(full)))
    assert again.completion == full.completion
    assert again.bill == full.bill
    assert again.choice is not None
    assert again.choice.prediction is not None
    assert again.choice.decision == full.choice.decision
    assert not again.choice.prediction.quantiles
    # As a stream, and put together again, it is the same once more.
    assembly = Assembly()
    events = list(again.events())
    for event in events[1:-1]:
        assert isinstance(event, Delta)
        assembly.add(event)
    last = events[-1]
    assert isinstance(last, Finished)
    assert assembly.completion(last.end) == full.completion
    assert len(events) == 3  # the second choice is empty, and a delta never is


async def test_pieces_of_tool_calls_and_of_several_choices_are_put_together() -> None:
    async def pieces() -> AsyncGenerator[Delta, None]:
        yield Delta(tool_calls=(ToolCallDelta(1, "b", "g", ""),))
        yield Delta(
            index=1, content="two", logprobs=_logprobs("two"), extra_json='{"delta":{"reasoning":"a","ids":[1]}}'
        )
        yield Delta(tool_calls=(ToolCallDelta(0, "a", "f", '{"x"'), ToolCallDelta(1, "", "", "{}")))
        yield Delta(tool_calls=(ToolCallDelta(0, "", "", ": 1}"),))
        yield Delta(index=1, content=" parts", logprobs=_logprobs(" parts"))
        yield Delta(index=1, extra_json='{"delta":{"reasoning":"b","ids":[2]},"stop_reason":7}')

    assembly = Assembly()
    async for piece in pieces():
        assembly.add(piece)
    end = End(finish_reasons=(FinishReason.TOOL_CALLS, FinishReason.STOP), usage=None)
    first, second = assembly.completion(end).choices
    assert first.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    assert (second.content, second.finish_reason) == ("two parts", FinishReason.STOP)
    assert second.extra_json == '{"message":{"reasoning":"ab","ids":[1,2]},"stop_reason":7}'
    assert second.logprobs is not None
    assert [token.token for token in second.logprobs.content] == ["two", " parts"]


def test_the_order_of_mappings_makes_no_other_body_and_one_is_not_one_point_zero() -> None:
    def hashed(**changes: object) -> str:
        return kept.body_hash(named(chat=dataclasses.replace(request().chat, **changes)))  # type: ignore[arg-type]

    assert hashed(extra_body={"a": 1, "b": 2}) == hashed(extra_body={"b": 2, "a": 1})
    assert hashed(extra_body={"a": 1}) != hashed(extra_body={"a": 1.0})
    assert hashed(temperature=0.0) != hashed(temperature=None)
    assert kept.body_hash(named(timeout=1.0)) == kept.body_hash(named(timeout=2.0))
    assert kept.body_hash(named(conversation_id="a")) != kept.body_hash(named(conversation_id="b"))
