"""The gRPC face of what is kept of requests: looking back, feedback, and forgetting. A tenant reaches its own only."""

from collections.abc import Callable
from typing import Any

from dispatcher_service import scorers
from dispatcher_service.auth import Authenticator
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.chat_translation import number
from dispatcher_service.edge import Edge
from dispatcher_service.errors import InvalidRequest, NotFound
from dispatcher_service.metrics import Metrics
from dispatcher_service.records import messages
from dispatcher_service.records.explaining import explain
from dispatcher_service.records.recorder import Recorder
from dispatcher_service.records.store import RecordStore
from dispatcher_service.tracing import Tracing
from dispatcher_service.translation import read_identifier
from pointsman.dispatcher.v1 import decision_pb2, records_pb2, records_pb2_grpc

SERVICE = records_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name


Told = Callable[[str, str, float], None]
"""Called once per feedback with the name of the tenant's scorer, the kind (see `metrics.OPINIONS`), and what it says of
the answer, from 0 to 1."""

_OPINIONS = {
    decision_pb2.PREFERENCE_CHOSEN: 1.0,
    decision_pb2.PREFERENCE_TIE: 0.5,
    decision_pb2.PREFERENCE_OTHER: 0.0,
}


class RecordServicer(records_pb2_grpc.RecordServiceServicer):
    """Implements `pointsman.dispatcher.v1.RecordService`."""

    def __init__(
        self,
        *,
        store: RecordStore,
        recorder: Recorder,
        auth: Authenticator,
        catalogue: Callable[[], Catalogue],
        metrics: Metrics,
        tracing: Tracing,
        told: Told,
        wall_clock: Callable[[], float],
    ) -> None:
        """`wall_clock` gives seconds since the epoch."""
        self._store = store
        self._recorder = recorder
        self._auth = auth
        self._catalogue = catalogue
        self._told = told
        self._wall_clock = wall_clock
        self._edge = Edge(SERVICE, metrics=metrics, tracing=tracing)

    async def GetDecision(
        self, request: records_pb2.GetDecisionRequest, context: Any
    ) -> records_pb2.GetDecisionResponse:
        """See the proto."""
        return await self._edge.run("GetDecision", context, self._get_decision(request, context))

    async def RecordFeedback(
        self, request: records_pb2.RecordFeedbackRequest, context: Any
    ) -> records_pb2.RecordFeedbackResponse:
        """See the proto."""
        return await self._edge.run("RecordFeedback", context, self._record_feedback(request, context))

    async def EraseConversation(
        self, request: records_pb2.EraseConversationRequest, context: Any
    ) -> records_pb2.EraseConversationResponse:
        """See the proto."""
        return await self._edge.run("EraseConversation", context, self._erase_conversation(request, context))

    async def EraseTenant(
        self, request: records_pb2.EraseTenantRequest, context: Any
    ) -> records_pb2.EraseTenantResponse:
        """See the proto."""
        return await self._edge.run("EraseTenant", context, self._erase_tenant(request, context))

    async def _get_decision(
        self, proto: records_pb2.GetDecisionRequest, context: Any
    ) -> records_pb2.GetDecisionResponse:
        record = await self._find(await self._tenant(context), _required("request_id", proto.request_id))
        return records_pb2.GetDecisionResponse(record=record, explanation=explain(record))

    async def _record_feedback(
        self, proto: records_pb2.RecordFeedbackRequest, context: Any
    ) -> records_pb2.RecordFeedbackResponse:
        tenant_id = await self._tenant(context)
        feedback = _feedback(proto, tenant_id)
        feedback.recorded_at.CopyFrom(messages.timestamp(self._wall_clock()))
        if self._store.retention > 0:
            await self._find(tenant_id, feedback.request_id)
            policy = self._catalogue().tenants[tenant_id]
            lifetime = max(self._store.retention, policy.text_ttl if policy.log_text else 0)
            await self._store.put_feedback(feedback, lifetime=lifetime)
        self._recorder.feedback(feedback)
        self._tell(feedback)
        return records_pb2.RecordFeedbackResponse(feedback=feedback)

    def _tell(self, feedback: messages.Feedback) -> None:
        scorer = scorers.assigned(feedback.tenant_id, self._catalogue().scorer)
        kind = feedback.WhichOneof("opinion")
        value = feedback.rating if kind == "rating" else _OPINIONS[feedback.preference]
        self._told(scorer, str(kind), value)

    async def _erase_conversation(
        self, proto: records_pb2.EraseConversationRequest, context: Any
    ) -> records_pb2.EraseConversationResponse:
        conversation_id = _required("conversation_id", proto.conversation_id)
        erased = await self._store.erase_conversation(
            await self._tenant(context), conversation_id, now=self._wall_clock()
        )
        return records_pb2.EraseConversationResponse(erased_items=erased)

    async def _erase_tenant(
        self, proto: records_pb2.EraseTenantRequest, context: Any
    ) -> records_pb2.EraseTenantResponse:
        principal = await self._auth.authenticate(context)
        tenant_id = proto.tenant_id or principal.tenant()
        if tenant_id != principal.tenant_id:
            principal.require_admin()
        erased = await self._store.erase_tenant(tenant_id, now=self._wall_clock())
        return records_pb2.EraseTenantResponse(erased_items=erased)

    async def _find(self, tenant_id: str, request_id: str) -> messages.Record:
        record = self._recorder.pending(tenant_id, request_id) or await self._store.get(tenant_id, request_id)
        if record is None:
            raise NotFound("request_id: this tenant has no such request, or its record is not kept any more")
        return record

    async def _tenant(self, context: Any) -> str:
        return (await self._auth.authenticate(context)).tenant()


def _required(field: str, text: str) -> str:
    if not text:
        raise InvalidRequest(field, "missing: set it")
    return read_identifier(field, text)


def _feedback(proto: records_pb2.RecordFeedbackRequest, tenant_id: str) -> messages.Feedback:
    feedback = messages.Feedback(
        kind=decision_pb2.RECORD_KIND_FEEDBACK,
        request_id=_required("request_id", proto.request_id),
        tenant_id=tenant_id,
    )
    if proto.HasField("rating"):
        feedback.rating = number("rating", proto.rating, 0, 1)
    elif proto.preference in decision_pb2.Preference.values() and proto.preference != 0:
        feedback.preference = proto.preference
    else:
        raise InvalidRequest("rating", "set rating, or preference to CHOSEN, OTHER or TIE")
    return feedback
