"""A parent whose workers do not stay; the happy ways are in tests/integration/test_workers.py."""

import os

import pytest

from pointsman.runtime.starting import StartError
from pointsman.runtime.workers import supervisor
from pointsman.runtime.workers.supervisor import Workers, supervise
from tests.processes import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def workers(**changes: str) -> Workers:
    return Workers(
        service="dying",
        module="tests.dying_worker",
        count=2,
        listen=changes.get("listen", "127.0.0.1:0"),
        listen_variable="LISTEN",
        metrics_listen="127.0.0.1:0",
        drain_seconds=1.0,
        gauges={},
    )


async def test_a_parent_whose_workers_never_stay_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.01)
    assert await supervise(workers(), ENVIRONMENT) == 1
    events = [record.getMessage() for record in caplog.records]
    assert events.count("a worker died and will be replaced") >= 4
    assert "no worker stays: giving up" in events
    pauses = [
        record.__dict__["pointsman_fields"]["pause_seconds"]
        for record in caplog.records
        if record.getMessage() == "a worker died and will be replaced"
    ]
    assert max(pauses) >= 0.04, "pauses grow"


async def test_a_worker_that_does_not_start_ends_the_parent_with_its_code() -> None:
    assert await supervise(workers(), {**ENVIRONMENT, "DOES_NOT_START": "1"}) == 4


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(StartError, match="write host:port"):
        await supervise(workers(listen="50052"), ENVIRONMENT)
