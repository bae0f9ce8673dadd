"""The hops of a dispatcher with nothing between them: gRPC in, `Score`, one HTTP post, gRPC out. The floor for Python.

    python -m benchmarks.bare_server SCORER UPSTREAM

No credential, limit, budget, ledger, retry, decision log or metric, and no answer is checked. Prints `host:port` and
serves `Complete` and `StreamComplete` until it is terminated.
"""

import asyncio
import json
import sys
from typing import Any

import aiohttp
import grpc
import grpc.aio

from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc

_ALPHA = 0.5
_HEADERS = {"content-type": "application/json"}


class _Bare(grpc.GenericRpcHandler):
    def __init__(self, scorer: Any, session: aiohttp.ClientSession, url: str) -> None:
        self._scorer = scorer
        self._session = session
        self._url = url

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        if handler_call_details.method.endswith("/StreamComplete"):
            return grpc.unary_stream_rpc_method_handler(
                self._stream,
                dispatcher_pb2.StreamCompleteRequest.FromString,
                dispatcher_pb2.StreamCompleteResponse.SerializeToString,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._complete,
            dispatcher_pb2.CompleteRequest.FromString,
            dispatcher_pb2.CompleteResponse.SerializeToString,
        )

    async def _complete(self, request: dispatcher_pb2.CompleteRequest, context: Any) -> dispatcher_pb2.CompleteResponse:
        body = await self._body(request.chat, stream=False)
        async with self._session.post(self._url, data=body, headers=_HEADERS) as response:
            answer = json.loads(await response.read())
        content = answer["choices"][0]["message"]["content"]
        return dispatcher_pb2.CompleteResponse(choices=[chat_pb2.Choice(content=content)])

    async def _stream(self, request: dispatcher_pb2.StreamCompleteRequest, context: Any) -> None:
        body = await self._body(request.chat, stream=True)
        async with self._session.post(self._url, data=body, headers=_HEADERS) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    piece = dispatcher_pb2.StreamCompleteResponse()
                    piece.delta.content = choice["delta"].get("content") or ""
                    await context.write(piece)

    async def _body(self, chat: chat_pb2.Chat, *, stream: bool) -> bytes:
        text = chat.messages[-1].content[0].text
        turns = [scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text)]
        scored = await self._scorer.Score(scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=turns)))
        model = "strong" if scored.win_probability >= _ALPHA else "weak"
        return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}).encode()


async def _serve(scorer: str, upstream: str) -> None:
    async with grpc.aio.insecure_channel(scorer) as channel, aiohttp.ClientSession() as session:
        server = grpc.aio.server()
        stub = scorer_pb2_grpc.ScorerServiceStub(channel)
        server.add_generic_rpc_handlers((_Bare(stub, session, f"{upstream}/chat/completions"),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
