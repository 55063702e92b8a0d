"""Translate between the model's values and protobuf messages, both ways.

Values and messages have the same names (see `proto/homeport/v1/types.proto`), so the
translation is derived once per class and kept as a list of small converters: there is no
second copy of the model to forget a field in. Messages are wire and disk; a message
never stays in memory as state.

Records in the store are `encode_record` bytes: a schema version, then the message.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from sys import intern
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from homeport.spec import Pairs
from homeport.v1 import types_pb2

SCHEMA_VERSION = 1
"""Raised when a stored record changes in a way that protobuf's own rules do not cover."""

V = TypeVar("V")


class CodecError(ValueError):
    """Bytes or a message that this version of Homeport cannot read; names the field."""


def to_message(value: Any) -> Any:
    """The message of the same name, for any value of `homeport.spec` or `homeport.model`."""
    return _plan(type(value)).encode(value)


def fill(message: Message, value: Any) -> None:
    """Write `value` into an empty message that is there already: a field of another."""
    _plan(type(value)).fill(value, message)


def from_message(kind: type[V], message: Message) -> V:
    """The value of a message. Raises CodecError for an enum number that is not known here."""
    return typing.cast("V", _plan(kind).decode(message))


def encode(value: Any) -> bytes:
    """The value as message bytes."""
    return typing.cast("bytes", to_message(value).SerializeToString(deterministic=True))


def decode(kind: type[V], data: bytes) -> V:
    """The inverse of `encode`. Raises CodecError."""
    plan = _plan(kind)
    message = plan.message()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CodecError(f"{kind.__name__}: not a message: {error}") from error
    return typing.cast("V", plan.decode(message))


def encode_record(value: Any) -> bytes:
    """The value as the store keeps it: one byte of schema version, then the message."""
    return bytes((SCHEMA_VERSION,)) + encode(value)


def decode_record(kind: type[V], data: bytes) -> V:
    """The inverse of `encode_record`. Raises CodecError, also for a newer schema."""
    if not data:
        raise CodecError(f"{kind.__name__}: the record is empty")
    if data[0] > SCHEMA_VERSION:
        raise CodecError(
            f"{kind.__name__}: the record has schema {data[0]}, this version of Homeport reads"
            f" up to {SCHEMA_VERSION}; run the newer version that wrote it"
        )
    return decode(kind, data[1:])


# ---------------------------------------------------------------- how it is derived

Encode = Callable[[Any, Any], None]  # (value's field, message)
Decode = Callable[[Any], Any]  # message -> value's field
Put = Callable[[Any, Any], None]  # (value, its field)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """How one class is translated."""

    kind: type
    message: Callable[[], Any]
    writers: tuple[tuple[str, Encode], ...]
    # How a value's field is set, with what an empty message says of it; by the number of the
    # message's field how it is read; and those that have to be read always.
    blanks: tuple[tuple[Put, Any], ...]
    readers: dict[int, tuple[Put, Decode]]
    required: tuple[tuple[Put, Decode], ...]
    finish: Callable[[Any], None] | None

    def encode(self, value: Any) -> Any:
        message = self.message()
        self.fill(value, message)
        return message

    def fill(self, value: Any, message: Any) -> None:
        for name, write in self.writers:
            write(getattr(value, name), message)

    def decode(self, message: Any) -> Any:
        # Statuses come by the million, each with a third of its fields: what an empty message says
        # is not asked for again, and a frozen value's own way of making itself is slow.
        value: Any = object.__new__(self.kind)
        for put, blank in self.blanks:
            put(value, blank)
        for put, read in self.required:
            put(value, read(message))
        readers = self.readers
        for field, _ in message.ListFields():
            if (reader := readers.get(field.number)) is not None:
                reader[0](value, reader[1](message))
        if self.finish is not None:
            self.finish(value)
        return value


_PLANS: dict[type, _Plan] = {}


def _plan(kind: type) -> _Plan:
    plan = _PLANS.get(kind)
    if plan is None:
        plan = _PLANS[kind] = _derive(kind)
    return plan


def _derive(kind: type) -> _Plan:
    hints = typing.get_type_hints(kind)
    message = getattr(types_pb2, kind.__name__)
    empty, numbers = message(), message.DESCRIPTOR.fields_by_name
    writers: list[tuple[str, Encode]] = []
    blanks: list[tuple[Put, Any]] = []
    readers: dict[int, tuple[Put, Decode]] = {}
    required: list[tuple[Put, Decode]] = []
    for field in dataclasses.fields(kind):
        if not field.init:
            continue  # follows from the others
        write, read = _field(kind, field, hints[field.name])
        writers.append((field.name, write))
        put = vars(kind)[field.name].__set__  # its slot's, past the guard of a frozen value
        try:
            blanks.append((put, read(empty)))
        except CodecError:
            required.append((put, read))
        else:
            readers[numbers[field.name].number] = (put, read)
    finish = getattr(kind, "__post_init__", None)
    return _Plan(kind, message, tuple(writers), tuple(blanks), readers, tuple(required), finish)


