"""What the scorer answers and refuses, over gRPC, in its own process."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pointsman.runtime.channels import MAX_MESSAGE_BYTES
from pointsman.runtime.status import RichStatus, decode
from pointsman.scorer.v1 import scorer_pb2
from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceStub
from scorer_service.metrics import METHODS, REASONS, SKIP_CAUSES, STATUSES, TENTHS
from scorer_service.scorer import ConversationScorer, open_scorer
from tests.artifacts import MIDDLE, STRONG, WEAK, WORDS, user, write
from tests.processes import ServiceProcess, scorer

if TYPE_CHECKING:  # exists for types only
    from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceAsyncStub as AsyncStub


TEXTS = (
    "Prove that the sum of two odd numbers is even.",
    "hello",
    "what is the code there? " * 3,
    "日本語のテキスト ♞",
    "even odd " * 100,
)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A scorer of one pair and one of many models."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {"one": write(folder / "one"), "many": write(folder / "many", many=True, seed=1)}


@pytest.fixture(scope="module")
def service(artifacts: dict[str, Path]) -> Iterator[ServiceProcess]:
    served = ",".join(f"{name}={directory}" for name, directory in artifacts.items())
    with scorer({"SCORER_ARTIFACTS": served, "SCORER_MAX_REQUEST_BATCH": "64"}) as process:
        yield process


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator["AsyncStub"]:
    options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(service.grpc, options=options) as channel:
        yield ScorerServiceStub(channel)


@pytest.fixture(scope="module")
def one(artifacts: dict[str, Path]) -> ConversationScorer:
    """The first artefact in this process: what the service must agree with."""
    return open_scorer(artifacts["one"], threads=1)


def _conversation(*texts: str) -> scorer_pb2.Conversation:
    return scorer_pb2.Conversation(turns=[scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text) for text in texts])


def _request(text: str, scorer: str = "", strong_model: str = "", weak_model: str = "") -> scorer_pb2.ScoreRequest:
    return scorer_pb2.ScoreRequest(
        conversation=_conversation(text), scorer=scorer, strong_model=strong_model, weak_model=weak_model
    )


def _direct(scorer: ConversationScorer, texts: Sequence[str]) -> list[float]:
    """Each text alone, through the graph and without the service."""
    return [float(scorer.onnx.score([scorer.preprocessor.encode(user(text))])[0]) for text in texts]


def _scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        exposition: str = response.read().decode()
    return exposition


async def _call(stub: "AsyncStub", request: scorer_pb2.ScoreRequest | scorer_pb2.BatchScoreRequest) -> object:
    if isinstance(request, scorer_pb2.ScoreRequest):
        return await stub.Score(request, timeout=10)
    return await stub.BatchScore(request, timeout=10)


async def _refusal(stub: "AsyncStub", request: scorer_pb2.ScoreRequest | scorer_pb2.BatchScoreRequest) -> RichStatus:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _call(stub, request)
    status = decode(raised.value)
    assert status is not None
    return status


async def test_a_score_is_the_graphs_own_number(stub: "AsyncStub", one: ConversationScorer) -> None:
    for text, expected in zip(TEXTS, _direct(one, TEXTS), strict=True):
        response = await stub.Score(_request(text), timeout=10)
        assert response.win_probability == pytest.approx(expected, abs=1e-6)
        assert (response.scorer, response.scorer_version) == ("one", one.artifact.version)
        assert response.timings.tokenization_seconds > 0
        assert response.timings.inference_seconds > 0
        assert 0 <= response.timings.queue_seconds < 10


async def test_a_batch_answers_in_order_with_each_prompts_own_number(
    stub: "AsyncStub", one: ConversationScorer
) -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=size)) for size in generator.integers(1, 60, size=64)]
    alone = _direct(one, texts)
    assert np.ptp(alone) > 0.2
    batch = scorer_pb2.BatchScoreRequest(requests=map(_request, texts))
    response = await stub.BatchScore(batch, timeout=10)
    together = [item.win_probability for item in response.responses]
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)
    assert [item.truncated for item in response.responses] == [len(text.split()) > 30 for text in texts]


async def test_a_batch_may_name_different_scorers(stub: "AsyncStub") -> None:
    names = ["many", "one", "", "many"]
    batch = scorer_pb2.BatchScoreRequest(requests=[_request("hello", name) for name in names])
    response = await stub.BatchScore(batch, timeout=10)
    assert [item.scorer for item in response.responses] == ["many", "one", "one", "many"]
    assert response.responses[0].win_probability == response.responses[3].win_probability
    assert response.responses[0].win_probability != response.responses[1].win_probability


async def test_the_last_user_turn_is_scored(stub: "AsyncStub") -> None:
    conversation = _conversation("what code", "hello there")
    conversation.turns.add(role=scorer_pb2.ROLE_ASSISTANT, text="prove that")
    conversation.turns.add(role=scorer_pb2.ROLE_TOOL, text="")
    whole = await stub.Score(scorer_pb2.ScoreRequest(conversation=conversation), timeout=10)
    last = await stub.Score(_request("hello there"), timeout=10)
    assert whole.win_probability == pytest.approx(last.win_probability, abs=1e-7)


async def test_text_beyond_the_window_is_scored_on_its_beginning_and_marked(stub: "AsyncStub") -> None:
    long = await stub.Score(_request("odd " * 30 + "even " * 1000), timeout=10)
    kept = await stub.Score(_request("odd " * 30), timeout=10)
    assert long.win_probability == pytest.approx(kept.win_probability, abs=1e-7)
    assert (long.truncated, kept.truncated) == (True, False)


async def test_a_scorer_of_one_pair_answers_for_it_and_says_so_if_another_was_asked(stub: "AsyncStub") -> None:
    own = await stub.Score(_request("hello", "one", STRONG, WEAK), timeout=10)
    other = await stub.Score(_request("hello", "one", STRONG, "gpt-x"), timeout=10)
    assert (own.calibrated, own.pair_mismatch) == (True, False)
    assert (other.calibrated, other.pair_mismatch) == (False, True)
    assert other.win_probability == pytest.approx(own.win_probability, abs=1e-7)


async def test_a_scorer_of_many_models_answers_for_the_pair_that_was_asked(stub: "AsyncStub") -> None:
    own = await stub.Score(_request("hello", "many"), timeout=10)
    forth = await stub.Score(_request("hello", "many", STRONG, MIDDLE), timeout=10)
    back = await stub.Score(_request("hello", "many", MIDDLE, STRONG), timeout=10)
    assert forth.win_probability + back.win_probability == pytest.approx(1, abs=1e-6)
    assert forth.win_probability != own.win_probability
    assert (own.calibrated, own.pair_mismatch) == (True, False)
    assert (forth.calibrated, forth.pair_mismatch) == (False, False)


async def test_every_models_win_probability_is_returned_on_request_only(stub: "AsyncStub") -> None:
    request = _request("hello", "many")
    assert not (await stub.Score(request, timeout=10)).model_win_probabilities
    request.include_model_win_probabilities = True
    response = await stub.Score(request, timeout=10)
    by_model = {entry.model: entry.win_probability for entry in response.model_win_probabilities}
    assert list(by_model) == [STRONG, MIDDLE, WEAK]
    assert by_model[STRONG] == pytest.approx(0.5)
    assert by_model[WEAK] == pytest.approx(1 - response.win_probability, abs=1e-6)
    request.strong_model = MIDDLE
    over_middle = (await stub.Score(request, timeout=10)).model_win_probabilities
    assert over_middle[0].win_probability == pytest.approx(1 - by_model[MIDDLE], abs=1e-6)
    assert over_middle[1].win_probability == pytest.approx(0.5)


async def test_scorers_are_listed_with_the_default_first(stub: "AsyncStub", one: ConversationScorer) -> None:
    listed = (await stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=10)).scorers
    assert [(s.name, s.is_default, s.router_kind) for s in listed] == [("one", True, "static"), ("many", False, "mf")]
    first = listed[0]
    assert first.version == one.artifact.version
    assert (first.strong_model, first.weak_model, list(first.models)) == (STRONG, WEAK, [STRONG, WEAK])
    assert tuple(first.score_quantiles) == one.manifest.score_quantiles
    limits = first.limits
    assert (limits.max_tokens, limits.max_conversation_bytes, limits.max_batch_size) == (32, 1024 * 1024, 64)


USER = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text="hello")


@pytest.mark.parametrize(
    ("request_", "code", "field", "mend"),
    [
        (scorer_pb2.ScoreRequest(), "INVALID_ARGUMENT", "conversation.turns", "at least one turn"),
        (_request(" \n\t"), "INVALID_ARGUMENT", "conversation.turns", "text that is not blank"),
        (
            scorer_pb2.ScoreRequest(
                conversation=scorer_pb2.Conversation(turns=[scorer_pb2.Turn(role=scorer_pb2.ROLE_SYSTEM, text="hello")])
            ),
            "INVALID_ARGUMENT",
            "conversation.turns",
            "add a user turn",
        ),
        (
            scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[USER, scorer_pb2.Turn(text="hello")])),
            "INVALID_ARGUMENT",
            "conversation.turns[1].role",
            "ROLE_USER",
        ),
        (
            scorer_pb2.ScoreRequest(
                conversation=scorer_pb2.Conversation(turns=[scorer_pb2.Turn(role=99, text="hello")])  # type: ignore[arg-type]
            ),
            "INVALID_ARGUMENT",
            "conversation.turns[0].role",
            "ROLE_USER",
        ),
        (_request("hello", "nobody"), "NOT_FOUND", "scorer", "many, one"),
        (_request("hello", "many", "gpt-x", WEAK), "NOT_FOUND", "strong_model", f"{STRONG}, {MIDDLE}, {WEAK}"),
        (_request("hello", "many", "", "gpt-x"), "NOT_FOUND", "weak_model", f"{STRONG}, {MIDDLE}, {WEAK}"),
        (_request("hello", "many", WEAK), "INVALID_ARGUMENT", "weak_model", "another model"),
        (_request("é" * 5_000_000), "INVALID_ARGUMENT", "conversation", "10000000 bytes of text; shorten it, 1048576"),
        (scorer_pb2.BatchScoreRequest(), "INVALID_ARGUMENT", "requests", "at least one"),
        (
            scorer_pb2.BatchScoreRequest(requests=[_request("hello")] * 65),
            "INVALID_ARGUMENT",
            "requests",
            "65 conversations in one call; split them, 64 is the limit",
        ),
        (
            scorer_pb2.BatchScoreRequest(requests=[*[_request("hello")] * 3, scorer_pb2.ScoreRequest()]),
            "INVALID_ARGUMENT",
            "requests[3].conversation.turns",
            "at least one turn",
        ),
        (
            scorer_pb2.BatchScoreRequest(
                requests=[
                    _request("hello"),
                    scorer_pb2.ScoreRequest(
                        conversation=scorer_pb2.Conversation(turns=[USER, scorer_pb2.Turn(text="x")])
                    ),
                ]
            ),
            "INVALID_ARGUMENT",
            "requests[1].conversation.turns[1].role",
            "ROLE_USER",
        ),
        (
            scorer_pb2.BatchScoreRequest(requests=[_request("hello"), _request("x" * 1_048_577)]),
            "INVALID_ARGUMENT",
            "requests[1].conversation",
            "1048577 bytes",
        ),
    ],
)
async def test_bad_input_is_named_and_the_next_answer_is_right(
    stub: "AsyncStub",
    one: ConversationScorer,
    request_: scorer_pb2.ScoreRequest | scorer_pb2.BatchScoreRequest,
    code: str,
    field: str,
    mend: str,
) -> None:
    status = await _refusal(stub, request_)
    assert status.code.name == code
    [violation] = status.violations
    assert violation.field == field
    assert mend in violation.mend
    assert status.reason == (
        "PAYLOAD_TOO_LARGE" if "bytes" in mend else "NOT_FOUND" if "NOT" in code else "INVALID_REQUEST"
    )
    [expected] = _direct(one, ["hello"])
    response = await stub.Score(_request("hello"), timeout=10)
    assert response.win_probability == pytest.approx(expected, abs=1e-6)


async def test_a_conversation_of_exactly_the_limit_is_scored(stub: "AsyncStub") -> None:
    response = await stub.Score(_request("hello " + "x" * (1024 * 1024 - 6)), timeout=20)
    assert response.truncated


async def test_metrics_count_what_was_done_with_closed_label_sets(artifacts: dict[str, Path]) -> None:
    with scorer({"SCORER_ARTIFACTS": f"one={artifacts['one']}"}) as process:
        async with grpc.aio.insecure_channel(process.grpc) as channel:
            stub = ScorerServiceStub(channel)
            for _ in range(3):
                await stub.Score(_request("hello", "", "another", WEAK), timeout=10)
            await stub.BatchScore(scorer_pb2.BatchScoreRequest(requests=map(_request, TEXTS)), timeout=10)
            await _refusal(stub, _request("hello", "nobody"))
        exposition = await asyncio.to_thread(_scrape, process.metrics)
    samples = {
        (sample.name.removeprefix("pointsman_scorer_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    version = open_scorer(artifacts["one"]).artifact.version
    assert samples["requests_total", "OK", "Score"] == 3
    assert samples["requests_total", "BatchScore", "OK"] == 1
    assert samples["requests_total", "NOT_FOUND", "Score"] == 1
    assert samples["errors_total", "NOT_FOUND"] == 1
    assert samples["conversations_total",] == 3 + len(TEXTS) + 1
    assert samples["scored_total", "one"] == 3 + len(TEXTS)
    assert samples["truncated_total", "one"] == 1
    assert samples["pair_mismatch_total", "one"] == 3
    assert samples["win_probability_count", "one"] == 3 + len(TEXTS)
    assert sum(value for key, value in samples.items() if key[0] == "reference_tenth_total") == 3 + len(TEXTS)
    assert samples["queue_seconds_count", "one"] == 3 + len(TEXTS)
    # "hello" is three times 3 tokens; the texts are 13, 3, 20, 4 and, cut to the window, 32.
    assert samples["tokens_sum", "one"] == 3 * 3 + 13 + 3 + 20 + 4 + 32
    assert 1 <= samples["batch_conversations_count", "one"] <= 4
    assert samples["batch_conversations_sum", "one"] == 3 + len(TEXTS)
    assert samples["tokenization_seconds_sum", "one"] > 0
    assert samples["inference_seconds_sum", "one"] > 0
    assert samples["queue_conversations", "one"] == 0
    assert samples["golden_max_deviation", "one"] <= 1e-4
    assert samples[("artifact_info", *sorted(("one", version, "static")))] == 1
    closed = {
        "method": set(METHODS),
        "status": set(STATUSES),
        "reason": set(REASONS),
        "cause": set(SKIP_CAUSES),
        "tenth": set(TENTHS),
        "scorer": {"one"},
        "version": {version},
        "router_kind": {"static"},
    }
    for family in text_string_to_metric_families(exposition):
        if family.name.startswith("pointsman_scorer_"):
            for sample in family.samples:
                for label, value in sample.labels.items():
                    assert label == "le" or value in closed[label], sample
