"""`pointsman demo` and `pointsman run` as a person runs them, every process real."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import psutil
import pytest

from apps.demo.catalogue import SHARES
from apps.demo.prompts import PROMPTS
from pointsman.client import DispatcherClient, PointsmanCallError, Tier
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = re.compile(
    r"routed (\d+) prompts: (\d+) strong \((\d+)%\), cost \$(\d+\.\d{6}), saved \$(\d+\.\d{6}) \((\d+)%\) "
    r"vs all-strong \(at example prices, one local model behind both tiers\)"
)


def start(command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    ours = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.Popen(
        [sys.executable, "-m", "pointsman.cli", command],
        cwd=ROOT,
        env={**ours, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def usual_ports() -> Iterator[None]:
    """One `pointsman run` at a time: between finding a port free and taking it, another worker's may take it."""
    with (Path(tempfile.gettempdir()) / "pointsman-tests-usual-ports").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_snippet(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def reap(process: subprocess.Popen[str], children: list[psutil.Process]) -> None:
    for each in (*children, psutil.Process(process.pid) if process.poll() is None else None):
        if each is not None and each.is_running():
            each.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def test_the_demo_routes_every_prompt_adds_up_and_leaves_nothing_behind() -> None:
    process = start("demo")
    children: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            children = children or (psutil.Process(process.pid).children() if line.startswith(" 1/") else [])
        assert process.wait(10) == 0, "\n".join(lines)
        assert len(children) == 3, "scorer, dispatcher, local upstream"
        assert not [child for child in children if child.is_running()]
    finally:
        reap(process, children)

    summary = SUMMARY.fullmatch(lines[-1])
    assert summary is not None, lines[-1]
    count, strong, percent, cost, saved, saved_percent = map(float, summary.groups())
    assert count == len(PROMPTS) >= 20
    assert 0 < strong < count, "some prompts go each way"
    assert percent == round(100 * strong / count)
    assert saved_percent == pytest.approx(100 * saved / (cost + saved), abs=0.6)

    rows = [
        row for line in lines if (row := re.fullmatch(r" *(\w+) +.+ (\d\.\d{3}) +(\d\.\d{3}) +(\S+) +\$(\S+) *", line))
    ]
    assert len(rows) == count
    for row in rows:
        tenant, win_probability, alpha, model, _ = row.groups()
        assert tenant in SHARES
        if win_probability != alpha:  # equal in three digits says nothing about the rest
            assert model == ("example-strong" if win_probability > alpha else "example-weak")
    assert sum(row[4] == "example-strong" for row in rows) == strong
    # Each cost is rounded to a millionth.
    assert sum(float(row[5]) for row in rows) == pytest.approx(cost, abs=0.6e-6 * count)
    for tenant, share in SHARES.items():
        strong_of = [row[4] == "example-strong" for row in rows if row[1] == tenant]
        # Pacing's bound at a window of 20 calls: (1 + η)/η with η = 5/20.
        assert abs(sum(strong_of) - share * len(strong_of)) <= 5


@pytest.mark.usefixtures("usual_ports")
async def test_run_stays_up_answers_its_own_snippet_and_ends_with_ctrl_c() -> None:
    process = start("run")
    children: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Ctrl-C stops"):
                break
        children = psutil.Process(process.pid).children()
        assert len(children) == 3, "\n".join(lines)
        [address] = [match[1] for line in lines if (match := re.match(r"dispatcher +grpc (\S+)", line))]

        start_of_snippet = lines.index("import asyncio")
        snippet = "\n".join(lines[start_of_snippet : lines.index("asyncio.run(main())") + 1])
        ran = run_snippet(snippet)
        assert ran.returncode == 0, ran.stderr
        assert "Decision(tier=" in ran.stdout

        async with DispatcherClient(address, tenant="support", timeout=60) as client:
            decision = await client.route("What is the capital of Australia?")
            assert decision.tier in (Tier.STRONG, Tier.WEAK)
            assert decision.win_probability is not None
        async with DispatcherClient(address, tenant="nobody", timeout=10) as client:
            with pytest.raises(PointsmanCallError) as caught:
                await client.route("Hi")
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED

        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not [child for child in children if child.is_running()]
    finally:
        reap(process, children)


@pytest.mark.usefixtures("usual_ports")
def test_a_child_that_dies_ends_run_and_says_which_and_what_to_do() -> None:
    process = start("run")
    children: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Ctrl-C stops"):
                break
        children = psutil.Process(process.pid).children()
        [scorer] = [child for child in children if "scorer_service" in child.cmdline()]
        scorer.kill()
        rest = process.stdout.read()
        assert process.wait(30) == 1
        assert "scorer_service ended" in rest
        assert "python -m scorer_service --help" in rest
        for _ in eventually():
            if not [child for child in children if child.is_running()]:
                break
    finally:
        reap(process, children)


def test_a_child_that_cannot_start_fails_the_demo_with_its_own_words() -> None:
    process = start("demo", {"SCORER_THREADS": "many"})
    try:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "scorer_service did not start. It wrote:" in output
        assert "SCORER_THREADS='many': write a number" in output
    finally:
        reap(process, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    process = start("demo")
    children: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(" 2/"):
                break
        children = psutil.Process(process.pid).children()
        assert len(children) == 3
        process.send_signal(number)
        assert process.wait(30) == 130
        assert not [child for child in children if child.is_running()]
    finally:
        reap(process, children)
