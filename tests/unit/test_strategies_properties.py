"""What holds of every cascade and ensemble, whatever answers, fails, costs and is scored."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher_service.answer import Delta, ToolCallDelta
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.dispatch import Finished
from dispatcher_service.errors import PointsmanError, UpstreamRejected, UpstreamTimeout, UpstreamUnavailable
from dispatcher_service.outcome import StageResult
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy, OnNoScore, StrategyName
from tests.fakes import FakeJudge
from tests.strategies import MODELS, Bench, Models, question

WHAT = ("answers", "blank", "tools", "refuses", "breaks off", "rejects", "late")
ONCE = frozenset({StageResult.NO_MONEY, StageResult.NO_TIME})


def reply(model: str, what: str) -> object:
    """What a model does, as `Models` takes it."""
    refused = UpstreamUnavailable(f"{model}-1", "refused", may_be_billed=False)
    return {
        "answers": [f"I am {model}."],
        "blank": [" "],
        "tools": [Delta(tool_calls=(ToolCallDelta(0, "c", "f", "{}"),))],
        "refuses": refused,
        "breaks off": ["half", UpstreamUnavailable(f"{model}-1", "broke off", may_be_billed=True)],
        "rejects": UpstreamRejected(f"{model}-1", "too long"),
        "late": UpstreamTimeout(f"{model}-1", "too late", may_be_billed=True),
    }[what]


@settings(max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from([StrategyName.CASCADE, StrategyName.ENSEMBLE]),
    replies=st.tuples(*[st.sampled_from(WHAT)] * 3),
    scores=st.tuples(*[st.one_of(st.none(), st.floats(0, 1))] * 3),
    limit=st.one_of(st.none(), st.integers(0, 400_000)),
    on_exhausted=st.sampled_from([OnExhausted.DEGRADE, OnExhausted.REJECT]),
    on_no_score=st.sampled_from(OnNoScore),
    streamed=st.booleans(),
    accept_replacement=st.booleans(),
    fuse=st.booleans(),
)
def test_the_ledger_is_the_sum_of_all_calls_and_at_most_one_answer_is_given(
    strategy: StrategyName,
    replies: Sequence[str],
    scores: Sequence[float | None],
    limit: int | None,
    on_exhausted: OnExhausted,
    on_no_score: OnNoScore,
    streamed: bool,
    accept_replacement: bool,
    fuse: bool,
) -> None:
    judged: Mapping[str, float | None] = dict(zip((f"I am {model}." for model in MODELS), scores, strict=True))
    bench = Bench(
        upstream=Models({model: reply(model, what) for model, what in zip(MODELS, replies, strict=True)}),
        judge=FakeJudge(judged),
        strategy=strategy,
        cascade=CascadePolicy(thresholds=(0.5, 0.5), on_no_score=on_no_score),
        ensemble=EnsemblePolicy(fuse_with="large" if fuse else ""),
        limits=() if limit is None else (Limit(Period.HOUR, limit),),
        on_exhausted=on_exhausted,
    )

    async def ask() -> bool:
        with contextlib.suppress(PointsmanError):
            if not streamed:
                await bench.dispatcher.complete(question())
                return True
            events = [event async for event in bench.dispatcher.stream(question(accept_replacement=accept_replacement))]
            return isinstance(events[-1], Finished)
        return False

    async def run() -> tuple[bool, int]:
        answered = await ask()
        return answered, await bench.spent()

    answered, spent = asyncio.run(run())
    [outcome] = bench.outcomes
    choice, cost = outcome.choice, 0 if outcome.bill is None else outcome.bill.cost
    assert choice is not None
    assert cost == spent == sum(attempt.cost for attempt in outcome.attempts)
    assert cost == sum(stage.cost for stage in choice.stages)
    assert len(outcome.attempts) == len(bench.upstream.asked)
    assert sum(stage.given for stage in choice.stages) == answered
    assert limit is None or spent <= limit
    asked = [stage.model for stage in choice.stages if stage.result not in ONCE]
    assert asked == bench.upstream.asked
    if answered:
        assert choice.model == next(stage.model for stage in choice.stages if stage.given)
        assert outcome.bill is not None