def _field(kind: type, field: dataclasses.Field[Any], hint: Any) -> tuple[Encode, Decode]:
    name = field.name
    if hint == Pairs:
        return _pairs(name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _repeated(kind, name, arguments[0])
    optional = origin in (typing.Union, types.UnionType) and type(None) in arguments
    if optional:
        (hint,) = (argument for argument in arguments if argument is not type(None))
    if dataclasses.is_dataclass(hint):
        return _nested(kind, name, typing.cast("type", hint), field, optional)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(kind, name, hint, field)
    return _scalar(kind, name, field, optional)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _pairs(name: str) -> tuple[Encode, Decode]:
    def write(value: Pairs, message: Any) -> None:
        if value:
            getattr(message, name).update(value)

    return write, lambda message: tuple(sorted(getattr(message, name).items()))


def _repeated(kind: type, name: str, item: Any) -> tuple[Encode, Decode]:
    if dataclasses.is_dataclass(item):

        def write_messages(value: tuple[Any, ...], message: Any) -> None:
            if value:
                field = getattr(message, name)
                for each in value:
                    fill(field.add(), each)

        item_kind = typing.cast("type", item)
        return write_messages, lambda message: tuple(
            from_message(item_kind, each) for each in getattr(message, name)
        )

    def write(value: tuple[Any, ...], message: Any) -> None:
        if value:
            getattr(message, name).extend(value)

    return write, lambda message: tuple(getattr(message, name))


def _nested(
    kind: type, name: str, hint: type, field: dataclasses.Field[Any], optional: bool
) -> tuple[Encode, Decode]:
    usual = None if optional else _default(field)
    usual_bytes: bytes | None = None

    def write(value: Any, message: Any) -> None:
        nonlocal usual_bytes
        if value is None:
            return
        target = getattr(message, name)
        target.SetInParent()  # an empty message is still there
        if value != usual:
            fill(target, value)
            return
        # Most parts of most specs are as they are when nobody says anything.
        if usual_bytes is None:
            usual_bytes = encode(usual)
        target.MergeFromString(usual_bytes)

    def read(message: Any) -> Any:
        if message.HasField(name):
            return _shared(hint, getattr(message, name))
        if optional:
            return None
        default = _default(field)
        if default is dataclasses.MISSING:
            raise CodecError(f"{kind.__name__}.{name} is missing")
        return default

    return write, read


_SHARED_BYTES_MAX = 64
_SHARED_VALUES_MAX = 2_000
_SHARED: dict[tuple[type, bytes], Any] = {}


def _shared(kind: type, message: Any) -> Any:
    """The value of a part, which small parts of equal bytes have in common.

    Specs are mostly made of the same few policies and limits, and values never change: ten
    thousand services would keep a quarter of a million of them, and spend a second on making them.
    """
    if message.ByteSize() > _SHARED_BYTES_MAX:
        return from_message(kind, message)
    place = (kind, message.SerializeToString())
    value = _SHARED.get(place)
    if value is None:
        if len(_SHARED) >= _SHARED_VALUES_MAX:
            _SHARED.clear()
        value = _SHARED[place] = from_message(kind, message)
    return value


def _enum(
    kind: type, name: str, hint: type[enum.Enum], field: dataclasses.Field[Any]
) -> tuple[Encode, Decode]:
    members = {member.value: member for member in hint}
    default = _default(field)

    def write(value: enum.Enum | None, message: Any) -> None:
        if value is not None:
            setattr(message, name, value.value)

    def read(message: Any) -> enum.Enum:
        number = getattr(message, name)
        if member := members.get(number):
            return member
        if number == 0 and default is not dataclasses.MISSING:
            return typing.cast("enum.Enum", default)
        raise CodecError(
            f"{kind.__name__}.{name}: {hint.__name__} {number} is not known to this version"
        )

    return write, read


_OWN = {"container_id"}
"""No two values have the same: it would only take a place in the table of shared strings."""


def _scalar(
    kind: type, name: str, field: dataclasses.Field[Any], optional: bool
) -> tuple[Encode, Decode]:
    default = _default(field)
    descriptor = getattr(types_pb2, kind.__name__).DESCRIPTOR.fields_by_name[name]

    def write(value: Any, message: Any) -> None:
        if value is not None:
            setattr(message, name, value)

    def write_what_counts(value: Any, message: Any) -> None:
        if value:  # zero and nothing are what an empty message says
            setattr(message, name, value)

    if optional or descriptor.has_presence:
        # What a client left out means what the value's own default means.
        return write, lambda message: getattr(message, name) if message.HasField(name) else default
    write = write_what_counts
    if name in _OWN:
        return write, lambda message: getattr(message, name)
    if descriptor.type == descriptor.TYPE_STRING:
        # Names and ids: a hundred thousand tasks share a few thousand of them, and protobuf
        # would make a new string for each.
        return write, lambda message: intern(getattr(message, name))
    if descriptor.type == descriptor.TYPE_INT64:
        # Times: what one decision made has the same, and one record follows the other.
        last = 0

        def read_long(message: Any) -> int:
            nonlocal last
            if (value := getattr(message, name)) != last:
                last = value
            return last

        return write, read_long
    return write, lambda message: getattr(message, name)
