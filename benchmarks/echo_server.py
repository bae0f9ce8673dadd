"""A bare grpc.aio server that answers any unary call with the bytes it was sent: the floor for a Python service.

    python -m benchmarks.echo_server

Prints `host:port` and serves until it is terminated.
"""

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(_echo)


async def _echo(request: bytes, context: Any) -> bytes:
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve()))
