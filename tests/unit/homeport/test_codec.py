"""Verify that every value of the model survives wire and disk, and what reading refuses."""

import dataclasses
import enum
import typing

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from homeport import codec, model, spec
from homeport.lifecycle import TaskState
from homeport.model import (
    Cause,
    Leader,
    NodeId,
    Outcome,
    ServiceId,
    Task,
    TaskId,
    TaskStatus,
    Tombstone,
)
from homeport.spec import Argv, ContainerSpec, Driver, Mode, ServiceSpec, UpdateConfig
from homeport.v1 import types_pb2
from tests.strategies import KINDS, values

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
tried = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def hints_of(kind):
    return typing.get_type_hints(kind)


ENUMS = sorted(
    {
        hint
        for kind in KINDS
        for hint in hints_of(kind).values()
        if isinstance(hint, type) and issubclass(hint, enum.Enum)
    },
    key=lambda each: each.__name__,
)


def required(kind):
    return {
        field.name
        for field in dataclasses.fields(kind)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    }


def default_of(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def cannot_be_empty(kind):
    """Whether a field that must be said is an enum or a message: neither has a zero."""
    hints = hints_of(kind)
    return any(
        dataclasses.is_dataclass(hints[name]) or hints[name] in ENUMS for name in required(kind)
    )


class TestRoundTrips:
    @every_kind
    @tried
    @given(data=st.data())
    def test_a_value_comes_back_from_its_message_as_it_was(self, kind, data):
        value = data.draw(values(kind))

        assert codec.from_message(kind, codec.to_message(value)) == value

    @every_kind
    @tried
    @given(data=st.data())
    def test_a_value_comes_back_from_its_record_as_it_was(self, kind, data):
        value = data.draw(values(kind))

        decoded = codec.decode_record(kind, codec.encode_record(value))

        assert decoded == value
        assert hash(decoded) == hash(value)

    @tried
    @given(values(ServiceSpec))
    def test_equal_values_have_equal_bytes(self, value):
        again = codec.decode(ServiceSpec, codec.encode(value))

        assert codec.encode(again) == codec.encode(value)

    @tried
    @given(values(Task))
    def test_a_message_that_is_there_already_can_be_filled(self, value):
        message = types_pb2.Task()
        codec.fill(message, value)

        assert message == codec.to_message(value)


class TestCompleteness:
    """A field added to the model and forgotten in the contract, or the other way round."""

    @every_kind
    def test_the_message_of_the_same_name_has_the_same_fields(self, kind):
        fields = {field.name for field in dataclasses.fields(kind) if field.init}
        message = getattr(types_pb2, kind.__name__)

        assert set(message.DESCRIPTOR.fields_by_name) == fields

    def test_every_message_has_its_value(self):
        messages = set(types_pb2.DESCRIPTOR.message_types_by_name)

        assert messages - {kind.__name__ for kind in KINDS} == set()

    @pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
    def test_an_enum_has_the_names_and_numbers_of_the_contract(self, kind):
        wire = types_pb2.DESCRIPTOR.enum_types_by_name[kind.__name__]
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in kind.__name__)[1:]

        expected = {f"{prefix}_{member.name}": member.value for member in kind}

        assert {value.name: value.number for value in wire.values if value.number} == expected
        assert wire.values_by_number[0].name == f"{prefix}_UNSPECIFIED"

    def test_strategies_reach_every_dataclass_of_spec_and_model(self):
        assert {ServiceSpec, ContainerSpec, Task, Tombstone, Leader} <= set(KINDS)
        assert all(kind.__module__ in (spec.__name__, model.__name__) for kind in KINDS)


class TestSharing:
    def test_equal_small_parts_of_two_values_are_one_object(self):
        one, other = (
            codec.decode(
                ServiceSpec,
                codec.encode(ServiceSpec(name=name, update=UpdateConfig(parallelism=3))),
            )
            for name in ("one", "other")
        )
        assert one.update is other.update
        assert one.update == UpdateConfig(parallelism=3)


