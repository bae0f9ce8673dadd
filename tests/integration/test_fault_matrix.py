"""Every fault of an upstream, unary and streamed, with and without a deployment to fall back to.

All cases run at once against one dispatcher; then each is held to what its caller got, what it cost and what was
counted. Costs by hand, at $10 and $30 per million tokens: the server reports 20 input and 8 output tokens, 440,000
nano-USD; an estimate is one token per 4 bytes, so 40,000 for the prompt of 14 bytes, 60,000 for "One two" and 150,000
for the whole answer.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dispatcher_service.ledger.contract import Balances
from dispatcher_service.ledger.opening import open_ledger
from pointsman.dispatcher.v1 import decision_pb2, dispatcher_pb2
from pointsman.runtime.status import RichStatus, decode
from tests import faults
from tests.dispatchers import Caller
from tests.faulty_server import ANSWER, FAULTS, HUGE_BYTES
from tests.processes import ServiceProcess

REPORTED, PROMPT, TWO_WORDS, ALL_WORDS = 440_000, 40_000, 60_000, 150_000
UNAVAILABLE, DEADLINE, INVALID = "UNAVAILABLE", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"


@dataclass(frozen=True, slots=True)
class Expected:
    """What becomes of a request.

    Attributes:
        status: without a fallback; `OK` if the fault harms nothing.
        reason: the error's.
        cost: of one call that met the fault, in nano-USD.
        result: what the attempt is counted as.
        calls: how often the deployment is called without a fallback.
        fails_over: a second deployment answers in its place.
        begun: the caller had a piece of the answer.
    """

    status: str
    reason: str = ""
    cost: int = 0
    result: str = "unavailable"
    calls: int = 2
    fails_over: bool = True
    begun: bool = False


_BROKEN = Expected(UNAVAILABLE, "UPSTREAM_UNAVAILABLE", PROMPT)
_REFUSED = Expected(UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
_SLOW = Expected(DEADLINE, "UPSTREAM_TIMEOUT", PROMPT, "timeout")
_MIDWAY = Expected(UNAVAILABLE, "UPSTREAM_UNAVAILABLE", PROMPT + TWO_WORDS, calls=1, fails_over=False, begun=True)
_FINE = Expected("OK", "", REPORTED, "ok", calls=1, fails_over=False, begun=True)
_BOTH = {
    "rate_limited": Expected(UNAVAILABLE, "UPSTREAM_RATE_LIMITED", result="rate_limited"),
    "server_error": _REFUSED,
    "bad_request": Expected(INVALID, "UPSTREAM_REJECTED", result="rejected", calls=1, fails_over=False),
    "unauthorized": Expected(UNAVAILABLE, "UPSTREAM_UNAVAILABLE", calls=1),
    "slow_first_token": _SLOW,
    "reset": _BROKEN,
    "malformed": _BROKEN,
    "no_usage": Expected("OK", "", PROMPT + ALL_WORDS, "ok", calls=1, fails_over=False, begun=True),
    "wrong_content_type": _BROKEN,
    "huge_chunk": _FINE,
}
UNARY = _BOTH | {
    "stall": _SLOW,
    "reset_midway": _BROKEN,
    "malformed_midway": _BROKEN,
    "early_close": _BROKEN,
    "error_event": _FINE,  # only streams have events
}
STREAMED = _BOTH | {
    "stall": Expected(DEADLINE, "UPSTREAM_TIMEOUT", PROMPT + TWO_WORDS, "timeout", 1, fails_over=False, begun=True),
    "reset_midway": _MIDWAY,
    "malformed_midway": _MIDWAY,
    "early_close": _MIDWAY,
    "error_event": _MIDWAY,
}
CASES = [
    pytest.param(tenant, method, fault, id=f"{fault}-{method}-{tenant}")
    for fault in FAULTS
    for method in ("unary", "streamed")
    for tenant in ("alone", "backed")
]


@dataclass
class Result:
    """What a caller got."""

    text: str = ""
    decision: decision_pb2.Decision | None = None
    failed: dispatcher_pb2.StreamFailed | None = None
    status: RichStatus | None = None


@dataclass
class Run:
    """The whole matrix, after the fact."""

    results: dict[tuple[str, str, str], Result]
    records: dict[str, Any]
    calls: dict[str, list[dict[str, Any]]]
    attempts: dict[tuple[str, ...], float]
    in_flight: dict[tuple[str, ...], float]
    costs: dict[tuple[str, ...], float]
    open_calls: int
    balances: dict[str, Balances]


def expectation(tenant: str, method: str, fault: str) -> Expected:
    """What is expected of a case: with a fallback, what fails over ends well."""
    return (UNARY if method == "unary" else STREAMED)[fault]


async def _unary(caller: Caller, fault: str, user: str) -> Result:
    request = dispatcher_pb2.CompleteRequest(**faults.asking(fault, user))
    try:
        answer = await caller.stub.Complete(request, metadata=caller.metadata, timeout=90)
    except grpc.aio.AioRpcError as error:
        return Result(status=decode(error))
    return Result(text=answer.choices[0].content, decision=answer.decision)


async def _streamed(caller: Caller, fault: str, user: str) -> Result:
    result = Result()
    call = caller.stub.StreamComplete(faults.stream_request(fault, user), metadata=caller.metadata, timeout=90)
    try:
        async for event in call:
            assert result.failed is None, "nothing follows `failed`"
            result.text += event.delta.content
            if event.HasField("finished"):
                result.decision = event.finished.decision
            if event.HasField("failed"):
                result.failed = event.failed
    except grpc.aio.AioRpcError as error:
        result.status = decode(error)
    return result


async def _run(directory: Path, upstream: str) -> Run:
    cases = [tuple(map(str, case.values)) for case in CASES]
    with faults.start_dispatcher(directory, upstream) as dispatcher:
        address = dispatcher.grpc
        async with Caller(address, "alone") as alone, Caller(address, "backed") as backed:
            callers = {"alone": alone, "backed": backed}
            results = await asyncio.gather(
                *(
                    (_unary if method == "unary" else _streamed)(callers[tenant], fault, f"{fault}-{method}-{tenant}")
                    for tenant, method, fault in cases
                )
            )
        await _idle(dispatcher)
        run = Run(
            results={(case[0], case[1], case[2]): result for case, result in zip(cases, results, strict=True)},
            records={},
            calls={user: faults.upstream_calls(upstream, user)["calls"] for user in map("-".join, map(_user, cases))},
            attempts=faults.samples(dispatcher, "attempts_total"),
            in_flight=faults.samples(dispatcher, "upstream_in_flight"),
            costs=faults.samples(dispatcher, "cost_usd_total"),
            open_calls=faults.upstream_calls(upstream)["open"],
            balances={},
        )
        assert dispatcher.stop() == 0
        assert not [line for line in dispatcher.stderr if "internal error" in line or "Traceback" in line]
    run.records |= faults.records(directory)  # Written behind the answers: all of them, now that it has stopped.
    ledger = open_ledger(faults.ledger_url(directory))
    run.balances |= {tenant: await ledger.balances(tenant) for tenant in ("alone", "backed")}
    await ledger.close()
    return run


async def _idle(dispatcher: ServiceProcess) -> None:
    """Wait until no upstream call is under way: a caller may have its error a moment before its record is written."""
    for _ in range(500):
        if not any((await asyncio.to_thread(faults.samples, dispatcher, "upstream_in_flight")).values()):
            return
        await asyncio.sleep(0.02)


def _user(case: tuple[str, ...]) -> tuple[str, ...]:
    tenant, method, fault = case
    return fault, method, tenant


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with faults.faulty_upstream() as upstream:
        yield asyncio.run(_run(tmp_path_factory.mktemp("matrix"), upstream))


@pytest.mark.parametrize(("tenant", "method", "fault"), CASES)
def test_each_fault_has_its_reply_its_cost_and_its_record(run: Run, tenant: str, method: str, fault: str) -> None:
    expected = expectation(tenant, method, fault)
    result = run.results[tenant, method, fault]
    record = run.records[f"{fault}-{method}-{tenant}"]
    calls = Counter(call["path"].split("/")[1] for call in run.calls[f"{fault}-{method}-{tenant}"])
    cost = int(record["decision"].get("cost_nano_usd", 0))

    if expected.status == "OK" or (tenant == "backed" and expected.fails_over):
        assert result.status is None
        assert result.text == ("x" * HUGE_BYTES if fault == "huge_chunk" else ANSWER)
        assert result.decision is not None
        assert result.decision.cost_nano_usd == cost
        assert record["status"] == "OK"
        if expected.status == "OK":
            assert (calls, cost, result.decision.attempts) == (Counter(asked=1), expected.cost, 1)
        else:
            assert (calls, result.decision.attempts) == (Counter(asked=1, ok=1), 2)
            assert cost == expected.cost + REPORTED, "the call that failed is paid for too"
        return

    assert result.status is not None
    assert (result.status.code.name, result.status.reason) == (expected.status, expected.reason)
    assert (record["status"], record["error_reason"]) == (expected.status, expected.reason)
    assert calls == Counter(asked=expected.calls)
    assert cost == expected.calls * expected.cost
    assert result.status.metadata.get("cost_nano_usd", "0") == str(cost), "the error says what was spent"
    assert (result.text == "One two") == (expected.begun and method == "streamed")
    assert (result.failed is not None) == (expected.begun and method == "streamed")
    if result.failed is not None:
        assert (result.failed.reason, result.failed.decision.cost_nano_usd) == (expected.reason, cost)
        assert result.failed.usage.output_tokens == 2
    if expected.status == UNAVAILABLE:
        # These requests have an id: one that cost something is kept under it, and a retry would only get it again.
        assert (result.status.retry_after is None) == (cost > 0)


def test_a_rate_limits_wait_is_told_to_the_caller_and_kept_before_the_retry(run: Run) -> None:
    result = run.results["alone", "unary", "rate_limited"]
    assert result.status is not None
    assert result.status.retry_after == 1.0
    first, second = run.calls["rate_limited-unary-alone"]
    assert second["started_at"] - first["started_at"] >= 1.0


def test_the_attempts_are_counted_by_how_they_ended(run: Run) -> None:
    expected = Counter[tuple[str, ...]]()
    for tenant, method, fault in (tuple(map(str, case.values)) for case in CASES):
        case = expectation(tenant, method, fault)
        falls_back = tenant == "backed" and case.fails_over
        expected[f"{tenant}-1", case.result] += 1 if falls_back else case.calls
        if falls_back:
            expected["backed-2", "ok"] += 1
    assert run.attempts == expected


def test_the_ledger_the_metrics_and_the_records_agree_and_nothing_is_left_under_way(run: Run) -> None:
    for tenant in ("alone", "backed"):
        total = sum(
            int(record["decision"].get("cost_nano_usd", 0))
            for record in run.records.values()
            if record["tenant_id"] == tenant
        )
        assert run.costs[tenant, tenant] == pytest.approx(total / 1e9, abs=1e-12)
        *_, month = run.balances[tenant]
        assert (month.spent, month.reserved) == (total, 0)
    assert set(run.in_flight.values()) == {0.0}
    assert run.open_calls == 0
