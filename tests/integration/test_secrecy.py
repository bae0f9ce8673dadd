"""A planted key and a planted prompt are looked for wherever the processes leave something behind.

Every way a call can go is gone: answers, streams, refusals, failures of the upstream that quote what they were sent,
a caller who leaves, a scorer that is away. Then logs, metrics, traces, errors, decision log and the ledger's store
are searched byte by byte.
"""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
import redis.asyncio

from dispatcher_service.api_keys import new_key
from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2, records_pb2
from tests.dispatchers import Caller, start_dispatcher
from tests.identities import key_line
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.otlp_receiver import OtlpReceiver, attributes, otlp_receiver
from tests.processes import SCORER_PORTS, ServiceProcess, eventually
from tests.valkey import ValkeyServer

UPSTREAM_KEY = "sk-" + "canaryUpstreamKey0123456789"
QUIET, KEPT, WRONG = new_key(), new_key(), new_key()
PROMPT = "the canary sings at quarter past zanzibar"
KEY_IN_PROMPT = "sk-" + "canaryInPrompt9876543210abcdef"
MAIL_IN_PROMPT = "canary.bird@zanzibar.example"
LAST_WORDS = [
    "hello",
    "no usage",
    "status 400",
    "status 401",
    "status 404",
    "status 429",
    "status 500",
    "nonsense",
    "hang up",
    "call a tool",
    "cut",
    "error event",
]


@dataclass
class Bench:
    """What runs, and what callers were told."""

    dispatcher: ServiceProcess
    scorer: ServiceProcess
    receiver: OtlpReceiver
    folder: Path
    stored: Callable[[], Awaitable[bytes]]
    errors: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    def scrape(self) -> None:
        for process in (self.dispatcher, self.scorer):
            if process.returncode is None:
                with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
                    self.metrics.append(response.read().decode())

    async def places(self) -> dict[str, bytes]:
        """Everything that was left behind, by place."""
        return {
            "dispatcher's log": "\n".join(self.dispatcher.stderr).encode(),
            "scorer's log": "\n".join(self.scorer.stderr).encode(),
            "metrics": "\n".join(self.metrics).encode(),
            "traces": b"\n".join(self.receiver.raw),
            "errors": "\n".join(self.errors).encode(),
            "decision log": (self.folder / "decisions.jsonl").read_bytes(),
            "ledger": await self.stored(),
        }


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        server.quotes = True
        yield server


@asynccontextmanager
async def _ledger(kind: str, folder: Path) -> AsyncIterator[tuple[str, Callable[[], Awaitable[bytes]]]]:
    """A ledger's URL, and a function that reads all that is stored there."""
    if kind == "sqlite":

        async def read_files() -> bytes:
            return _files(folder, "ledger.db*")

        yield f"sqlite:{folder / 'ledger.db'}", read_files
        return
    server = ValkeyServer(folder)

    async def read_keys() -> bytes:
        client = redis.asyncio.Redis.from_url(server.url)
        found = b""
        async for key in client.scan_iter():
            found += key
            kind_ = await client.type(key)
            if kind_ == b"hash":
                for pair in (await client.hgetall(key)).items():
                    found += b"".join(part for part in pair if isinstance(part, bytes))
            elif kind_ == b"string":
                found += await client.get(key) or b""
        await client.aclose()
        return found + _files(folder, "*.aof") + _files(folder, "valkey.log")

    try:
        server.start()
        yield server.url, read_keys
    finally:
        server.kill()


def _files(folder: Path, pattern: str) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob(pattern) if path.is_file())


def _chat(last: str) -> chat_pb2.Chat:
    def text(words: str) -> list[chat_pb2.ContentPart]:
        return [chat_pb2.ContentPart(text=words)]

    secrets = f"{PROMPT}; my key is {KEY_IN_PROMPT}, write to {MAIL_IN_PROMPT}"
    return chat_pb2.Chat(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content=text(secrets)),
            chat_pb2.Message(role=chat_pb2.ROLE_USER, content=text(last)),
        ]
    )


async def _go_every_way(bench: Bench, address: str) -> None:
    for key in (QUIET, KEPT):
        async with Caller(address, credential=key.text) as caller:
            for last in LAST_WORDS:
                for alpha in (0.0, 1.0):
                    request = dispatcher_pb2.CompleteRequest(chat=_chat(last), alpha=alpha, conversation_id="c")
                    await _told(bench, caller.stub.Complete(request, metadata=caller.metadata, timeout=10))
                streamed = dispatcher_pb2.StreamCompleteRequest(chat=_chat(last))
                await _told(bench, _read(caller.stub.StreamComplete(streamed, metadata=caller.metadata, timeout=10)))
            leaving = caller.stub.StreamComplete(
                dispatcher_pb2.StreamCompleteRequest(chat=_chat("drip")), metadata=caller.metadata, timeout=10
            )
            await _told(bench, leaving.read())  # a busy machine may be refused here
            leaving.cancel()
            late = dispatcher_pb2.CompleteRequest(chat=_chat("hang"))
            await _told(bench, caller.stub.Complete(late, metadata=caller.metadata, timeout=0.3))
            bad = _chat("hello")
            bad.temperature = 99
            await _told(
                bench,
                caller.stub.Complete(
                    dispatcher_pb2.CompleteRequest(chat=bad, request_id="x" * 200), metadata=caller.metadata, timeout=10
                ),
            )
    for credential in (WRONG.text, KEY_IN_PROMPT):
        async with Caller(address, credential=credential) as caller:
            request = dispatcher_pb2.CompleteRequest(chat=_chat("hello"))
            await _told(bench, caller.stub.Complete(request, metadata=caller.metadata, timeout=10))