class TestWhatWasLeftOut:
    @pytest.mark.parametrize(
        "kind",
        [kind for kind in KINDS if not cannot_be_empty(kind)],
        ids=lambda kind: kind.__name__,
    )
    def test_an_empty_message_means_the_defaults_of_the_value(self, kind):
        value = codec.decode(kind, b"")

        for field in dataclasses.fields(kind):
            if field.init and field.name not in required(kind):
                assert getattr(value, field.name) == default_of(field), field.name

    @pytest.mark.parametrize(
        "kind",
        [kind for kind in KINDS if cannot_be_empty(kind)],
        ids=lambda kind: kind.__name__,
    )
    def test_what_must_be_said_is_missed_by_name(self, kind):
        with pytest.raises(codec.CodecError, match=rf"{kind.__name__}\.\w+(: | is missing)"):
            codec.decode(kind, b"")

    def test_not_given_and_given_empty_stay_apart(self):
        image = ContainerSpec(image="nginx")
        empty = dataclasses.replace(image, command=Argv())

        assert codec.decode(ContainerSpec, codec.encode(image)).command is None
        assert codec.decode(ContainerSpec, codec.encode(empty)).command == Argv()

    def test_zero_is_not_taken_for_left_out(self):
        spec = ServiceSpec(name="web", replicas=0)
        outcome = Outcome(state=TaskState.COMPLETE, exit_code=0)

        assert codec.decode(ServiceSpec, codec.encode(spec)).replicas == 0
        assert codec.decode(Outcome, codec.encode(outcome)).exit_code == 0

    def test_a_client_that_says_nothing_of_replicas_gets_one(self):
        message = types_pb2.ServiceSpec(name="web")

        assert codec.from_message(ServiceSpec, message).replicas == 1

    def test_a_client_that_says_nothing_of_an_enum_gets_its_default(self):
        value = codec.from_message(ServiceSpec, types_pb2.ServiceSpec(name="web"))

        assert (value.driver, value.mode) == (Driver.DOCKER, Mode.REPLICATED)


class TestRefusals:
    def test_an_enum_number_of_a_newer_version_is_named_with_its_field(self):
        message = types_pb2.ServiceSpec(name="web", mode=99)

        with pytest.raises(codec.CodecError, match=r"ServiceSpec\.mode: Mode 99 is not known"):
            codec.from_message(ServiceSpec, message)

    def test_also_deep_inside(self):
        task = Task(
            service=ServiceId("s"),
            slot=1,
            n=1,
            node=NodeId("n"),
            generation=1,
            outcome=Outcome(state=TaskState.FAILED),
        )
        message = codec.to_message(task)
        message.outcome.state = 77

        with pytest.raises(codec.CodecError, match=r"Outcome\.state: TaskState 77"):
            codec.from_message(Task, message)

    def test_an_unknown_field_of_a_newer_version_is_passed_over(self):
        data = codec.encode(Leader(id="a")) + b"\xfa\x3f\x03abc"  # field 1023

        assert codec.decode(Leader, data) == Leader(id="a")

    @pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
    def test_bytes_that_are_no_message_are_refused_with_the_kind(self, data):
        with pytest.raises(codec.CodecError, match="Leader: not a message"):
            codec.decode(Leader, data)

    def test_an_empty_record_is_refused(self):
        with pytest.raises(codec.CodecError, match="Leader: the record is empty"):
            codec.decode_record(Leader, b"")

    def test_a_record_of_a_newer_schema_says_what_to_do(self):
        record = codec.encode_record(Leader(id="a"))
        newer = bytes((codec.SCHEMA_VERSION + 1,)) + record[1:]

        with pytest.raises(codec.CodecError, match="run the newer version that wrote it"):
            codec.decode_record(Leader, newer)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60))
    def test_whatever_the_bytes_reading_ends_in_a_value_or_in_words(self, data):
        for kind in (Task, ServiceSpec, Leader, Tombstone):
            try:
                value = codec.decode_record(kind, data)
            except codec.CodecError:
                continue
            assert isinstance(value, kind)

    def test_a_tombstone_says_who_wants_it(self):
        value = Tombstone(task=model.TaskId("s/1/1"), cause=Cause.OPERATOR)

        assert codec.decode(Tombstone, codec.encode(value)) == value


def test_what_many_values_name_is_one_string_and_a_containers_own_id_is_not_kept_for_others():
    data = codec.encode(TaskStatus(task=TaskId("a-web-1/1/1"), container_id="c0ffee" * 8))
    one, other = (codec.decode(TaskStatus, data) for _ in range(2))
    assert one == other
    assert one.task is other.task
    assert one.container_id is not other.container_id
