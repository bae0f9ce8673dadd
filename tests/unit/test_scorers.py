"""Which scorer a tenant gets, and when one is left alone."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from dispatcher_service.breaker import BreakerState
from dispatcher_service.chat import Chat, Message, Role, Text
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorer_targets import Canary, ScorerEndpoint, ScorerTarget
from dispatcher_service.scorers import JUDGE, LEFT_ALONE, MAIN, NoPrediction, Scorers, assigned
from tests.fakes import QUANTILES
from tests.processes import ROOT

CHAT = Chat(messages=(Message(Role.USER, (Text("hi"),)),), text_bytes=2)
PAIR = ModelPair(strong="big", weak="small")
TENANTS = [f"tenant-{number}" for number in range(4000)]


def target(**weights: float) -> ScorerTarget:
    canaries = tuple(
        Canary(name=name, weight=weight, endpoint=ScorerEndpoint(address=name)) for name, weight in weights.items()
    )
    return ScorerTarget(address="main", timeout=0.25, breaker_failures=3, breaker_cooldown=1.0, canaries=canaries)


@dataclass
class FakePredictor:
    """Answers under its name, or fails with `result`; `hold` makes it wait."""

    name: str
    result: str = ""
    hold: asyncio.Event | None = None
    calls: int = 0
    closed: bool = False

    async def predict(
        self, chat: Chat, *, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction:
        await self._asked()
        return Prediction(
            win_probability=0.5, scorer=self.name, scorer_version="v", pair_mismatch=False, quantiles=QUANTILES
        )

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict:
        await self._asked()
        return Verdict(acceptance=0.5, scorer=self.name, scorer_version="v")

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking:
        await self._asked()
        return Ranking(win_rates=(0.5,) * len(answers), scorer=self.name, scorer_version="v")

    async def _asked(self) -> None:
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.result:
            raise NoPrediction(self.result, "as told")

    async def close(self) -> None:
        self.closed = True


@dataclass
class Bench:
    """Scorers over fakes, with a clock that stands still."""

    target: ScorerTarget
    now: float = 0.0
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fakes = {name: FakePredictor(name) for name in (MAIN, *(c.name for c in self.target.canaries))}
        self.scorers = Scorers(
            self.target,
            self.fakes,
            observe=lambda scorer, result, _seconds: self.seen.append((scorer, result)),
            clock=lambda: self.now,
        )

    async def who(self, tenant_id: str = "t", timeout: float = 0.25) -> str | None:
        prediction = await self.scorers.score(
            CHAT, tenant_id=tenant_id, pair=PAIR, every_model=False, scorer="", timeout=timeout
        )
        return None if prediction is None else prediction.scorer

    async def verdict(self) -> str | None:
        verdict = await self.scorers.score_answer(CHAT, "an answer", scorer="", timeout=1.0)
        return None if verdict is None else verdict.scorer

    def state(self, name: str = MAIN) -> BreakerState:
        return self.scorers.breakers()[name]()


def test_a_canarys_share_of_tenants_is_its_weight_and_stays_the_same() -> None:
    drawn = {tenant for tenant in TENANTS if assigned(tenant, target(v2=0.1)) == "v2"}
    # Binomial(4000, .1): a standard deviation is 19.
    assert len(drawn) == pytest.approx(400, abs=80)
    assert drawn == {tenant for tenant in TENANTS if assigned(tenant, target(v2=0.1)) == "v2"}


def test_a_weight_that_grows_only_adds_tenants() -> None:
    small, large = [{t for t in TENANTS if assigned(t, target(v2=weight)) == "v2"} for weight in (0.1, 0.3)]
    assert small < large


def test_two_canaries_try_out_on_different_tenants() -> None:
    both = target(v2=0.2, v3=0.2)
    shares = {name: sum(assigned(t, both) == name for t in TENANTS) / len(TENANTS) for name in (MAIN, "v2", "v3")}
    assert shares == pytest.approx({"v2": 0.2, "v3": 0.16, MAIN: 0.64}, abs=0.03)


def test_weights_of_none_and_of_all_are_exact() -> None:
    assert {assigned(tenant, target(v2=0.0)) for tenant in TENANTS} == {MAIN}
    assert {assigned(tenant, target(v2=1.0)) for tenant in TENANTS} == {"v2"}


async def test_failures_in_a_row_leave_a_scorer_alone_until_one_call_finds_it_well() -> None:
    bench = Bench(target())
    bench.fakes[MAIN].result = "UNAVAILABLE"
    assert [await bench.who() for _ in range(5)] == [None] * 5
    assert bench.fakes[MAIN].calls == 3
    assert bench.seen == [(MAIN, "UNAVAILABLE")] * 3 + [(MAIN, LEFT_ALONE)] * 2
    bench.now, bench.fakes[MAIN].result = 1.0, ""
    assert bench.state() is BreakerState.HALF_OPEN
    assert await bench.who() == MAIN
    assert bench.state() is BreakerState.CLOSED


@pytest.mark.parametrize("result", ["DEADLINE_EXCEEDED", "SICK", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INTERNAL"])
async def test_every_failure_of_the_scorers_own_counts(result: str) -> None:
    bench = Bench(target())
    bench.fakes[MAIN].result = result
    for _ in range(3):
        assert await bench.who() is None
    assert bench.state() is BreakerState.OPEN


@pytest.mark.parametrize("result", ["INVALID_ARGUMENT", "NOT_FOUND"])
async def test_a_bad_question_is_no_failure_of_the_scorer(result: str) -> None:
    bench = Bench(target())
    bench.fakes[MAIN].result = result
    for _ in range(10):
        assert await bench.who() is None
    assert bench.state() is BreakerState.CLOSED


async def test_a_caller_in_a_hurry_cannot_shut_the_scorer_off_for_others() -> None:
    bench = Bench(target())
    bench.fakes[MAIN].result = "DEADLINE_EXCEEDED"
    for _ in range(10):
        assert await bench.who(timeout=0.001) is None
    assert bench.state() is BreakerState.CLOSED


async def test_a_call_that_is_given_up_in_the_probe_leaves_room_for_the_next_probe() -> None:
    bench = Bench(target())
    main = bench.fakes[MAIN]
    main.result = "UNAVAILABLE"
    for _ in range(3):
        await bench.who()
    bench.now, main.hold = 1.0, asyncio.Event()
    probe = asyncio.create_task(bench.who())
    await asyncio.sleep(0)
    assert await bench.who() is None, "one probe at a time"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    main.hold, main.result = None, ""
    assert await bench.who() == MAIN


async def test_the_main_scorer_stands_in_for_a_canary_that_is_left_alone() -> None:
    bench = Bench(target(v2=1.0))
    assert await bench.who() == "v2"
    bench.fakes["v2"].result = "UNAVAILABLE"
    assert [await bench.who() for _ in range(4)] == [None, None, None, MAIN]
    bench.fakes[MAIN].result = "UNAVAILABLE"
    assert [await bench.who() for _ in range(4)] == [None] * 4
    assert bench.seen[-1] == (MAIN, LEFT_ALONE)


async def test_answers_are_judged_by_the_main_scorer_whoever_the_tenants_canary_is() -> None:
    bench = Bench(target(v2=1.0))
    assert await bench.verdict() == MAIN
    ranking = await bench.scorers.rank_answers(CHAT, ("a", "b"), scorer="", timeout=1.0)
    assert ranking is not None
    assert (ranking.scorer, ranking.win_rates) == (MAIN, (0.5, 0.5))
    assert bench.seen == [(JUDGE, "OK")] * 2


async def test_a_judge_that_fails_is_left_alone_while_predictions_go_on() -> None:
    bench = Bench(target())
    bench.fakes[MAIN].result = "UNAVAILABLE"
    assert [await bench.verdict() for _ in range(4)] == [None] * 4
    assert bench.seen == [(JUDGE, "UNAVAILABLE")] * 3 + [(JUDGE, LEFT_ALONE)]
    assert await bench.scorers.rank_answers(CHAT, ("a", "b"), scorer="", timeout=1.0) is None
    bench.fakes[MAIN].result = ""
    assert await bench.who() == MAIN
    assert (bench.state(JUDGE), bench.state()) == (BreakerState.OPEN, BreakerState.CLOSED)


async def test_a_scorer_without_a_judge_is_not_at_fault() -> None:
    bench = Bench(target())
    for result in ("NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT"):
        bench.fakes[MAIN].result = result
        assert [await bench.verdict() for _ in range(4)] == [None] * 4
    assert bench.state(JUDGE) is BreakerState.CLOSED


async def test_closing_closes_all() -> None:
    bench = Bench(target(v2=0.5))
    await bench.scorers.close()
    assert all(fake.closed for fake in bench.fakes.values())


def test_the_dispatcher_does_not_import_the_scorer_unless_it_is_embedded() -> None:
    found = "any(m.startswith('scorer_service') for m in sys.modules)"
    code = f"import sys, dispatcher_service.composition; sys.exit({found})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
