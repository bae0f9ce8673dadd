"""A real HTTP server that speaks OpenAI chat completions and misbehaves on request.

What it does is the last message: `status 503`, `hang`, `drip`, `cut`, `no usage`, `nonsense`, `error event`, `call a
tool` (whole answers only), or anything else for a normal answer, which is `<model> says: <message>`.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 8,
    "total_tokens": 28,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


@dataclass
class OpenAIServer:
    """Its address, and what it was sent."""

    base_url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    disconnects: int = 0
    delay: float = 0.0
    hanging: frozenset[str] = frozenset()
    """Models that write their words and never end."""
    quotes: bool = False
    """Whether errors quote the prompt's words and the key that came with it, as some servers do."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(part["text"] for part in content)
        await asyncio.sleep(self.delay)
        if match := re.fullmatch(r"status (\d+)", prompt):
            words = f"as you wish: {prompt}"
            if self.quotes:
                words += f"; your key is {request.headers.get('authorization', '')}"
            return web.json_response(
                {"error": {"message": words, "type": "test", "param": None, "code": None}},
                status=int(match[1]),
                headers={"retry-after": "7"} if match[1] == "429" else {},
            )
        if prompt == "nonsense":
            return web.json_response({"hello": "world"})
        if prompt == "hang up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        text = f"{body['model']} says: {prompt}"
        try:
            if body.get("stream"):
                return await self._stream(request, body, prompt, text)
            await asyncio.sleep(60 if prompt == "hang" or body["model"] in self.hanging else 0)
        except (ConnectionResetError, asyncio.CancelledError):
            self.disconnects += 1
            raise
        message: dict[str, Any] = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if prompt == "call a tool":
            call = {"id": "call_0", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return web.json_response(self._envelope(body, "chat.completion", [choice]) | self._usage(prompt))

    async def _stream(self, request: web.Request, body: dict[str, Any], prompt: str, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            chunk = self._envelope(body, "chat.completion.chunk", choices) | more
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

        for word in re.findall(r"\S+\s*", text):
            await send([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
            await asyncio.sleep(0.05 if prompt == "drip" or prompt.startswith("slow") else 0)
        if prompt == "hang" or body["model"] in self.hanging:
            await asyncio.sleep(60)
        if prompt == "drip":
            for _ in range(600):
                await asyncio.sleep(0.1)
                await send([{"index": 0, "delta": {"content": "."}, "finish_reason": None}])
        if prompt == "error event":
            await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
            return response
        if prompt == "cut":
            assert request.transport is not None
            request.transport.abort()
            return response
        await send([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if body.get("stream_options", {}).get("include_usage") and prompt != "no usage":
            await send([], usage=USAGE)
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    def _envelope(body: dict[str, Any], kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "c-1", "object": kind, "created": 1, "model": body["model"], "choices": choices}

    @staticmethod
    def _usage(prompt: str) -> dict[str, Any]:
        return {} if prompt == "no usage" else {"usage": USAGE}


@asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """Serve on a free loopback port as long as the block runs."""
    server = OpenAIServer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextmanager
def openai_server_thread() -> Iterator[OpenAIServer]:
    """The same, on a thread and a loop of its own, for fixtures that outlive one test's loop."""
    ready: list[OpenAIServer] = []
    started = threading.Event()

    async def serve() -> None:
        async with openai_server() as server:
            ready.append(server)
            stop = asyncio.Event()
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    stops: list[Any] = []
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield ready[0]
    finally:
        stops[0]()
        thread.join()
        loop.close()
