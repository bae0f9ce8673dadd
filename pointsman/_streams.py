"""What a streamed answer has come to: kept alike by both clients, which differ in how they read."""

from pointsman import _translation as translation
from pointsman._calls import broken_stream
from pointsman.dispatcher.v1 import chat_pb2, dispatcher_pb2
from pointsman.enums import (
    FinishReason,
)
from pointsman.values import (
    Usage,
)


class StreamState:
    """An answer that is being written.

    Attributes:
        request_id: the caller's, or the one that the dispatcher made.
        decision: who answers; after the last piece, or when the answer broke off, the same decision with its costs.
        text: what has been written of the first choice; empty again when another model's answer begins.
        replacements: how often that happened. It does only where the request accepts it.
        finish_reason: why the model stopped, after the last piece.
        usage: tokens used, after the last piece or when the answer broke off.
    """

    def __init__(self, first: object) -> None:
        """From the first event.

        Raises:
            PointsmanCallError: it is not how a stream begins.
        """
        if not isinstance(first, dispatcher_pb2.StreamCompleteResponse) or not first.HasField("started"):
            raise broken_stream("began without a decision")
        self.request_id = first.started.request_id
        self.decision = translation.decision(first.started.decision)
        self.text = ""
        self.replacements = 0
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None

    def take(self, event: dispatcher_pb2.StreamCompleteResponse) -> str:
        """Note an event; returns the text that it adds to the first choice, which may be none."""
        if event.HasField("delta"):
            # Other choices, and pieces of tool calls, are in the events and in the answer of `complete`.
            piece = event.delta.content if event.delta.index == 0 else ""
            self.text += piece
            return piece
        if event.HasField("replaced"):
            self.decision = translation.decision(event.replaced.decision)
            self.text = ""
            self.replacements += 1
        if event.HasField("failed"):  # its error comes next
            self.decision = translation.decision(event.failed.decision)
            self.usage = translation.usage(event.failed.usage) if event.failed.HasField("usage") else None
        if event.HasField("finished"):
            self.decision = translation.decision(event.finished.decision)
            self.usage = translation.usage(event.finished.usage)
            ends = event.finished.finish_reasons or [chat_pb2.FINISH_REASON_UNSPECIFIED]
            self.finish_reason = translation.finish_reason(ends[0])
        return ""
