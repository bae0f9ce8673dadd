"""An OpenAI-compatible HTTP server that fails in every way that networks and model servers do.

As a process, `python -m tests.faulty_server`, it writes one JSON line with its address to standard error. A deployment
chooses how it behaves by its base URL, `http://HOST:PORT/BEHAVIOUR/v1`; the behaviour `asked` obeys the request's own
`metadata.fault`, so that one configuration serves every case and `ok` can stand beside it as the fallback. Azure's form
of the URL, `/BEHAVIOUR/openai/deployments/NAME/chat/completions`, is served too.

`GET /calls` lists the calls that ended, with monotonic times, which are comparable between the processes of a machine.
"""

import asyncio
import contextlib
import json
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

FAULTS = (
    "rate_limited", "server_error", "bad_request", "unauthorized", "slow_first_token", "stall", "reset", "reset_midway",
    "malformed", "malformed_midway", "error_event", "no_usage", "wrong_content_type", "huge_chunk", "early_close",
)  # fmt: skip
"""Every behaviour but `ok`. `NAME:SECONDS` sets the Retry-After or the silence of those that have one."""

_STATUSES = {
    "rate_limited": 429,
    "server_error": 500,
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "redirect": 307,
}
_MIDWAY = ("stall", "reset_midway", "malformed_midway", "error_event", "early_close")
_TORN = '{"id": "c-1", "choices": [{"ind'
FOREVER = 600.0
RETRY_AFTER = 1.0
HUGE_BYTES = 1_000_000
WORDS = ("One", " two", " three", " four.")
ANSWER = "".join(WORDS)
USAGE: dict[str, Any] = {
    "prompt_tokens": 20,
    "completion_tokens": 8,
    "total_tokens": 28,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


@dataclass
class Call:
    """One call that the server saw. `ended` is `answered`, `broken` (by us) or `gone` (by the caller)."""

    path: str
    fault: str
    user: str
    stream: bool
    headers: dict[str, str]
    started_at: float
    ended: str = ""
    ended_at: float = 0.0


@dataclass
class FaultyServer:
    """The calls so far, and the answers that tests put in for `scripted`."""

    calls: list[Call] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    script: list[dict[str, Any]] = field(default_factory=list)
    """For behaviour `scripted`: the body of the next answer, or the chunks of the next stream."""
    error_headers: dict[str, str] | None = None
    """In place of the headers that errors have by themselves."""
    open: int = 0

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{behaviour}/v1/chat/completions", self.handle)
        app.router.add_post("/{behaviour}/openai/deployments/{name}/chat/completions", self.handle)
        app.router.add_get("/calls", self.list_calls)
        return app

    async def list_calls(self, request: web.Request) -> web.Response:
        """The ended calls, the newest last, and how many began; `?user=` selects."""
        user = request.query.get("user")
        begun = [call for call in self.calls if user in (None, call.user)]
        ended = [asdict(call) for call in begun if call.ended]
        return web.json_response({"open": self.open, "begun": len(begun), "calls": ended})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        behaviour = request.match_info["behaviour"]
        if behaviour == "asked":
            behaviour = (body.get("metadata") or {}).get("fault", "ok")
        fault, _, seconds = behaviour.partition(":")
        call = Call(
            path=request.path_qs,
            fault=fault,
            user=body.get("user", ""),
            stream=bool(body.get("stream")),
            headers={name.lower(): value for name, value in request.headers.items()},
            started_at=time.monotonic(),
        )
        # A soak makes many: what is kept is bounded.
        del self.calls[:-5_000], self.bodies[:-5_000]
        self.calls.append(call)
        self.bodies.append(body)
        self.open += 1
        try:
            response = await _Exchange(request, body, fault, float(seconds or 0), self).run()
            call.ended = "broken" if fault in ("reset", "reset_midway", "early_close") else "answered"
            return response
        except (ConnectionResetError, asyncio.CancelledError):
            call.ended = "gone"
            raise
        finally:
            call.ended_at = time.monotonic()
            self.open -= 1


class _Exchange:
    """One request and its answer, good or bad."""

    def __init__(
        self, request: web.Request, body: dict[str, Any], fault: str, seconds: float, server: FaultyServer
    ) -> None:
        self._request = request
        self._body = body
        self._fault = fault
        self._seconds = seconds
        self._server = server

    async def run(self) -> web.StreamResponse:
        if self._fault == "slow_500":
            await asyncio.sleep(self._seconds)
            return self._error(500)
        if self._fault in _STATUSES:
            return self._error(_STATUSES[self._fault])
        if self._fault == "reset":
            return self._reset()
        if self._fault == "wrong_content_type":
            return web.Response(text="<html>Please log in to the hotel network.</html>", content_type="text/html")
        if self._fault == "slow_first_token":
            await asyncio.sleep(self._seconds or FOREVER)
        return await (self._stream() if self._body.get("stream") else self._whole())

    def _error(self, status: int) -> web.Response:
        headers = {"retry-after": f"{self._seconds or RETRY_AFTER:g}"} if status == 429 else {}
        if status == 307:
            headers = {"location": "http://127.0.0.1:1/v1/chat/completions"}
        if self._server.error_headers is not None:
            headers = self._server.error_headers
        error = {"message": f"HTTP {status} as asked", "type": "test", "param": None, "code": None}
        return web.json_response({"error": error}, status=status, headers=headers)

    def _reset(self) -> web.Response:
        """Break the connection with RST, as a crashed server or a load balancer does."""
        transport = self._request.transport
        assert transport is not None
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return web.Response()

    async def _whole(self) -> web.StreamResponse:
        if self._fault == "scripted":
            return web.json_response(self._server.script.pop(0))
        content = "x" * HUGE_BYTES if self._fault == "huge_chunk" else ANSWER
        choices = [
            {"index": index, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            for index in range(self._choices)
        ]
        answer = self._envelope("chat.completion", choices)
        if self._fault != "no_usage":
            answer["usage"] = USAGE
        text = json.dumps(answer).encode()
        if self._fault in ("malformed", "malformed_midway"):
            return web.Response(body=text[:-20], content_type="application/json")
        if self._fault not in ("stall", "early_close", "reset_midway"):
            return web.Response(body=text, content_type="application/json")
        # Half of what the header promises.
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(text))})
        await response.prepare(self._request)
        await response.write(text[: len(text) // 2])
        if self._fault == "stall":
            await asyncio.sleep(self._seconds or FOREVER)
        if self._fault == "reset_midway":
            return self._reset()
        assert self._request.transport is not None
        self._request.transport.close()
        return response

    async def _stream(self) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(self._request)

        async def event(data: str) -> None:
            await response.write(f"data: {data}\n\n".encode())

        if self._fault == "malformed":
            await event(_TORN)
            return response
        words = ("x" * HUGE_BYTES,) if self._fault == "huge_chunk" else WORDS
        for number, chunk in enumerate(self._chunks(words)):
            if number == self._choices * 3 and self._fault in _MIDWAY:
                return await self._break_off(response, event)
            await event(json.dumps(chunk))
            await asyncio.sleep(self._seconds if self._fault == "drip" else 0)
        await event("[DONE]")
        return response

    @property
    def _choices(self) -> int:
        return self._body.get("n") or 1

    def _chunks(self, words: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """A whole stream: roles, words, finish reasons, usage."""
        if self._fault == "scripted":
            yield from self._server.script.pop(0)["chunks"]
            return
        for delta, finish in (
            ({"role": "assistant", "content": ""}, None),
            *(({"content": word}, None) for word in words),
            ({}, "stop"),
        ):
            for index in range(self._choices):
                choice = {"index": index, "delta": delta, "finish_reason": finish}
                yield self._envelope("chat.completion.chunk", [choice])
        if (self._body.get("stream_options") or {}).get("include_usage") and self._fault != "no_usage":
            yield self._envelope("chat.completion.chunk", []) | {"usage": USAGE}

    async def _break_off(
        self, response: web.StreamResponse, event: Callable[[str], Awaitable[None]]
    ) -> web.StreamResponse:
        """End a stream after its second word."""
        if self._fault == "stall":
            await asyncio.sleep(self._seconds or FOREVER)
        if self._fault == "malformed_midway":
            await event(_TORN)
        if self._fault == "error_event":
            await event('{"error": {"message": "out of memory", "type": "server_error"}}')
        if self._fault == "reset_midway":
            # What was written must be on its way, or the reset would swallow it.
            await asyncio.sleep(0.05)
            self._reset()
        return response

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "c-1", "object": kind, "created": 1, "model": self._body["model"], "choices": choices}


@contextlib.asynccontextmanager
async def serving(server: FaultyServer) -> AsyncIterator[str]:
    """Serve on a free loopback port as long as the block runs; gives `host:port`."""
    # Without cancellation a handler would not see that the caller went away.
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def serving_in_thread() -> Iterator[tuple[FaultyServer, str]]:
    """The same, on a thread and a loop of its own, for tests that put in answers and look at what was sent."""
    server, stop = FaultyServer(), asyncio.Event()
    addresses: queue.Queue[str] = queue.Queue()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(server) as address:
            addresses.put(address)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield server, addresses.get(timeout=10)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _main() -> None:
    async with serving(FaultyServer()) as address:
        sys.stderr.write(json.dumps({"event": "serving", "http": address}) + "\n")
        sys.stderr.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
