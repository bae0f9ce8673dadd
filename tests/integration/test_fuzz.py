"""No request, however wrong, crashes the dispatcher, makes it hang, or draws an INTERNAL.

pytest -s tests/integration/test_fuzz.py               2,000 requests
pytest -s -m full tests/integration/test_fuzz.py       20,000 requests
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2
from tests import faults, fuzzing
from tests.dispatchers import Caller, chat
from tests.processes import ServiceProcess

SECONDS = 20.0
"""For one request; the upstream answers at once, so that more is a hang."""
METHODS = {
    dispatcher_pb2.CompleteRequest: "Complete",
    dispatcher_pb2.StreamCompleteRequest: "StreamComplete",
    dispatcher_pb2.RouteRequest: "Route",
}
NEVER = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "CANCELLED"}


def seeds() -> list[Message]:
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
    return [
        kind(chat=conversation, **({} if kind is dispatcher_pb2.RouteRequest else {"labels": {"team": "search"}}))
        for kind in METHODS
        for conversation in (full, plain)
    ]


async def _fuzz(address: str, seed: int, count: int) -> Counter[str]:
    ended = Counter[str]()
    work = fuzzing.requests(seed, count, seeds())
    async with Caller(address, "alone") as caller:
        methods = {kind: f"/pointsman.dispatcher.v1.DispatcherService/{name}" for kind, name in METHODS.items()}

        async def send(kind: type[Message], data: bytes) -> str:
            # The bytes as they are: what is no message must be refused by the server.
            path = methods[kind]
            channel: Any = caller.channel
            try:
                if kind is dispatcher_pb2.StreamCompleteRequest:
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
        answer = await caller.complete("hello")
        assert answer.choices[0].content, "it answers as before"
    return ended


@pytest.fixture(scope="module")
def dispatcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with (
        faults.faulty_upstream() as upstream,
        faults.start_dispatcher(tmp_path_factory.mktemp("fuzz"), upstream) as process,
    ):
        yield process.wait_until_serving()


def _check(dispatcher: ServiceProcess, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("POINTSMAN_FUZZ_SEED", "20261124"))
    started = time.monotonic()
    ended = asyncio.run(_fuzz(dispatcher.grpc, seed, count))
    seconds = time.monotonic() - started
    with capsys.disabled():
        statuses = ", ".join(f"{status} {number}" for status, number in ended.most_common())
        print(f"\nfuzz: {count} requests in {seconds:.1f} s, seed {seed}: {statuses}")  # noqa: T201
    assert sum(ended.values()) == count
    assert ended["OK"] > count / 20, "a good part is accepted, or nothing behind the checks is tested"
    assert dispatcher.returncode is None
    wrong = [line for line in dispatcher.stderr if "internal error" in line or "Traceback" in line]
    assert not wrong, wrong[0]
    assert set(faults.samples(dispatcher, "requests_in_flight").values()) == {0.0}


def test_no_request_crashes_the_dispatcher_or_draws_an_internal_error(
    dispatcher: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(dispatcher, 2_000, capsys)


@pytest.mark.full
def test_no_request_of_many_does(dispatcher: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> None:
    _check(dispatcher, 20_000, capsys)
