"""Random and mutated protobuf requests, repeatable by a seed.

Half of them are messages whose fields hold random values of their types, extremes included; the other half are bytes of
such messages that are cut, flipped, spliced or made up.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_MAX_DEPTH = 5
_TEXTS = (
    "", " ", "a", "\x00", "é𝄞", "A" * 300, "{}", "[]", '{"a": 1}', "{" * 2000, "null", "NaN", '{"n": 2}', "../../etc",
    "data:image/png;base64,aGk=", "https://example.com/a.png", "image/png", "wav", "user", "low", "'; DROP TABLE x; --",
)  # fmt: skip
_INTS = (0, 1, 2, 3, 4, 5, 6, 7, -1, 127, 128, 129, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 0.5, 1.0, 2.0, -1.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"))


def requests(seed: int, count: int, seeds: list[Message]) -> Iterator[tuple[type[Message], bytes]]:
    """The type and the bytes of each request; `seeds` are good requests, at least one per type that is wanted."""
    dice = random.Random(seed)
    for _ in range(count):
        good = dice.choice(seeds)
        yield type(good), _one(dice, type(good), good)


def message(seed: int, kind: type[Message]) -> Message:
    """A message whose fields hold random values."""
    return _random_message(random.Random(seed), kind.DESCRIPTOR, 0)


def _one(dice: random.Random, kind: type[Message], good: Message) -> bytes:
    way = dice.random()
    if way < 0.35:
        changed = kind()
        changed.CopyFrom(good)
        for _ in range(dice.choice((1, 1, 2, 4))):
            _set_some_field(dice, changed)
        return changed.SerializeToString()
    if way < 0.5:
        return _random_message(dice, kind.DESCRIPTOR, 0).SerializeToString()
    data = good.SerializeToString() if way < 0.85 else _random_message(dice, kind.DESCRIPTOR, 0).SerializeToString()
    for _ in range(dice.choice((1, 1, 2, 6))):
        data = dice.choice(_MUTATIONS)(dice, data)
    return data


def _set_some_field(dice: random.Random, message: Message) -> None:
    """Replace a field somewhere in the message; half of the time one that is set already is gone into."""
    inner = [value for field, value in message.ListFields() if field.message_type and not field.is_repeated]
    inner += [
        one
        for field, value in message.ListFields()
        if field.message_type and field.is_repeated and not field.message_type.GetOptions().map_entry
        for one in value
    ]
    if inner and dice.random() < 0.6:
        _set_some_field(dice, dice.choice(inner))
    elif message.DESCRIPTOR.fields:
        _fill(dice, message, dice.choice(message.DESCRIPTOR.fields), 0)


def _random_message(dice: random.Random, descriptor: Any, depth: int) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if dice.random() < (0.5 if depth < _MAX_DEPTH else 0.0):
            _fill(dice, message, field, depth)
    return message


def _fill(dice: random.Random, message: Message, field: Any, depth: int) -> None:
    message.ClearField(field.name)
    count = dice.choice((1, 1, 2, 5)) if field.is_repeated else 1
    for _ in range(count):
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            entries = getattr(message, field.name)
            if value.message_type is None:
                entries[_scalar(dice, key)] = _scalar(dice, value)
        elif field.message_type is not None:
            made = _random_message(dice, field.message_type, depth + 1)
            if field.is_repeated:
                getattr(message, field.name).add().CopyFrom(made)
            else:
                getattr(message, field.name).CopyFrom(made)
        elif field.is_repeated:
            getattr(message, field.name).append(_scalar(dice, field))
        else:
            setattr(message, field.name, _scalar(dice, field))


def _scalar(dice: random.Random, field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return dice.randbytes(dice.choice((0, 1, 16, 300)))
        case FieldDescriptor.CPPTYPE_STRING:
            return dice.choice(_TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return dice.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return dice.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return dice.choice((0, 1, 2, 3, 4, 5, 6, 99, -1))
        case kind:
            low, high = _RANGES[kind]
            return min(max(dice.choice(_INTS), low), high)


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _flip(dice: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randint(0, len(data))]


def _remove(dice: random.Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + data[at + dice.randint(0, 8) :]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.randbytes(dice.randint(1, 8)) + data[at:]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    start = dice.randint(0, len(data))
    piece = data[start : start + dice.randint(0, 200)]
    return data[:start] + piece * dice.choice((2, 3, 20)) + data[start:]


def _noise(dice: random.Random, _data: bytes) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 10, 500)))


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _remove,
    _insert,
    _repeat,
    _noise,
)
