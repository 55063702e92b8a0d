"""Verify which scheduler answers which call."""

import pytest

from homeport.v1 import control_pb2
from scheduler.api.routing import NEEDS, Caller, Needs, Way, way
from scheduler.api.service import ControlService

USER = Caller(peer="laptop")
FORWARDED = Caller(peer="laptop", forwarded_by="b:1")


def test_every_call_of_the_contract_has_its_place():
    methods = control_pb2.DESCRIPTOR.services_by_name["Control"].methods
    assert set(NEEDS) == {method.name for method in methods}


def test_every_call_of_the_contract_is_answered():
    methods = control_pb2.DESCRIPTOR.services_by_name["Control"].methods
    answered = {name for name in dir(ControlService) if name[0].isupper()}
    assert answered == {method.name for method in methods}


def test_what_changes_something_is_the_leaders():
    for method in control_pb2.DESCRIPTOR.services_by_name["Control"].methods:
        if "request_id" in method.input_type.fields_by_name:
            assert NEEDS[method.name] is Needs.LEADER, method.name


@pytest.mark.parametrize("needs", Needs)
@pytest.mark.parametrize("caller", [USER, FORWARDED])
def test_a_proven_leader_answers_everything_itself(needs, caller):
    assert way(needs, leads=True, is_proven=True, leader="b:1", caller=caller) is Way.HERE


def test_a_leader_that_cannot_prove_it_looks_at_the_store_before_it_tells_anything():
    unproven = {"leads": True, "is_proven": False, "leader": "", "caller": USER}
    assert way(Needs.STORED, **unproven) is Way.CONFIRM
    assert way(Needs.OBSERVED, **unproven) is Way.CONFIRM
    assert way(Needs.LEADER, **unproven) is Way.HERE  # its writes carry a fence


@pytest.mark.parametrize(
    ("needs", "leader", "caller", "expected"),
    [
        (Needs.STORED, "b:1", USER, Way.CONFIRM),
        (Needs.STORED, "", USER, Way.CONFIRM),
        (Needs.STORED, "b:1", FORWARDED, Way.CONFIRM),
        (Needs.OBSERVED, "b:1", USER, Way.ASK),
        (Needs.OBSERVED, "", USER, Way.CONFIRM),
        (Needs.LEADER, "b:1", USER, Way.ASK),
        (Needs.LEADER, "", USER, Way.REFUSE),
    ],
)
def test_a_follower_tells_what_is_stored_and_asks_for_the_rest(needs, leader, caller, expected):
    assert way(needs, leads=False, is_proven=False, leader=leader, caller=caller) is expected


@pytest.mark.parametrize("needs", [Needs.OBSERVED, Needs.LEADER])
@pytest.mark.parametrize("leader", ["", "b:1", "c:1"])
def test_what_was_sent_on_is_never_sent_on_again(needs, leader):
    found = way(needs, leads=False, is_proven=False, leader=leader, caller=FORWARDED)
    assert found is Way.REFUSE
