"""Records as the messages that are logged and kept: one definition for the writer and every reader."""

from google.protobuf import json_format, timestamp_pb2

from dispatcher_service import rendering
from dispatcher_service.chat import Chat, Role
from dispatcher_service.outcome import Outcome
from dispatcher_service.records.redaction import Redact
from dispatcher_service.records.shadows import ShadowChoice, ShadowKind
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2

Record = decision_pb2.DecisionRecord
Feedback = decision_pb2.FeedbackRecord

_ROLES = {role: chat_pb2.Role.Value(f"ROLE_{role.name}") for role in Role}
_SHADOWS = {
    ShadowKind.DIAL: decision_pb2.SHADOW_KIND_DIAL,
    ShadowKind.SCORER: decision_pb2.SHADOW_KIND_SCORER,
}


def record(outcome: Outcome, *, trace_id: str) -> Record:
    """The record of a request, without text."""
    request, chat = outcome.request, outcome.request.chat
    return Record(
        kind=decision_pb2.RECORD_KIND_DECISION,
        request_id=request.request_id,
        tenant_id=request.tenant_id,
        conversation_id=request.conversation_id,
        received_at=timestamp(outcome.received_at),
        method=outcome.method,
        status=outcome.status,
        error_reason=outcome.error_reason,
        decision=None if outcome.choice is None else rendering.decision(outcome.choice, outcome.bill),
        deployment="" if outcome.deployment is None else outcome.deployment.name,
        usage=None if outcome.bill is None else rendering.usage(outcome.bill.usage),
        finish_reasons=rendering.finish_reasons(outcome.finish_reasons),
        labels=request.labels,
        total_seconds=outcome.total_seconds,
        scorer_seconds=outcome.scorer_seconds,
        upstream_seconds=outcome.upstream_seconds,
        time_to_first_token_seconds=outcome.first_token_seconds or 0.0,
        message_count=len(chat.messages),
        text_bytes=chat.text_bytes,
        in_tool_loop=chat.in_tool_loop,
        trace_id=trace_id,
        attempts=[rendering.attempt(attempted) for attempted in outcome.attempts],
    )


def add_shadow(logged: Record, shadow: ShadowChoice) -> None:
    """Write a shadow decision into a record."""
    logged.shadows.add(
        kind=_SHADOWS[shadow.kind],
        tier=rendering.TIERS[shadow.decision.tier],
        alpha=shadow.decision.alpha or 0.0,
        win_probability=shadow.decision.win_probability or 0.0,
        scorer=shadow.prediction.scorer,
        scorer_version=shadow.prediction.scorer_version,
        model=shadow.model,
    )


def text(chat: Chat, redact: Redact) -> decision_pb2.RecordedText:
    """What may be kept of a conversation's text. Raises whatever `redact` raises."""
    return decision_pb2.RecordedText(
        messages=[
            decision_pb2.RecordedMessage(role=_ROLES[message.role], text=redact(message.text))
            for message in chat.messages
            if message.text
        ]
    )


def line(logged: Record | Feedback) -> str:
    """A line of the log: proto3 JSON, snake_case keys, no line break."""
    return json_format.MessageToJson(logged, preserving_proto_field_name=True, indent=None)


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """From seconds since the epoch."""
    whole, nanos = divmod(int(seconds * 1e9), 1_000_000_000)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=nanos)
