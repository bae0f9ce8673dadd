"""The dispatcher's scorers as real processes: replicas that die, canaries, TLS, and the one in its own process."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher_service.scorer_targets import Canary, ScorerEndpoint, ScorerTarget
from dispatcher_service.scorers import MAIN, assigned
from pointsman.client import Message, Role, ScorerClient
from tests.dispatchers import Caller, start_dispatcher
from tests.identities import Authority
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import SCORER_PORTS, ServiceProcess
from tests.scrapes import scrape

TENANTS = ("default", "fixed", "strict", "mismatched")
PROMPTS = ("hi", "Prove that there are infinitely many primes.", "def f(x): return x + 1  # f(f(2))?", "日本の首都は？")


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


def results(process: ServiceProcess) -> dict[tuple[str, str], float]:
    """How many requests each scorer was asked, by its name and the result."""
    found = scrape(process, "pointsman_dispatcher_scorer_seconds_count")
    return {(labels["scorer"], labels["result"]): value for labels, value in found}


async def test_one_of_two_replicas_is_killed_under_traffic_and_every_call_still_gets_its_prediction(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with (
        ServiceProcess("scorer_service", env=SCORER_PORTS) as one,
        ServiceProcess("scorer_service", env=SCORER_PORTS) as two,
    ):
        name = f"ipv4:{one.grpc},{two.grpc}"
        with start_dispatcher(tmp_path, scorer=name, upstream=upstream.base_url) as dispatcher:
            async with Caller(dispatcher.wait_until_serving().grpc) as caller:
                predicted: list[bool] = []
                stop = asyncio.Event()

                async def traffic() -> None:
                    while not stop.is_set():
                        predicted.append((await caller.route("hello")).HasField("win_probability"))

                running = [asyncio.create_task(traffic()) for _ in range(4)]
                await asyncio.sleep(0.5)
                shares = [scrape(process, "pointsman_scorer_scored_total")[0][1] for process in (one, two)]
                await asyncio.to_thread(one.kill)
                before = len(predicted)
                await asyncio.sleep(0.5)
                stop.set()
                await asyncio.gather(*running)
        assert min(shares) > 0.3 * sum(shares), "both were asked, in turn"
        assert len(predicted) > before + 10, "answers keep coming"
        assert all(predicted)


@pytest.mark.full
async def test_a_replica_that_hangs_without_a_word_is_soon_left_out(tmp_path: Path, upstream: OpenAIServer) -> None:
    with (
        ServiceProcess("scorer_service", env=SCORER_PORTS) as one,
        ServiceProcess("scorer_service", env=SCORER_PORTS) as two,
        start_dispatcher(tmp_path, scorer=f"ipv4:{one.grpc},{two.grpc}", upstream=upstream.base_url) as dispatcher,
    ):
        async with Caller(dispatcher.wait_until_serving().grpc) as caller:
            assert (await caller.route("hello")).HasField("win_probability")
            os.kill(one.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    in_a_row = 0
                    while in_a_row < 40:
                        predicted = (await caller.route("hello")).HasField("win_probability")
                        in_a_row = in_a_row + 1 if predicted else 0
            finally:
                os.kill(one.pid, signal.SIGCONT)


async def test_a_canary_serves_its_tenants_and_an_embedded_scorer_gives_the_services_numbers(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with ServiceProcess("scorer_service", env=SCORER_PORTS) as scorer:
        name = next(f"inside-{n}" for n in range(99) if len(_split(f"inside-{n}")) == 2)
        expected = _split(name)
        with start_dispatcher(
            tmp_path,
            scorer=scorer.grpc,
            upstream=upstream.base_url,
            scorer_more=f'canaries = [{{ name = "{name}", weight = 0.5, address = "embedded" }}]',
        ) as dispatcher:
            address = dispatcher.wait_until_serving().grpc
            async with ScorerClient(scorer.grpc) as client:
                scores = [await client.score([Message(Role.USER, prompt)]) for prompt in PROMPTS]
            for tenant in TENANTS:
                async with Caller(address, tenant) as caller:
                    decisions = [await caller.route(prompt) for prompt in PROMPTS]
                for decision, score in zip(decisions, scores, strict=True):
                    assert decision.win_probability == pytest.approx(score.win_probability, abs=1e-6)
                    assert (decision.scorer_version, decision.scorer) == (score.scorer_version, score.scorer)
                    assert decision.pair_mismatch == (tenant == "mismatched")
            asked = {scorer: len(tenants) * len(PROMPTS) for scorer, tenants in expected.items()}
            assert results(dispatcher) == {(scorer, "OK"): count for scorer, count in asked.items()}


async def test_without_any_service_an_embedded_scorer_predicts_and_says_what_it_cannot(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with start_dispatcher(
        tmp_path, scorer="embedded", upstream=upstream.base_url, tenants={"strict": 'scorer = "another"'}
    ) as dispatcher:
        async with Caller(dispatcher.wait_until_serving().grpc) as caller:
            together = await asyncio.gather(*(caller.route(prompt) for prompt in PROMPTS * 10))
            assert all(decision.HasField("win_probability") for decision in together)
            assert (await caller.complete("hello")).decision.scorer == "default"
        assert results(dispatcher) == {(MAIN, "OK"): 41}


def test_an_artefact_that_cannot_be_embedded_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with start_dispatcher(
        tmp_path,
        scorer="embedded",
        upstream="http://127.0.0.1:1/v1",
        scorer_more=f'artifact = "{tmp_path}"',
    ) as process:
        assert process.wait() == 1
        [line] = [line for line in process.stderr if line.startswith("error: ")]
        assert line.startswith("error: scorer 'main': ")
        assert str(tmp_path) in line


async def test_a_scorer_that_is_down_is_asked_a_few_times_and_then_left_alone(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    with start_dispatcher(
        tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url, scorer_more="breaker_cooldown = 60"
    ) as dispatcher:
        async with Caller(dispatcher.wait_until_serving().grpc) as caller:
            for _ in range(12):
                assert not (await caller.route("hello")).HasField("win_probability")
        assert results(dispatcher) == {(MAIN, "UNAVAILABLE"): 5, (MAIN, "LEFT_ALONE"): 7}
        breakers = {
            row["scorer"]: state for row, state in scrape(dispatcher, "pointsman_dispatcher_scorer_breaker_state")
        }
        assert breakers == {MAIN: 2.0, "answers": 0.0}


async def test_a_scorer_behind_mutual_tls_is_asked_with_the_dispatchers_certificate(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client", uri="spiffe://mesh/dispatcher")
    env = {
        "SCORER_TLS_CERTIFICATE": str(server.certificate),
        "SCORER_TLS_KEY": str(server.key),
        "SCORER_TLS_CLIENT_CA": str(authority.certificate),
    }
    with ServiceProcess("scorer_service", env={**SCORER_PORTS, **env}) as scorer:
        ours = f'certificate = "{client.certificate}", key = "{client.key}"'
        for tls, scored in (
            (f'{{ ca = "{authority.certificate}", {ours} }}', True),
            (f'{{ ca = "{authority.certificate}" }}', False),
        ):
            with start_dispatcher(
                tmp_path, scorer=scorer.grpc, upstream=upstream.base_url, scorer_more=f"tls = {tls}"
            ) as dispatcher:
                async with Caller(dispatcher.wait_until_serving().grpc) as caller:
                    assert (await caller.route("hello")).HasField("win_probability") == scored


def test_a_certificate_of_the_scorers_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with start_dispatcher(
        tmp_path, scorer="127.0.0.1:1", upstream="http://127.0.0.1:1/v1", scorer_more='tls = { ca = "/none.pem" }'
    ) as process:
        assert process.wait() == 1
        assert "scorer 'main': /none.pem: cannot be read" in "".join(process.stderr)


def _split(canary: str) -> dict[str, list[str]]:
    """The tenants of each scorer, with a canary of that name."""
    target = ScorerTarget(
        address="",
        timeout=1,
        canaries=(Canary(name=canary, weight=0.5, endpoint=ScorerEndpoint(address="embedded")),),
    )
    split: dict[str, list[str]] = {}
    for tenant in TENANTS:
        split.setdefault(assigned(tenant, target), []).append(tenant)
    return split
