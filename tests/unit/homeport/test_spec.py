"""Specs as keys: equal ones are one, also those that were copied, changed or sent."""

import copy
import pickle
from dataclasses import replace

from homeport.spec import Resources, ServiceSpec, pairs


def spec(**fields):
    return ServiceSpec(name="web", labels=pairs({"tier": "front"}), **fields)


def test_a_spec_that_was_a_key_is_found_by_its_equals_and_by_no_other():
    one = spec(replicas=2)
    known = {one: "it"}
    for same in (spec(replicas=2), copy.copy(one), copy.deepcopy(one), replace(one)):
        assert known[same] == "it"
    assert known[pickle.loads(pickle.dumps(one))] == "it"
    for other in (spec(), replace(one, reservations=Resources(cpu_millis=1))):
        assert other not in known
        assert known.get(other) is None


def test_a_hash_is_no_part_of_what_is_equal_or_shown():
    one, other = spec(), spec()
    hash(one)
    assert one == other
    assert repr(one) == repr(other)


def test_a_hash_is_worked_out_once():
    class Name(str):
        __slots__ = ("asked",)

        def __hash__(self):
            self.asked = getattr(self, "asked", 0) + 1
            return super().__hash__()

    name = Name("web")
    one = ServiceSpec(name=name)
    assert hash(one) == hash(one)
    assert name.asked == 1
