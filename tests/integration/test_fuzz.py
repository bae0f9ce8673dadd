"""No request, however wrong, crashes a service, makes it hang, or draws an INTERNAL.

pytest -s tests/integration/test_fuzz.py               2,000 requests
pytest -s -m full tests/integration/test_fuzz.py       20,000 requests
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pointsman.dispatcher.v1 import budget_pb2, chat_pb2, dispatcher_pb2, records_pb2
from pointsman.scorer.v1 import scorer_pb2
from scorer_service.settings import SHIPPED_ARTIFACT
from tests import faults, fuzzing
from tests.answer_artifacts import write_answer, write_ranker
from tests.dispatchers import Caller, chat
from tests.processes import SCORER_PORTS, ServiceProcess

SECONDS = 20.0
"""For one request; the upstream answers at once, so that more is a hang."""
CHATTING = (dispatcher_pb2.CompleteRequest, dispatcher_pb2.StreamCompleteRequest, dispatcher_pb2.RouteRequest)


DISPATCHER = (dispatcher_pb2, records_pb2, budget_pb2)
SCORER = (scorer_pb2,)
NEVER = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "CANCELLED"}


def methods(modules: tuple[Any, ...]) -> dict[type[Message], tuple[str, bool]]:
    """Path and whether it streams, by request type, of every method of every service of some protos."""
    found = {}
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                found[GetMessageClass(method.input_type)] = path, method.server_streaming
    return found


def scorer_seeds() -> list[Message]:
    """Good requests to the scorer."""
    turns = [
        scorer_pb2.Turn(role=scorer_pb2.ROLE_SYSTEM, text="Be brief."),
        scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text="What is a noble gas?"),
    ]
    one = scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=turns))
    answer = "A gas that does not react. The answer is neon, 1 + 1 = 2."
    return [
        one,
        scorer_pb2.BatchScoreRequest(requests=[one, one]),
        scorer_pb2.ScoreAnswerRequest(conversation=one.conversation, answer=answer),
        scorer_pb2.RankAnswersRequest(conversation=one.conversation, answers=[answer, "Neon.", "I cannot say."]),
        scorer_pb2.ListScorersRequest(),
    ]


def dispatcher_seeds() -> list[Message]:
    """Good requests that use every field of the chat surface."""
    full = chat("What is a noble gas?")
    full.messages.insert(
        0, chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=[chat_pb2.ContentPart(text="Be brief")])
    )
    full.messages.extend(
        [
            chat_pb2.Message(
                role=chat_pb2.ROLE_ASSISTANT,
                tool_calls=[chat_pb2.ToolCall(id="c1", name="look_up", arguments_json='{"gas": "neon"}')],
            ),
            chat_pb2.Message(role=chat_pb2.ROLE_TOOL, content=[chat_pb2.ContentPart(text="inert")], tool_call_id="c1"),
        ]
    )
    full.temperature, full.top_p, full.max_tokens, full.seed, full.n = 0.5, 0.9, 100, 7, 2
    full.stop.append("\n\n")
    full.logit_bias[50256] = -100
    full.logprobs, full.top_logprobs = True, 2
    full.tools.add(name="look_up", description="Looks up.", parameters_json='{"type": "object"}', strict=True)
    full.tool_choice.function = "look_up"
    full.response_format.json_schema.name = "answer"
    full.response_format.json_schema.schema_json = '{"type": "object"}'
    full.metadata["k"] = "v"
    full.extra_body_json = '{"top_k": 5}'
    plain = chat("hello")
    chats: list[Any] = [kind(chat=conversation) for kind in CHATTING for conversation in (full, plain)]
    for request in chats:
        if not isinstance(request, dispatcher_pb2.RouteRequest):
            request.labels["team"] = "search"
    named: list[Message] = [kind() for kind in methods(DISPATCHER) if kind not in CHATTING]
    for request in named:
        for field in request.DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
                setattr(request, field.name, "alone" if field.name == "tenant_id" else "r-1")
    return chats + named


@dataclass(frozen=True, slots=True)
class Target:
    """A service to send requests to; the first seed is answered OK."""

    process: ServiceProcess
    modules: tuple[Any, ...]
    seeds: list[Message]


async def _fuzz(target: Target, seed: int, count: int) -> Counter[str]:
    ended = Counter[str]()
    work = fuzzing.requests(seed, count, target.seeds)
    async with Caller(target.process.grpc, "alone") as caller:
        paths = methods(target.modules)

        async def send(kind: type[Message], data: bytes) -> str:
            # The bytes as they are: what is no message must be refused by the server.
            path, streams = paths[kind]
            channel: Any = caller.channel
            try:
                if streams:
                    async for _ in channel.unary_stream(path)(data, metadata=caller.metadata, timeout=SECONDS):
                        pass
                else:
                    await channel.unary_unary(path)(data, metadata=caller.metadata, timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                status = str(error.code().name)
                if status in NEVER:
                    pytest.fail(f"seed {seed}: {path} {data!r}: {status}: {error.details()}")
                return status
            return "OK"

        async def worker() -> None:
            for kind, data in work:
                ended[await send(kind, data)] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(worker())
        good = target.seeds[0]
        assert await send(type(good), good.SerializeToString()) == "OK", "it answers as before"
    return ended


@pytest.fixture(scope="module")
def dispatcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with (
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(tmp_path_factory.mktemp("fuzz"), upstream) as process,
    ):
        yield Target(process.wait_until_serving(), DISPATCHER, dispatcher_seeds())


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("artifacts")
    judges = {"judge": write_answer(folder / "judge"), "ranker": write_ranker(folder / "ranker")}
    served = {"default": SHIPPED_ARTIFACT, **judges}
    settings = {"SCORER_ARTIFACTS": ",".join(f"{name}={directory}" for name, directory in served.items())}
    with ServiceProcess("scorer_service", env={**SCORER_PORTS, **settings}) as process:
        yield Target(process.wait_until_serving(), SCORER, scorer_seeds())


def _check(target: Target, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("POINTSMAN_FUZZ_SEED", "20261124"))
    started = time.monotonic()
    ended = asyncio.run(_fuzz(target, seed, count))
    seconds = time.monotonic() - started
    with capsys.disabled():
        statuses = ", ".join(f"{status} {number}" for status, number in ended.most_common())
        print(f"\nfuzz: {count} requests in {seconds:.1f} s, seed {seed}: {statuses}")  # noqa: T201
    assert sum(ended.values()) == count
    assert ended["OK"] > count / 20, "a good part is accepted, or nothing behind the checks is tested"
    assert target.process.returncode is None
    wrong = [line for line in target.process.stderr if "internal error" in line or "Traceback" in line]
    assert not wrong, wrong[0]


def test_no_request_crashes_the_dispatcher_or_draws_an_internal_error(
    dispatcher: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(dispatcher, 2_000, capsys)
    assert set(faults.samples(dispatcher.process, "requests_in_flight").values()) == {0.0}


def test_no_request_crashes_the_scorer_or_draws_an_internal_error(
    scorer: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(scorer, 1_000, capsys)


@pytest.mark.full
def test_no_request_of_many_does(dispatcher: Target, scorer: Target, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (dispatcher, scorer):
        _check(target, 20_000, capsys)
