"""The gRPC face of the dispatcher: protos in, protos out, errors as rich statuses."""

import contextlib
from typing import Any

from dispatcher_service import rendering, translation
from dispatcher_service.admission import Admission
from dispatcher_service.answer import Delta
from dispatcher_service.auth import Authenticator
from dispatcher_service.chat import Request
from dispatcher_service.dispatch import Broken, Started
from dispatcher_service.edge import Edge
from dispatcher_service.layers import Dispatching
from dispatcher_service.metrics import Metrics
from dispatcher_service.strategies import Replaced
from dispatcher_service.tracing import Tracing
from pointsman.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc

SERVICE = dispatcher_pb2.DESCRIPTOR.services_by_name["DispatcherService"].full_name


class DispatcherServicer(dispatcher_pb2_grpc.DispatcherServiceServicer):
    """Implements `pointsman.dispatcher.v1.DispatcherService`."""

    def __init__(
        self,
        *,
        dispatcher: Dispatching,
        auth: Authenticator,
        admission: Admission,
        metrics: Metrics,
        max_conversation_bytes: int,
        tracing: Tracing,
    ) -> None:
        self._dispatcher = dispatcher
        self._auth = auth
        self._admission = admission
        self._max_conversation_bytes = max_conversation_bytes
        self._edge = Edge(SERVICE, metrics=metrics, tracing=tracing)

    async def Complete(self, request: dispatcher_pb2.CompleteRequest, context: Any) -> dispatcher_pb2.CompleteResponse:
        """See the proto."""
        return await self._edge.run("Complete", context, self._complete(request, context))

    async def StreamComplete(  # type: ignore[override]  # grpc.aio takes writers too, the stubs know iterators only
        self, request: dispatcher_pb2.StreamCompleteRequest, context: Any
    ) -> None:
        """See the proto. It writes instead of yielding, so that a cancelled call unwinds at once and not at GC."""
        await self._edge.run("StreamComplete", context, self._stream(request, context))

    async def Route(self, request: dispatcher_pb2.RouteRequest, context: Any) -> dispatcher_pb2.RouteResponse:
        """See the proto."""
        return await self._edge.run("Route", context, self._route(request, context))

    async def _complete(self, proto: dispatcher_pb2.CompleteRequest, context: Any) -> dispatcher_pb2.CompleteResponse:
        tenant_id = await self._tenant(context)
        async with self._admission.call(tenant_id, context):
            request = self._read(proto, context, tenant_id)
            answer = await self._dispatcher.complete(request)
        return dispatcher_pb2.CompleteResponse(
            request_id=request.request_id,
            decision=rendering.decision(answer.choice, answer.bill),
            choices=[rendering.answer(choice) for choice in answer.completion.choices],
            usage=rendering.usage(answer.bill.usage),
            origin=rendering.origin(answer.completion.origin),
            idempotency=rendering.idempotency(answer.idempotency),
        )

    async def _stream(self, proto: dispatcher_pb2.StreamCompleteRequest, context: Any) -> None:
        tenant_id = await self._tenant(context)
        async with self._admission.call(tenant_id, context):
            request = self._read(proto, context, tenant_id)
            async with contextlib.aclosing(self._dispatcher.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        response = rendering.delta(event)
                    elif isinstance(event, Started):
                        response = dispatcher_pb2.StreamCompleteResponse(
                            started=dispatcher_pb2.StreamStarted(
                                request_id=request.request_id,
                                decision=rendering.decision(event.choice, None),
                                idempotency=rendering.idempotency(event.idempotency),
                            )
                        )
                    elif isinstance(event, Replaced):
                        response = dispatcher_pb2.StreamCompleteResponse(
                            replaced=dispatcher_pb2.StreamReplaced(decision=rendering.decision(event.choice, None))
                        )
                    elif isinstance(event, Broken):
                        response = dispatcher_pb2.StreamCompleteResponse(
                            failed=dispatcher_pb2.StreamFailed(
                                reason=event.error.reason,
                                usage=None if event.bill is None else rendering.usage(event.bill.usage),
                                decision=rendering.decision(event.choice, event.bill),
                            )
                        )
                    else:
                        response = dispatcher_pb2.StreamCompleteResponse(
                            finished=dispatcher_pb2.StreamFinished(
                                finish_reasons=rendering.finish_reasons(event.end.finish_reasons),
                                usage=rendering.usage(event.bill.usage),
                                decision=rendering.decision(event.choice, event.bill),
                                origin=rendering.origin(event.end.origin),
                                upstream_finish_reasons=event.end.upstream_finish_reasons,
                                idempotency=rendering.idempotency(event.idempotency),
                            )
                        )
                    await context.write(response)

    async def _route(self, proto: dispatcher_pb2.RouteRequest, context: Any) -> dispatcher_pb2.RouteResponse:
        tenant_id = await self._tenant(context)
        async with self._admission.call(tenant_id, context):
            choice = await self._dispatcher.route(self._read(proto, context, tenant_id))
        return dispatcher_pb2.RouteResponse(decision=rendering.decision(choice, None))

    async def _tenant(self, context: Any) -> str:
        """On whose account the call is."""
        return (await self._auth.authenticate(context)).tenant()

    def _read(self, proto: translation.AnyRequest, context: Any, tenant_id: str) -> Request:
        return translation.read_request(
            proto,
            tenant_id=tenant_id,
            timeout=context.time_remaining(),
            max_conversation_bytes=self._max_conversation_bytes,
        )
