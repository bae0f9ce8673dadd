"""Scorers that change with the configuration: who answers, when the old ones go, and what a failure leaves."""

import asyncio
from dataclasses import replace

import pytest

from dispatcher_service import live_scorers
from dispatcher_service.live_scorers import LiveScorers
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorer_targets import ScorerTarget
from dispatcher_service.scorers import MAIN, Scorers
from pointsman.runtime.starting import StartError
from tests.unit.test_dispatch import request
from tests.unit.test_scorers import FakePredictor

TARGET = ScorerTarget(address="old", timeout=0.01, answer_timeout=0.01, breaker_failures=3, breaker_cooldown=1.0)


class House:
    """Live scorers whose predictors answer under their address."""

    def __init__(self) -> None:
        self.predictors: dict[str, FakePredictor] = {}
        self.watched = 0

    async def open(self, target: ScorerTarget) -> Scorers:
        if target.address == "broken":
            raise StartError("scorer 'main': no such artefact")
        predictor = self.predictors[target.address] = FakePredictor(target.address)
        return Scorers(target, {MAIN: predictor}, observe=lambda *_: None)

    def watch(self, _: object) -> None:
        self.watched += 1


async def _answers(live: LiveScorers) -> str:
    pair = ModelPair(strong="big", weak="small")
    prediction = await live.score(request().chat, tenant_id="t", pair=pair, every_model=False, scorer="", timeout=1.0)
    assert prediction is not None
    return prediction.scorer


async def test_another_target_is_gone_over_to_and_the_old_scorers_close_when_they_have_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_scorers, "_MARGIN_SECONDS", 0.05)
    house = House()
    live = await LiveScorers.opened(TARGET, open_=house.open, watch=house.watch)
    asked = house.predictors["old"].hold = asyncio.Event()
    running = asyncio.create_task(_answers(live))
    await asyncio.sleep(0)
    await live.follow(replace(TARGET, address="new"))
    assert await _answers(live) == "new"
    assert not house.predictors["old"].closed
    asked.set()
    assert await running == "old"
    async with asyncio.timeout(5):
        while not house.predictors["old"].closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert house.watched == 2
    await live.close()
    assert house.predictors["new"].closed


async def test_the_same_target_opens_nothing_anew() -> None:
    house = House()
    live = await LiveScorers.opened(TARGET, open_=house.open, watch=house.watch)
    await live.follow(replace(TARGET))
    assert house.watched == 1
    await live.close()


async def test_scorers_that_cannot_be_opened_leave_the_old_ones_in_place() -> None:
    house = House()
    live = await LiveScorers.opened(TARGET, open_=house.open, watch=house.watch)
    with pytest.raises(StartError):
        await live.follow(replace(TARGET, address="broken"))
    assert await _answers(live) == "old"
    await live.close()


async def test_closing_closes_those_on_their_way_out_too() -> None:
    house = House()
    live = await LiveScorers.opened(TARGET, open_=house.open, watch=house.watch)
    await live.follow(replace(TARGET, address="new"))
    await live.close()
    assert all(predictor.closed for predictor in house.predictors.values())
