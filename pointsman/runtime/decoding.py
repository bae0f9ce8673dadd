"""Bytes that are no message of the method's type are the caller's mistake: INVALID_ARGUMENT.

grpc.aio itself answers UNKNOWN with the decoder's own words, and logs a traceback for each.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from pointsman.runtime.status import RichStatus

_REFUSAL: Final = RichStatus(
    code=grpc.StatusCode.INVALID_ARGUMENT,
    message="the request is no protobuf message of this method's type: regenerate the client from the contract",
    reason="INVALID_REQUEST",
)


class _Undecodable:
    """In place of a request that could not be read."""


_UNDECODABLE: Final = _Undecodable()


class StrictServer:
    """Stands before a server while services are added to it, and wraps their unary-request methods."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See `grpc.aio.Server`."""
        self._server.add_generic_rpc_handlers(tuple(_StrictHandler(handler) for handler in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """grpc.aio has no use for it."""


class _StrictHandler(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner
        self._wrapped: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = self._inner.service(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        # Methods are few and closed: a name without a handler is not kept.
        name = str(handler_call_details.method)
        if name not in self._wrapped:
            self._wrapped[name] = _wrap(handler)
        return self._wrapped[name]


def _wrap(handler: Any) -> Any:
    read = handler.request_deserializer

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _UNDECODABLE

    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
    return make(_refusing(behaviour), deserialize, handler.response_serializer)


def _refusing(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(behaviour):

        async def iterate(request: Any, context: Any) -> Any:
            if request is _UNDECODABLE:
                await context.abort_with_status(_REFUSAL.to_grpc())
            async for response in behaviour(request, context):
                yield response

        return iterate

    async def call(request: Any, context: Any) -> Any:
        if request is _UNDECODABLE:
            await context.abort_with_status(_REFUSAL.to_grpc())
        return await cast("Awaitable[Any]", behaviour(request, context))

    return call
