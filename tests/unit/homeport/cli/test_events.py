"""Verify that events which are followed over a change of leader are printed once each."""

from homeport.cli import events
from homeport.v1 import types_pb2


def event(sequence: int, message: str, at_ms: int = 1) -> types_pb2.Event:
    return types_pb2.Event(sequence=sequence, at_ms=at_ms, kind="task", message=message)


def test_an_event_that_the_next_leader_tells_again_under_another_number_is_not_new() -> None:
    printed = events._Printed([event(1, "started"), event(2, "failed")])
    assert not printed.is_new(event(7, "failed"))
    assert printed.is_new(event(1, "started anew"))
    assert not printed.is_new(event(2, "started anew"))
    assert printed.is_new(event(3, "failed", at_ms=2))


def test_not_all_events_are_remembered_for_ever(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(events, "_REMEMBERED_MAX", 2)
    printed = events._Printed([event(1, "a"), event(2, "b"), event(3, "c")])
    assert not printed.is_new(event(3, "c"))
    assert printed.is_new(event(1, "a"))
