"""From outcome to line, record, text and shadow: what is kept, what is lost and counted, and what never waits."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dispatcher_service.catalogue import FixedAlpha, Shadow, StrongCallShare
from dispatcher_service.chat import Chat, Message, Role, Text
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.outcome import Outcome
from dispatcher_service.records.recorder import Recorder
from dispatcher_service.records.redaction import Redact, mask
from dispatcher_service.records.shadows import ShadowChoice
from dispatcher_service.records.store import RecordStore
from pointsman.dispatcher.v1 import decision_pb2
from tests.fakes import FakeScorer
from tests.unit.test_dispatch import Bench, request

MAIL = "Write to ada@example.com"


class ListLines:
    """Keeps lines; raises `error` instead, once it is set, and waits for `gate` first."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def write(self, lines: Sequence[str]) -> None:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.lines += lines

    def tend(self) -> None:
        pass

    def close(self) -> None:
        pass


class Desk:
    """A recorder with everything around it."""

    def __init__(self, *, max_queue: int = 100, win_probability: float = 0.4, **changes: object) -> None:
        self.bench = Bench(FakeScorer(win_probability), None, None, **changes)
        self.shadow_scorer = FakeScorer(0.8)
        self.lines = ListLines()
        self.ledger = MemoryLedger(lambda: 1e9)
        self.store = RecordStore(self.ledger, retention=3600)
        self.lost: dict[str, int] = {}
        self.shadows: list[ShadowChoice] = []
        self.redact: Redact = mask
        self.recorder = Recorder(
            lines=self.lines,
            store=self.store,
            catalogue=lambda: self.bench.catalogue,
            scorer=self.shadow_scorer,
            redact=self._redact,
            lost=self._lose,
            shadowed=lambda _, shadow: self.shadows.append(shadow),
            trace_id=lambda: "ab" * 16,
            max_queue=max_queue,
        )

    async def outcome(self, text: str = MAIL, **changes: object) -> Outcome:
        await self.bench.dispatcher.complete(request(chat=request_chat(text), **changes))
        return self.bench.outcomes[-1]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Runs it; at the end everything is written."""
        running = asyncio.create_task(self.recorder.run())
        try:
            yield
            await self.kept()
        finally:
            self.recorder.stop()
            await asyncio.wait_for(running, 10)
            await self.recorder.close()

    async def kept(self) -> None:
        """Wait until nothing waits."""
        for _ in range(1000):
            if not self.recorder.waiting:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("records wait")

    def _redact(self, text: str) -> str:
        return self.redact(text)

    def _lose(self, where: str, count: int) -> None:
        self.lost[where] = self.lost.get(where, 0) + count


def request_chat(text: str) -> Chat:
    return Chat(messages=(Message(Role.USER, (Text(text),)),), text_bytes=len(text))


async def test_a_request_becomes_a_line_and_a_record_without_text() -> None:
    desk = Desk()
    outcome = await desk.outcome(request_id="r-1", conversation_id="c-1")
    async with desk.open():
        desk.recorder.record(outcome)
    (line,) = map(json.loads, desk.lines.lines)
    assert (line["kind"], line["request_id"], line["trace_id"]) == ("RECORD_KIND_DECISION", "r-1", "ab" * 16)
    assert line["conversation_id"] == "c-1"
    assert "ada" not in desk.lines.lines[0]
    record = await desk.store.get("t", "r-1")
    assert record is not None
    assert record.decision.tier == decision_pb2.TIER_WEAK
    assert not record.HasField("text")
    assert await desk.store.get("other", "r-1") is None
    assert desk.lost == {}


async def test_a_record_is_found_before_it_is_written() -> None:
    desk = Desk()
    desk.lines.gate.clear()
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        desk.recorder.record(outcome)
        assert desk.recorder.pending("t", "r-1") is not None
        assert desk.recorder.pending("other", "r-1") is None
        desk.lines.gate.set()
    assert desk.recorder.pending("t", "r-1") is None


async def test_text_is_kept_by_opt_in_and_redacted_and_only_in_the_store() -> None:
    desk = Desk(log_text=True)
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        desk.recorder.record(outcome)
    record = await desk.store.get("t", "r-1")
    assert record is not None
    assert [message.text for message in record.text.messages] == ["Write to [email]"]
    assert "Write" not in desk.lines.lines[0]


async def test_text_whose_redaction_fails_is_not_kept() -> None:
    desk = Desk(log_text=True)

    def fail(_: str) -> str:
        raise RuntimeError("no")

    desk.redact = fail
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        desk.recorder.record(outcome)
    record = await desk.store.get("t", "r-1")
    assert record is not None
    assert not record.HasField("text")
    assert desk.lost == {"text": 1}


async def test_a_full_queue_loses_and_counts_and_blocks_nobody() -> None:
    desk = Desk(max_queue=2)
    outcome = await desk.outcome()
    for _ in range(5):
        desk.recorder.record(outcome)  # nothing runs yet
    async with desk.open():
        pass
    assert len(desk.lines.lines) == 2
    assert desk.lost == {"queue": 3}


async def test_a_log_that_cannot_be_written_keeps_the_record_and_counts() -> None:
    desk = Desk()
    desk.lines.error = OSError("disk full")
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        desk.recorder.record(outcome)
    assert desk.lost == {"log": 1}
    assert await desk.store.get("t", "r-1") is not None


async def test_a_store_that_cannot_be_reached_is_asked_once_and_the_lines_go_on() -> None:
    desk = Desk()
    asked = []

    async def fail(*_: object, **__: object) -> bool:
        asked.append(1)
        raise LedgerUnavailable("down")

    desk.ledger.put_document = fail  # type: ignore[method-assign]
    outcome = await desk.outcome()
    async with desk.open():
        for _ in range(3):
            desk.recorder.record(outcome)
            await asyncio.sleep(0.02)
    assert len(desk.lines.lines) == 3
    assert desk.lost == {"lookup": 3}
    assert asked == [1]


async def test_a_shadow_dial_is_logged_beside_the_live_decision() -> None:
    desk = Desk(shadow=Shadow(dial=FixedAlpha(0.3), scorer=""))
    outcome = await desk.outcome()
    async with desk.open():
        desk.recorder.record(outcome)
    (line,) = map(json.loads, desk.lines.lines)
    assert line["decision"]["tier"] == "TIER_WEAK"
    assert line["shadows"] == [
        {
            "kind": "SHADOW_KIND_DIAL",
            "tier": "TIER_STRONG",
            "alpha": 0.3,
            "win_probability": 0.4,
            "scorer": "fake",
            "scorer_version": "v1",
            "model": "big",
        }
    ]
    assert desk.shadow_scorer.calls == []
    assert len(desk.shadows) == 1


async def test_a_shadow_scorer_is_asked_after_the_answer_and_compared_at_its_own_alpha() -> None:
    # The fake's scores are uniform, so that a share of .3 is an alpha of .7 on its scale.
    desk = Desk(shadow=Shadow(dial=StrongCallShare(0.3), scorer="candidate"))
    outcome = await desk.outcome()
    assert desk.shadow_scorer.calls == []
    async with desk.open():
        desk.recorder.record(outcome)
    (line,) = map(json.loads, desk.lines.lines)
    assert [(shadow["kind"], shadow["tier"]) for shadow in line["shadows"]] == [
        ("SHADOW_KIND_DIAL", "TIER_WEAK"),
        ("SHADOW_KIND_SCORER", "TIER_STRONG"),
    ]


async def test_a_shadow_scorer_without_a_prediction_loses_its_shadow_only() -> None:
    desk = Desk(shadow=Shadow(dial=None, scorer="candidate"))
    desk.shadow_scorer.win_probability = None
    outcome = await desk.outcome()
    async with desk.open():
        desk.recorder.record(outcome)
    (line,) = map(json.loads, desk.lines.lines)
    assert "shadows" not in line
    assert desk.lost == {"shadow": 1}


async def test_a_request_that_was_refused_before_a_decision_has_a_record_too() -> None:
    desk = Desk(allow_alpha_override=False)
    with contextlib.suppress(Exception):
        await desk.outcome(request_id="r-1", alpha=0.5)
    async with desk.open():
        desk.recorder.record(desk.bench.outcomes[-1])
    (line,) = map(json.loads, desk.lines.lines)
    assert (line["status"], line["error_reason"]) == ("PERMISSION_DENIED", "FORBIDDEN")


async def test_a_batch_that_fails_for_whatever_reason_is_counted_and_the_next_one_is_kept() -> None:
    desk = Desk()
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        desk.lines.error = ValueError("a defect of ours")  # type: ignore[assignment]
        desk.recorder.record(outcome)
        await desk.kept()
        desk.lines.error = None
        desk.recorder.record(outcome)
    assert len(desk.lines.lines) == 1
    assert desk.lost == {"queue": 1}


async def test_what_waits_at_the_end_is_written_and_what_cannot_wait_is_counted() -> None:
    desk = Desk(log_text=True)
    outcome = await desk.outcome(request_id="r-1")
    async with desk.open():
        for _ in range(50):
            desk.recorder.record(outcome)
    assert (len(desk.lines.lines), desk.lost) == (50, {})
    idle = Desk()
    idle.recorder.record(outcome)  # nobody works on it
    await idle.recorder.close()
    assert (idle.lines.lines, idle.lost) == ([], {"queue": 1})
