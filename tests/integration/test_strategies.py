"""Cascades and ensembles over real processes: a scorer that judges answers, a dispatcher, an HTTP upstream, SQLite."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pointsman.client import (
    AnswerScore,
    DispatcherClient,
    Message,
    Reason,
    Role,
    ScorerClient,
    Stage,
    StageResult,
    Strategy,
    SyncDispatcherClient,
)
from pointsman.dispatcher.v1 import dispatcher_pb2
from tests.answer_artifacts import write_answer, write_ranker
from tests.artifacts import write
from tests.dispatchers import Caller, start_dispatcher
from tests.faults import samples
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ServiceProcess
from tests.processes import scorer as scorer_process

MODELS = ("other-weak", "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
"""Cheapest first."""
PROMPT = "what is the sum of two odd numbers?"

_TENANT = """
[tenants.{name}]
models = ["gpt-4-1106-preview", "Mixtral-8x7B-Instruct-v0.1", "other-weak"]
strategy = "{strategy}"
{more}
"""


def answer_of(model: str) -> str:
    """What the upstream's models say to PROMPT."""
    return f"{model} says: {PROMPT}"


@dataclass
class House:
    """What runs, and what the scorer says of the first model's answer."""

    directory: Path
    scorer: ServiceProcess
    upstream: OpenAIServer
    dispatcher: ServiceProcess
    score: AnswerScore

    def spent(self, tenant: str) -> int:
        """Nano-USD that the ledger has charged the tenant, over all its charges."""
        with sqlite3.connect(self.directory / "ledger.sqlite") as connection:
            [[total]] = connection.execute("SELECT COALESCE(SUM(cost), 0) FROM usage WHERE tenant = ?", (tenant,))
        return int(total)

    def records(self, tenant: str) -> list[dict[str, Any]]:
        """Lines of the decision log."""
        whole, _, _ = (self.directory / "decisions.jsonl").read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line.get("tenant_id") == tenant]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("strategies")
    write(directory / "predictor")
    write_answer(directory / "judge")
    write_ranker(directory / "ranker")
    artifacts = ",".join(f"{name}={directory / name}" for name in ("predictor", "judge", "ranker"))
    with scorer_process({"SCORER_ARTIFACTS": artifacts}) as scorer, openai_server_thread() as upstream:
        score = asyncio.run(_score(scorer))
        more = {
            "accepts": f"[tenants.accepts.cascade]\nthresholds = [{score.acceptance_probability!r}, 0.5]",
            "rejects": "[tenants.rejects.cascade]\nthresholds = [1.0, 1.0]",
            "leaves": "[tenants.leaves.cascade]\nthresholds = [1.0, 1.0]",
            "poor": "usd_per_hour = 0.0005\n[tenants.poor.cascade]\nthresholds = [1.0, 1.0]",
            "late": "[tenants.late.ensemble]\ndeadline = 1.0",
        }
        tenants = "".join(
            _TENANT.format(
                name=name,
                strategy="ensemble" if name in ("ranks", "late") else "cascade",
                more=more.get(name, ""),
            )
            for name in (*more, "ranks")
        )
        with start_dispatcher(
            directory,
            scorer=scorer.grpc,
            upstream=upstream.base_url,
            models="max_output_tokens = 100",
            scorer_more="answer_timeout = 5.0",
            more=tenants,
        ) as dispatcher:
            yield House(directory, scorer, upstream, dispatcher.wait_until_serving(), score)


async def _until(true: Callable[[], bool]) -> None:
    for _ in range(1500):
        if true():
            return
        await asyncio.sleep(0.02)
    pytest.fail("not within 30 s")


async def _score(scorer: ServiceProcess) -> AnswerScore:
    async with ScorerClient(scorer.grpc) as client:
        return await client.score_answer(PROMPT, answer_of(MODELS[0]))


