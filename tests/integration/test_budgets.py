"""Limits and pacing in a real dispatcher: what a caller, an operator and the next process see."""

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pointsman.dispatcher.v1 import decision_pb2, dispatcher_pb2
from pointsman.runtime.status import decode
from tests.dispatchers import STRONG, WEAK, Caller, chat, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import SCORER_PORTS, ServiceProcess

# The server reports 20 prompt tokens, 5 of them cached, and 8 completion tokens: at $10 in and $30 out per million
# tokens a strong call costs $0.00044. Its worst case is below 300 prompt tokens and 8 of the answer: $0.00324.
_LIMITED = """
[tenants.limited]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
alpha = 0
usd_per_day = 0.0045
usd_per_month = 100

[tenants.poor]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
alpha = 0
usd_per_hour = 0.000001

[tenants.offline]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
alpha = 0
on_ledger_failure = "weak"
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


def start(folder: Path, upstream: OpenAIServer, scorer: ServiceProcess, **env: str) -> ServiceProcess:
    return start_dispatcher(
        folder,
        scorer=scorer.grpc,
        upstream=upstream.base_url,
        models="max_output_tokens = 8",
        more=_LIMITED,
        environment=env,
    )


@pytest.fixture(scope="module")
def scorer() -> Iterator[ServiceProcess]:
    with ServiceProcess("scorer_service", env=SCORER_PORTS) as process:
        yield process.wait_until_serving()


def metric(process: ServiceProcess, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"pointsman_dispatcher_{name}" and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


async def test_a_limit_degrades_when_it_runs_low_and_outlives_the_process(
    tmp_path: Path, upstream: OpenAIServer, scorer: ServiceProcess
) -> None:
    spent = 0
    with start(tmp_path, upstream, scorer) as process:
        process.wait_until_serving()
        async with Caller(process.grpc, "limited") as caller:
            decisions = [(await caller.complete("hi")).decision for _ in range(8)]
            spent = sum(decision.cost_nano_usd for decision in decisions)
        tiers = [decision.model for decision in decisions]
        assert tiers[:2] == [STRONG, STRONG]
        assert tiers[-1] == WEAK
        assert decisions[-1].reason == decision_pb2.REASON_BUDGET_DEGRADED
        assert all(decision.price_version for decision in decisions)
        assert metric(process, "budget_spent_usd", tenant="limited", period="day") == pytest.approx(spent / 1e9)
        assert metric(process, "budget_limit_usd", tenant="limited", period="month") == 100
        assert metric(process, "budget_thresholds_total", tenant="limited", period="day", percent="100") == 1
    with start(tmp_path, upstream, scorer) as process:
        process.wait_until_serving()
        async with Caller(process.grpc, "limited") as caller:
            assert (await caller.complete("hi")).decision.model == WEAK
        assert metric(process, "budget_spent_usd", tenant="limited", period="day") > spent / 1e9


async def test_no_room_is_an_error_that_says_which_limit_what_is_left_and_when_it_ends(
    tmp_path: Path, upstream: OpenAIServer, scorer: ServiceProcess
) -> None:
    with start(tmp_path, upstream, scorer) as process:
        process.wait_until_serving()
        before = len(upstream.bodies)
        async with Caller(process.grpc, "poor") as caller:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.complete("hi")
    status = decode(caught.value)
    assert status is not None
    assert (status.code, status.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert status.metadata["period"] == "hour"
    assert (status.metadata["limit_usd"], status.metadata["left_usd"]) == ("0.000001", "0.000001")
    assert status.metadata["window_end"].endswith(":00:00Z")
    assert status.quota is not None
    assert status.quota[0] == "usd_per_hour"
    assert status.retry_after is not None
    assert 0 < status.retry_after <= 3600
    assert len(upstream.bodies) == before


async def test_without_a_ledger_nothing_is_granted_but_by_the_tenants_word(
    tmp_path: Path, upstream: OpenAIServer, scorer: ServiceProcess
) -> None:
    with start(tmp_path, upstream, scorer, DISPATCHER_LEDGER="redis://127.0.0.1:1/0") as process:
        process.wait_until_serving()
        async with Caller(process.grpc, "limited") as caller:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.complete("hi")
        status = decode(caught.value)
        assert status is not None
        assert (status.code, status.reason) == (grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")
        async with Caller(process.grpc, "offline") as caller:
            decision = (await caller.complete("hi")).decision
        assert (decision.model, decision.reason) == (WEAK, decision_pb2.REASON_LEDGER_UNAVAILABLE)
        assert metric(process, "ledger_errors_total", step="reserve") >= 2
        process.kill()  # it would wait some seconds for the ledger to come back


async def test_an_answer_cut_off_by_sigterm_is_in_the_book_before_the_process_ends(
    tmp_path: Path, upstream: OpenAIServer, scorer: ServiceProcess
) -> None:
    with start(tmp_path, upstream, scorer, DISPATCHER_DRAIN="0.2") as process:
        process.wait_until_serving()
        async with Caller(process.grpc, "limited") as caller:
            request = dispatcher_pb2.StreamCompleteRequest(chat=chat("hang"))
            call = caller.stub.StreamComplete(request, metadata=caller.metadata, timeout=30)
            await call.read()
            process.terminate()
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await call.read():
                    pass
            assert await call.code() is not grpc.StatusCode.OK
        process.wait()
    with start(tmp_path, upstream, scorer) as process:
        process.wait_until_serving()
        async with Caller(process.grpc, "limited") as caller:
            await caller.route("hi")
        assert metric(process, "budget_spent_usd", tenant="limited", period="day") > 0
        assert metric(process, "budget_reserved_usd", tenant="limited", period="day") == 0
