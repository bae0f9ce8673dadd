"""What ScoreAnswer and RankAnswers answer and refuse, over gRPC, in a scorer process of its own."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import pytest

from pointsman.runtime.status import RichStatus, decode
from pointsman.scorer.v1 import scorer_pb2
from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceStub
from scorer_service.judge import Judge, open_judge
from tests.answer_artifacts import write_answer, write_ranker
from tests.artifacts import WORDS, user, write
from tests.faults import samples
from tests.processes import ServiceProcess, scorer

if TYPE_CHECKING:  # exists for types only
    from pointsman.scorer.v1.scorer_pb2_grpc import ScorerServiceAsyncStub as AsyncStub

PROMPT = "what is 3 + 4?"
ANSWERS = ("3 + 4 = 7", "3 + 4 = 8. The answer is 8", "hello there", "the sum of two odd numbers is even " * 9)
MAX_BYTES, MAX_ANSWERS = 2_000, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("artifacts")
    write(made / "predictor")
    write_answer(made / "judge")
    write_answer(made / "other", seed=1)
    write_ranker(made / "ranker")
    return made


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[ServiceProcess]:
    names = ("judge", "predictor", "other", "ranker")
    settings = {
        "SCORER_ARTIFACTS": ",".join(f"{name}={folder / name}" for name in names),
        "SCORER_MAX_ANSWER_BYTES": str(MAX_BYTES),
        "SCORER_MAX_CONVERSATION_BYTES": str(MAX_BYTES),
        "SCORER_MAX_ANSWERS": str(MAX_ANSWERS),
    }
    with scorer(settings) as process:
        yield process


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator["AsyncStub"]:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        yield ScorerServiceStub(channel)


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    """The first artefact that scores answers, in this process: what the service must agree with."""
    return open_judge(folder / "judge", threads=1)


@pytest.fixture(scope="module")
def ranker(folder: Path) -> Judge:
    return open_judge(folder / "ranker", threads=1)


def _conversation(*texts: str) -> scorer_pb2.Conversation:
    return scorer_pb2.Conversation(turns=[scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text) for text in texts])


def _score(answer: str, *, prompt: str = PROMPT, scorer: str = "") -> scorer_pb2.ScoreAnswerRequest:
    return scorer_pb2.ScoreAnswerRequest(conversation=_conversation(prompt), answer=answer, scorer=scorer)


def _rank(*answers: str, prompt: str = PROMPT, scorer: str = "") -> scorer_pb2.RankAnswersRequest:
    return scorer_pb2.RankAnswersRequest(conversation=_conversation(prompt), answers=answers, scorer=scorer)


def _direct(judge: Judge, *answers: str, prompt: str = PROMPT) -> float:
    """One row through the graph as it is, without the service."""
    [row] = judge.preprocessor.encode([judge.preprocessor.passages(user(prompt), answers)])
    return float(judge.onnx.together([row])[0])


async def _call(stub: "AsyncStub", request: Any) -> Any:
    if isinstance(request, scorer_pb2.ScoreAnswerRequest):
        return await stub.ScoreAnswer(request, timeout=10)
    if isinstance(request, scorer_pb2.RankAnswersRequest):
        return await stub.RankAnswers(request, timeout=10)
    return await stub.Score(request, timeout=10)


async def _refusal(stub: "AsyncStub", request: Any) -> RichStatus:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _call(stub, request)
    status = decode(raised.value)
    assert status is not None
    return status


async def test_an_answers_score_is_the_graphs_own_number(stub: "AsyncStub", judge: Judge) -> None:
    found = []
    for answer in ANSWERS:
        response = await stub.ScoreAnswer(_score(answer), timeout=10)
        assert response.acceptance_probability == pytest.approx(_direct(judge, answer), abs=1e-6)
        assert (response.scorer, response.scorer_version) == ("judge", judge.artifact.version)
        assert response.timings.tokenization_seconds > 0
        assert response.timings.inference_seconds > 0
        found.append(response.acceptance_probability)
    assert np.ptp(found) > 0.05


async def test_a_score_depends_on_the_prompt_too(stub: "AsyncStub") -> None:
    one, other = [
        await stub.ScoreAnswer(_score("3 + 4 = 7", prompt=prompt), timeout=10) for prompt in (PROMPT, "hello 7 code")
    ]
    assert abs(one.acceptance_probability - other.acceptance_probability) > 1e-3


async def test_what_is_cut_is_told_apart(stub: "AsyncStub") -> None:
    whole = await stub.ScoreAnswer(_score("even"), timeout=10)
    assert (whole.conversation_truncated, whole.answer_truncated) == (False, False)
    asked = await stub.ScoreAnswer(_score("even", prompt="what " * 40), timeout=10)
    assert (asked.conversation_truncated, asked.answer_truncated) == (True, False)
    answered = await stub.ScoreAnswer(_score("even " * 40), timeout=10)
    assert (answered.conversation_truncated, answered.answer_truncated) == (False, True)


async def test_of_a_long_answer_the_end_is_read(stub: "AsyncStub") -> None:
    tail = " ".join(WORDS) + " " + " ".join(WORDS)
    one, other = [
        await stub.ScoreAnswer(_score(f"{begin} {tail}"), timeout=10) for begin in ("hello even", "there code")
    ]
    assert one.answer_truncated
    assert one.acceptance_probability == pytest.approx(other.acceptance_probability, abs=1e-6)


async def test_a_ranking_is_the_mean_over_the_others_of_both_orders(stub: "AsyncStub", ranker: Judge) -> None:
    response = await stub.RankAnswers(_rank(*ANSWERS), timeout=10)
    for place, answer in enumerate(ANSWERS):
        others = [other for other in ANSWERS if other != answer]
        means = [(_direct(ranker, answer, other) + 1 - _direct(ranker, other, answer)) / 2 for other in others]
        assert response.answers[place].mean_win_probability == pytest.approx(np.mean(means), abs=1e-6)
    wins = [answer.mean_win_probability for answer in response.answers]
    assert np.mean(wins) == pytest.approx(0.5, abs=1e-6)
    assert response.best_index == int(np.argmax(wins))
    assert [answer.truncated for answer in response.answers] == [False, False, False, True]
    assert (response.scorer, response.scorer_version) == ("ranker", ranker.artifact.version)


async def test_an_answer_gains_nothing_by_its_place(stub: "AsyncStub") -> None:
    by_answer: dict[str, set[float]] = {answer: set() for answer in ANSWERS[:3]}
    for order in itertools.permutations(ANSWERS[:3]):
        response = await stub.RankAnswers(_rank(*order), timeout=10)
        for answer, place in zip(order, response.answers, strict=True):
            by_answer[answer].add(round(place.mean_win_probability, 5))
    assert all(len(found) == 1 for found in by_answer.values())


async def test_of_equal_answers_the_first_is_best(stub: "AsyncStub") -> None:
    response = await stub.RankAnswers(_rank("hello", "hello"), timeout=10)
    assert [answer.mean_win_probability for answer in response.answers] == [0.5, 0.5]
    assert response.best_index == 0


async def test_a_scorer_can_be_named(stub: "AsyncStub") -> None:
    default, other = [await stub.ScoreAnswer(_score("even", scorer=name), timeout=10) for name in ("", "other")]
    assert (default.scorer, other.scorer) == ("judge", "other")
    assert default.acceptance_probability != other.acceptance_probability


async def test_scorers_are_listed_with_task_and_a_default_per_task(stub: "AsyncStub") -> None:
    listed = (await stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=10)).scorers
    assert [(each.name, scorer_pb2.ScorerTask.Name(each.task)[12:], each.is_default) for each in listed] == [
        ("predictor", "PREDICT", True),
        ("judge", "SCORE_ANSWER", True),
        ("other", "SCORE_ANSWER", False),
        ("ranker", "RANK_ANSWERS", True),
    ]
    assert {(each.limits.max_answer_bytes, each.limits.max_answers) for each in listed} == {(MAX_BYTES, MAX_ANSWERS)}
    assert [each.router_kind for each in listed] == ["static", "answer", "answer", "ranker"]
    assert [list(each.models) for each in listed[1:]] == [[], [], []]


BLANK = "write an answer with text that is not blank: a blank one needs no verdict"


@pytest.mark.parametrize(
    ("ask", "field", "mend"),
    [
        (_score(""), "answer", BLANK),
        (_score(" \n"), "answer", BLANK),
        (_score("x" * 2_001), "answer", "2001 bytes of text; shorten it, 2000 bytes is the limit"),
        (_score("é" * 1_001), "answer", "2002 bytes of text; shorten it, 2000 bytes is the limit"),
        (_score("ok", prompt="x" * 2_001), "conversation", "2001 bytes of text; shorten it, 2000 bytes is the limit"),
        (_score("ok", prompt=" "), "conversation.turns", "add a user turn with text that is not blank"),
        (scorer_pb2.ScoreAnswerRequest(answer="ok"), "conversation.turns", "add at least one turn"),
        (_rank(), "answers", "0 answers; give at least 2 to compare"),
        (_rank("one"), "answers", "1 answers; give at least 2 to compare"),
        (_rank(*"abcdef"), "answers", "6 answers in one call; give fewer, 5 is the limit"),
        (_rank("one", "\t", "two"), "answers[1]", BLANK),
        (_rank("one", "x" * 2_001), "answers[1]", "2001 bytes of text; shorten it, 2000 bytes is the limit"),
        (_rank("one", "two", prompt=""), "conversation.turns", "add a user turn with text that is not blank"),
    ],
)
async def test_what_cannot_be_judged_is_refused_with_field_and_mend(
    stub: "AsyncStub", ask: Any, field: str, mend: str
) -> None:
    status = await _refusal(stub, ask)
    assert status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [(violation.field, violation.mend) for violation in status.violations] == [(field, mend)]


@pytest.mark.parametrize(
    ("ask", "mend"),
    [
        (_score("ok", scorer="predictor"), "name one of judge, other"),
        (_score("ok", scorer="ranker"), "name one of judge, other"),
        (_rank("one", "two", scorer="judge"), "name one of ranker"),
        (scorer_pb2.ScoreRequest(conversation=_conversation("hello"), scorer="judge"), "name one of predictor"),
    ],
)
async def test_a_scorer_of_another_task_is_a_failed_precondition_that_names_the_right_ones(
    stub: "AsyncStub", ask: Any, mend: str
) -> None:
    status = await _refusal(stub, ask)
    assert (status.code, status.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_TASK")
    [violation] = status.violations
    assert violation.field == "scorer"
    assert violation.mend.endswith(mend)


async def test_an_unknown_scorer_is_not_found(stub: "AsyncStub") -> None:
    status = await _refusal(stub, _score("ok", scorer="nobody"))
    assert (status.code, status.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert "judge, other, predictor, ranker" in status.message


async def test_without_any_scorer_of_the_task_the_error_says_how_to_get_one() -> None:
    with scorer({}) as process:
        async with grpc.aio.insecure_channel(process.grpc) as channel:
            stub: AsyncStub = ScorerServiceStub(channel)
            for ask, kind in ((_score("ok"), "answer"), (_rank("one", "two"), "ranker")):
                status = await _refusal(stub, ask)
                assert status.code is grpc.StatusCode.NOT_FOUND
                assert f"'pointsman train --router {kind}'" in status.message
                assert "SCORER_ARTIFACTS" in status.message


async def test_metrics_count_answers_and_comparisons_apart(folder: Path) -> None:
    served = ",".join(f"{name}={folder / name}" for name in ("judge", "ranker"))
    with scorer({"SCORER_ARTIFACTS": served}) as process:
        async with grpc.aio.insecure_channel(process.grpc) as channel:
            stub: AsyncStub = ScorerServiceStub(channel)
            for answer in ANSWERS:
                await stub.ScoreAnswer(_score(answer), timeout=10)
            await stub.RankAnswers(_rank(*ANSWERS), timeout=10)
            await _refusal(stub, _rank("one"))
            await _refusal(stub, scorer_pb2.ScoreRequest(conversation=_conversation("hello")))

        def total(name: str, *labels: str) -> float:
            return samples(process, name, service="scorer")[labels]

        assert total("answers_total") == 2 * len(ANSWERS) + 1
        assert total("judged_total", "judge") == total("acceptance_probability_count", "judge") == len(ANSWERS)
        assert total("judged_total", "ranker") == 6
        assert total("truncated_total", "judge") == 1
        assert total("truncated_total", "ranker") == 3
        assert total("requests_total", "ScoreAnswer", "OK") == len(ANSWERS)
        assert total("requests_total", "RankAnswers", "OK") == 1
        assert total("requests_total", "RankAnswers", "INVALID_ARGUMENT") == 1
        assert total("requests_total", "Score", "NOT_FOUND") == 1
        assert total("artifact_info", "answer", "judge", open_judge(folder / "judge").artifact.version) == 1