async def test_an_answer_that_reaches_its_threshold_is_given_and_one_model_is_called(house: House) -> None:
    async with DispatcherClient(house.dispatcher.grpc, tenant="accepts") as client:
        answer = await client.complete(PROMPT)
    decision = answer.decision
    assert answer.content == answer_of(MODELS[0])
    assert (decision.model, decision.reason, decision.strategy) == (MODELS[0], Reason.ACCEPTED, Strategy.CASCADE)
    [stage] = decision.stages
    assert stage.acceptance_probability == stage.threshold == house.score.acceptance_probability, "a tie accepts"
    assert (decision.answer_scorer, decision.answer_scorer_version) == ("judge", house.score.scorer_version)
    assert decision.cost_nano_usd == stage.cost_nano_usd == house.spent("accepts")


async def test_a_cascade_to_the_end_costs_every_call_and_the_ledger_equals_their_sum(house: House) -> None:
    async with DispatcherClient(house.dispatcher.grpc, tenant="rejects") as client:
        answer = await client.complete(PROMPT, request_id="whole")
        assert [(stage.model, stage.result, stage.given) for stage in answer.decision.stages] == [
            (MODELS[0], StageResult.REJECTED, False),
            (MODELS[1], StageResult.REJECTED, False),
            (MODELS[2], StageResult.UNCHECKED, True),
        ]
        costs = [stage.cost_nano_usd for stage in answer.decision.stages]
        assert all(costs)
        assert answer.decision.cost_nano_usd == sum(costs) == house.spent("rejects")
        assert answer.decision.all_strong_cost_nano_usd == costs[2]
        # A retry gets the same answer and the same stages, and costs nothing.
        again = await client.complete(PROMPT, request_id="whole")
        assert again.replayed
        assert (again.content, again.decision) == (answer.content, answer.decision)
        assert house.spent("rejects") == sum(costs)
        explained = await client.get_decision("whole")
    assert explained.decision == answer.decision
    assert (
        f"Asked in turn: {MODELS[0]} (not accepted, acceptance probability {house.score.acceptance_probability:.4f}"
        in explained.text
    )
    assert [attempt.model for attempt in explained.record.attempts] == list(MODELS)


async def test_a_stream_waits_unless_it_accepts_replacement_and_then_is_replaced(house: House) -> None:
    async with Caller(house.dispatcher.grpc, "rejects") as caller:
        waited = [event.WhichOneof("event") for event in await caller.stream(PROMPT)]
        live = [event.WhichOneof("event") for event in await caller.stream(PROMPT, accept_replacement=True)]
    assert "replaced" not in waited
    assert live.count("replaced") == 2
    assert live.count("delta") == 3 * waited.count("delta")
    async with DispatcherClient(house.dispatcher.grpc, tenant="rejects") as client:
        async with client.stream_complete(PROMPT, accept_replacement=True) as stream:
            assert stream.decision.model == MODELS[0]
            shown = ["".join([stream.text async for _ in stream][-1:])]
        assert shown == [answer_of(MODELS[2])]
        assert (stream.replacements, stream.decision.reason) == (2, Reason.LAST_STAGE)
    with (
        SyncDispatcherClient(house.dispatcher.grpc, tenant="rejects") as sync,
        sync.stream_complete(PROMPT, accept_replacement=True) as synced,
    ):
        assert [synced.text for _ in synced][-1] == answer_of(MODELS[2])
        assert synced.replacements == 2


async def test_a_replaced_stream_is_kept_as_the_answer_that_replaced_it(house: House) -> None:
    async with Caller(house.dispatcher.grpc, "rejects") as caller:
        await caller.stream(PROMPT, accept_replacement=True, request_id="replaced")
        again = await caller.complete(PROMPT, request_id="replaced")
    assert again.idempotency == dispatcher_pb2.IDEMPOTENCY_REPLAYED
    assert again.choices[0].content == answer_of(MODELS[2])


async def test_without_money_for_the_next_stage_the_answer_at_hand_is_given(house: House) -> None:
    async with DispatcherClient(house.dispatcher.grpc, tenant="poor") as client:
        decision = (await client.complete(PROMPT)).decision
    # One call of the second model may cost some 400 tokens at 0.6, of the strong one 400 at 10 and 100 at 30 USD per
    # million.
    results = [stage.result for stage in decision.stages]
    assert results == [StageResult.REJECTED, StageResult.REJECTED, StageResult.NO_MONEY]
    assert decision.reason is Reason.ANSWER_AT_HAND
    given = next(stage for stage in decision.stages if stage.given)
    assert given.acceptance_probability == max(stage.acceptance_probability or 0 for stage in decision.stages)
    assert decision.cost_nano_usd == house.spent("poor")


