"""How much Python runs per call: a guard for the hot path that a busy machine cannot shake.

Python functions entered are counted, not seconds: the number is the same on any machine, and whoever adds a layer, a
look-up per call or a value that is built twice sees it here. A count that has grown for a good reason is written down
anew; so is one that has shrunk, or the guard would be blunt.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from benchmarks.servers import ANSWER
from dispatcher_service import openai_body, openai_wire, routing
from dispatcher_service.catalogue import Deployment
from tests.fakes import QUANTILES
from tests.unit.test_dispatch import Bench, request

CALLS = 50
LEAST, MOST = 0.7, 1.1
"""Comprehensions are functions in Python 3.11 and none from 3.12 on."""

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 13),
    reason="the counts were taken on CPython 3.11 to 3.13",
)


def functions_entered(work: Callable[[], object]) -> float:
    """Python functions that one `work` enters, once it is warm."""
    entered = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal entered
        if event == "call":
            entered += 1

    for _ in range(5):
        work()
    before = sys.getprofile()
    assert threading.current_thread() is threading.main_thread()
    sys.setprofile(count)
    try:
        for _ in range(CALLS):
            work()
    finally:
        sys.setprofile(before)
    return entered / CALLS


def decide() -> None:
    """The pure decision of a tenant with a share."""
    routing.decide(0.5, alpha=routing.alpha_for_share(QUANTILES, 0.3))


BODY = json.dumps(ANSWER).encode()


def write_and_read() -> None:
    """What goes to an upstream, and what comes back."""
    deployment = Deployment(name="d", model="m", base_url="http://unused", upstream_model="m")
    openai_body.encode(deployment, request().chat, max_tokens=None, stream=False)
    openai_wire.read_completion(json.loads(BODY))


@pytest.mark.parametrize(
    ("work", "baseline"),
    [pytest.param(decide, 8, id="decision"), pytest.param(write_and_read, 73, id="upstream's JSON")],
)
def test_a_step_enters_no_more_functions_than_it_did(work: Callable[[], object], baseline: float) -> None:
    _compare(functions_entered(work), baseline)


def test_a_request_enters_no_more_functions_than_it_did() -> None:
    # Choosing, booking in a ledger in memory, one attempt, the outcome: all but the edges.
    bench = Bench()
    with asyncio.Runner() as runner:

        def complete() -> None:
            runner.get_loop().run_until_complete(bench.dispatcher.complete(request()))

        _compare(functions_entered(complete), 320)


def _compare(entered: float, baseline: float) -> None:
    assert LEAST * baseline <= entered <= MOST * baseline, (
        f"{entered:.0f} Python functions per call, where there were {baseline}: if that is meant, write it down"
    )