async def _told(bench: Bench, call: Awaitable[object]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        bench.errors.append(f"{error.details()} {error.debug_error_string()} {error.trailing_metadata()}")


async def _read(call: grpc.aio.UnaryStreamCall) -> None:  # type: ignore[type-arg]
    async for _ in call:
        pass


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_no_key_and_no_prompt_is_left_behind(kind: str, upstream: OpenAIServer, tmp_path: Path) -> None:
    with (
        otlp_receiver() as receiver,
        ServiceProcess("scorer_service", env={**SCORER_PORTS, "SCORER_LOG_LEVEL": "debug"}) as scorer,
    ):
        async with _ledger(kind, tmp_path) as (url, stored):
            starting = start_dispatcher(
                tmp_path,
                scorer=scorer.wait_until_serving().grpc,
                upstream=upstream.base_url,
                tenants={
                    "default": f"api_keys = [{key_line(QUIET)}]",
                    "fixed": f"api_keys = [{key_line(KEPT)}]\nlog_text = true\nallow_alpha_override = true",
                },
                # A breaker would keep later calls from the upstream.
                deployments='api_key_env = "CANARY_KEY"\nbreaker_failures = 1000',
                more="[retries]\ntries = 1\n",
                environment={
                    **receiver.environment(),
                    "CANARY_KEY": UPSTREAM_KEY,
                    "DISPATCHER_LEDGER": url,
                    "DISPATCHER_TRACING": "otlp",
                    "DISPATCHER_LOG_LEVEL": "debug",
                },
            )
            with starting as dispatcher:
                address = dispatcher.wait_until_serving().grpc
                bench = Bench(dispatcher, scorer, receiver, tmp_path, stored)
                await _go_every_way(bench, address)
                bench.scrape()
                scorer.kill()
                await _go_every_way(bench, address)
                bench.scrape()
                assert dispatcher.stop() == 0
            places = await bench.places()

            assert UPSTREAM_KEY in upstream.headers[-1]["authorization"]  # it was there to be seen
            secrets = [UPSTREAM_KEY, QUIET.text, KEPT.text, WRONG.text, KEY_IN_PROMPT, MAIL_IN_PROMPT]
            for secret in secrets:
                leaks = [place for place, content in places.items() if secret.encode() in content]
                assert leaks == [], f"{secret} is in {leaks}"
            # The tenant that has opted in has its redacted prompts in the ledger's documents, and nowhere else.
            leaks = [place for place, content in places.items() if PROMPT.encode() in content]
            assert leaks == ["ledger"]
            assert b"my key is [key], write to [email]" in places["ledger"]
            assert len(bench.errors) > 60
            assert all(len(content) > 0 for content in places.values())
            names = {span.name for span in receiver.spans}
            assert "pointsman.dispatcher.v1.DispatcherService/Complete" in names
            assert all(
                PROMPT not in str(value) for span in receiver.spans for value in attributes(span.attributes).values()
            )


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_tenant_that_has_not_opted_in_leaves_no_prompt_in_the_store(
    kind: str, upstream: OpenAIServer, tmp_path: Path
) -> None:
    async with _ledger(kind, tmp_path) as (url, stored):
        starting = start_dispatcher(
            tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url, environment={"DISPATCHER_LEDGER": url}
        )
        with starting as dispatcher:
            async with Caller(dispatcher.wait_until_serving().grpc) as caller:
                request = dispatcher_pb2.CompleteRequest(chat=_chat("hello"), conversation_id="c")
                answer = await caller.stub.Complete(request, metadata=caller.metadata, timeout=10)
                for _ in eventually():
                    await asyncio.sleep(0.02)
                    found = await stored()
                    # Its conversation names it too, and is there before its record.
                    if found.count(answer.request_id.encode()) >= 2:
                        break
                assert PROMPT.encode() not in found
                gone = await caller.records.EraseTenant(
                    records_pb2.EraseTenantRequest(), metadata=caller.metadata, timeout=10
                )
                assert gone.erased_items >= 2  # its conversation and its record
            assert dispatcher.stop() == 0


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_erased_prompt_is_in_no_file_any_more(kind: str, upstream: OpenAIServer, tmp_path: Path) -> None:
    async with _ledger(kind, tmp_path) as (url, stored):
        starting = start_dispatcher(
            tmp_path,
            scorer="127.0.0.1:1",
            upstream=upstream.base_url,
            tenants={"default": "log_text = true"},
            environment={"DISPATCHER_LEDGER": url},
        )
        with starting as dispatcher:
            async with Caller(dispatcher.wait_until_serving().grpc) as caller:
                request = dispatcher_pb2.CompleteRequest(chat=_chat("hello"), conversation_id="c")
                await caller.stub.Complete(request, metadata=caller.metadata, timeout=10)
                await _until(stored, holds=True)
                await caller.records.EraseConversation(
                    records_pb2.EraseConversationRequest(conversation_id="c"), metadata=caller.metadata, timeout=10
                )
            if kind == "redis":
                # A server's append-only file forgets when it is rewritten, as docs/records.md says.
                client = redis.asyncio.Redis.from_url(url)
                await client.bgrewriteaof()
                await client.aclose()
            await _until(stored, holds=False)


async def _until(stored: Callable[[], Awaitable[bytes]], *, holds: bool) -> None:
    for _ in range(250):
        if (PROMPT.encode() in await stored()) is holds:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the prompt is {'not ' if holds else ''}there")