async def test_a_caller_who_goes_away_in_the_second_stage_is_billed_for_both(house: House) -> None:
    house.upstream.hanging = frozenset({MODELS[1]})
    before = len(house.upstream.bodies)
    try:
        async with Caller(house.dispatcher.grpc, "leaves") as caller:
            call = asyncio.create_task(caller.complete(PROMPT))
            await _until(lambda: len(house.upstream.bodies) == before + 2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await _until(lambda: bool(house.records("leaves")))
    finally:
        house.upstream.hanging = frozenset()
    [record] = house.records("leaves")
    assert record["status"] == "CANCELLED"
    assert [stage["result"] for stage in record["decision"]["stages"]] == [
        "STAGE_RESULT_REJECTED",
        "STAGE_RESULT_CANCELLED",
    ]
    cost = int(record["decision"]["cost_nano_usd"])
    assert cost == sum(int(attempt["cost_nano_usd"]) for attempt in record["attempts"]) == house.spent("leaves")


async def test_an_ensemble_gives_the_answer_that_the_ranker_puts_first(house: House) -> None:
    async with ScorerClient(house.scorer.grpc) as scorer:
        ranking = await scorer.rank_answers(PROMPT, [answer_of(model) for model in MODELS])
    async with DispatcherClient(house.dispatcher.grpc, tenant="ranks") as client:
        answer = await client.complete(PROMPT)
    decision = answer.decision
    assert answer.content == answer_of(MODELS[ranking.best_index])
    assert (decision.reason, decision.strategy) == (Reason.BEST_RANKED, Strategy.ENSEMBLE)
    assert [stage.win_rate for stage in decision.stages] == list(ranking.mean_win_probabilities)
    assert decision.answer_scorer == "ranker"
    assert decision.cost_nano_usd == _sum(decision.stages) == house.spent("ranks")


async def test_a_model_that_is_late_is_cancelled_and_billed_for_what_it_wrote(house: House) -> None:
    house.upstream.hanging = frozenset({MODELS[2]})
    try:
        async with DispatcherClient(house.dispatcher.grpc, tenant="late") as client:
            decision = (await client.complete(PROMPT)).decision
    finally:
        house.upstream.hanging = frozenset()
    late = decision.stages[2]
    assert (late.model, late.result) == (MODELS[2], StageResult.CANCELLED)
    # Text is estimated at 4 bytes per token.
    tokens = -(-len(PROMPT) // 4), -(-len(answer_of(MODELS[2])) // 4)
    assert late.cost_nano_usd == tokens[0] * 10_000 + tokens[1] * 30_000
    assert decision.cost_nano_usd == _sum(decision.stages) == house.spent("late")


async def test_stages_are_counted(house: House) -> None:
    async with DispatcherClient(house.dispatcher.grpc, tenant="rejects") as client:
        await client.complete(PROMPT)
    found = samples(house.dispatcher, "stages_total")
    assert found["rejected", "cascade"] >= 2  # result, strategy


async def test_without_a_judge_the_cascade_goes_on(house: House, tmp_path: Path) -> None:
    with start_dispatcher(
        tmp_path,
        scorer="127.0.0.1:1",
        upstream=house.upstream.base_url,
        models="max_output_tokens = 100",
        more=_TENANT.format(name="blind", strategy="cascade", more="[tenants.blind.cascade]\nthresholds = [0.0, 0.0]"),
    ) as dispatcher:
        dispatcher.wait_until_serving()
        async with DispatcherClient(dispatcher.grpc, tenant="blind") as client:
            decision = (await client.complete([Message(Role.USER, PROMPT)])).decision
    assert [stage.result for stage in decision.stages] == [
        StageResult.NO_SCORE,
        StageResult.NO_SCORE,
        StageResult.UNCHECKED,
    ]


def _sum(stages: tuple[Stage, ...]) -> int:
    return sum(stage.cost_nano_usd for stage in stages)
