"""Lines of the decision log: proto3 JSON as protobuf's own library writes it."""

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dispatcher_service.records import proto_json
from pointsman.dispatcher.v1 import chat_pb2, decision_pb2
from tests import fuzzing


@pytest.mark.parametrize("kind", [decision_pb2.DecisionRecord, decision_pb2.FeedbackRecord])
def test_records_are_written_as_protobufs_own_library_writes_them(kind: type[Message]) -> None:
    filled = set()
    for seed in range(300):
        record = fuzzing.message(seed, kind)
        _set_times(record, seed)
        assert proto_json.write(record) == json_format.MessageToJson(
            record, preserving_proto_field_name=True, indent=None
        )
        filled |= {field.name for field, _ in record.ListFields()}
    assert filled == set(kind.DESCRIPTOR.fields_by_name)


def _set_times(message: Message, seed: int) -> None:
    """Of random times most are beyond what a timestamp may be."""
    if isinstance(message, Timestamp):
        message.FromNanoseconds(seed * 123_456_789_000_000)
        return
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else (value,):
                _set_times(one, seed)


def test_a_kind_of_field_that_records_do_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="token_bytes"):
        proto_json.write(chat_pb2.TokenLogprob(token_bytes=b"a"))
