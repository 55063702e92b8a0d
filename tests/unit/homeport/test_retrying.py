"""Verify when a call is tried again, at which scheduler, and where a stream goes on."""

from dataclasses import dataclass, field

import grpc

from homeport.retrying import LogPlace, Resumption, Route, Tries, WatchPlace, is_transient
from homeport.v1 import control_pb2

Code = grpc.StatusCode


@dataclass
class Failed:
    code: grpc.StatusCode = Code.UNAVAILABLE
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


NOBODY = Failed()
NO_LEADER = Failed(reason="NOT_LEADER")


def test_only_what_a_scheduler_or_the_way_to_it_is_at_fault_for_is_tried_again():
    assert is_transient(NOBODY)
    assert is_transient(NO_LEADER)
    assert is_transient(Failed(Code.DEADLINE_EXCEEDED))
    assert is_transient(Failed(Code.CANCELLED))
    assert not is_transient(Failed(Code.CANCELLED, "SAID"))
    for code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ABORTED, Code.INTERNAL):
        assert not is_transient(Failed(code))
        assert Tries(Route(["a", "b"]), 10, 0).after(Failed(code), 0) is None


def test_every_address_is_tried_before_anything_is_waited_for():
    route = Route(["a", "b", "c"])
    tries = Tries(route, 10, 0)
    seen = []
    for _ in range(4):
        pause = tries.after(NO_LEADER, 0)
        seen.append((route.current, pause == 0))
    assert seen == [("b", True), ("c", True), ("a", False), ("b", False)]


def test_the_leader_that_a_scheduler_names_is_tried_next_and_the_list_after_it():
    route = Route(["a", "b"])
    tries = Tries(route, 10, 0)
    tries.after(Failed(reason="NOT_LEADER", metadata={"leader": "z"}), 0)
    assert route.current == "z"
    tries.after(Failed(metadata={"leader": "z"}), 0)  # it names itself
    assert route.current == "a"


def test_where_nobody_is_a_call_ends_soon_and_where_somebody_answers_at_its_deadline():
    tries = Tries(Route(["a", "b"]), 10, 0)
    assert [tries.after(NOBODY, 0) is None for _ in range(5)] == [False] * 4 + [True]
    tries, now, count = Tries(Route(["a", "b"]), 10, 0), 0.0, 0
    while (pause := tries.after(NO_LEADER, now)) is not None:
        now, count = now + pause, count + 1
    assert 8.5 < now < 10
    assert count > 10


def test_pauses_grow_and_are_never_in_step():
    def pauses():
        tries = Tries(Route(["a"]), 1000, 0)
        return [tries.after(NO_LEADER, 0) for _ in range(8)]

    one, other = pauses(), pauses()
    assert one != other
    assert one[0] <= 0.1
    assert all(0.5 <= pause <= 1.0 for pause in one[5:])


def test_all_schedulers_together_have_one_deadline_to_find_the_store_away():
    unknown = Failed(reason="OUTCOME_UNKNOWN")
    tries = Tries(Route(["a", "b", "c"]), 160, 100)
    assert tries.timeout_seconds(100) == 5
    assert tries.after(unknown, 102) == 0
    assert tries.timeout_seconds(102) == 2.5
    assert tries.after(NO_LEADER, 103) == 0  # no other word makes it longer again
    assert tries.timeout_seconds(103) == 1.5
    assert tries.after(unknown, 104.5) is None


def test_a_store_that_failed_once_leaves_time_to_be_asked_again():
    tries = Tries(Route(["a"]), 60, 0)
    assert tries.after(Failed(reason="OUTCOME_UNKNOWN"), 2.0) is not None
    assert 2.0 < tries.timeout_seconds(2.1) < 2.5


def test_a_store_that_is_away_is_for_its_operator_to_hear_of():
    tries = Tries(Route(["a", "b"]), 60, 0)
    away = Failed(reason="STORE_UNAVAILABLE")
    assert tries.after(away, 0.5) == 0
    assert tries.after(away, 4.3) is None
    assert tries.after(NO_LEADER, 4.3) is not None


def test_one_try_may_take_all_the_time_only_where_there_is_nobody_else():
    assert Tries(Route(["a"]), 60, 0).timeout_seconds(0) == 60
    assert Tries(Route(["a", "b"]), 60, 0).timeout_seconds(0) == 5
    assert Tries(Route(["a", "b"]), 60, 0).timeout_seconds(58) == 2


def test_a_stream_looks_for_somebody_for_as_long_as_it_is_told_and_anew_after_each_word():
    going_on = Resumption(Route(["a", "b"]), 60)
    assert going_on.after(NOBODY, 0) == 0
    assert going_on.is_first
    assert going_on.after(NOBODY, 59) is not None
    assert not going_on.is_first
    assert going_on.after(NOBODY, 60) is None
    going_on.heard()
    assert going_on.after(NOBODY, 61) == 0
    assert going_on.after(Failed(Code.NOT_FOUND), 61) is None


# ------------------------------------------------------------------------------ places


def position(sequence):
    return control_pb2.WatchPosition(revision=sequence, epoch=2, sequence=sequence)


def test_a_watch_goes_on_behind_the_last_place_that_was_told():
    asked = control_pb2.WatchRequest(stack="hello", after=position(1))
    place = WatchPlace(asked)
    assert place.request() == asked
    assert place.is_new(control_pb2.WatchResponse(position=position(3)))
    assert place.is_new(control_pb2.WatchResponse())
    assert place.request() == control_pb2.WatchRequest(stack="hello", after=position(3))
    assert asked.after == position(1)


def test_a_watch_that_breaks_in_the_telling_after_a_reset_begins_anew():
    place = WatchPlace(control_pb2.WatchRequest(after=position(1)))
    place.is_new(control_pb2.WatchResponse(reset=True))
    place.is_new(control_pb2.WatchResponse(deleted="tasks/x"))
    assert not place.request().HasField("after")


def line(at_ms, text, task="t", stream=1):
    return control_pb2.LogsResponse(
        task=task, output={"stream": stream, "data": text.encode(), "at_ms": at_ms}
    )


def read(place, lines):
    return [each.output.data.decode() for each in lines if place.is_new(each)]


def test_a_log_goes_on_behind_the_lines_that_were_read_also_within_one_millisecond():
    written = [
        line(10, "a"),
        line(11, "b"),
        line(11, "c"),
        line(11, "other", task="u"),
        line(11, "d"),
        line(12, "e"),
        line(12, "other again", task="u"),
    ]
    for broken in range(len(written) + 1):
        place = LogPlace(control_pb2.LogsRequest(stack="hello", follow=True, tail=5))
        found = read(place, written[:broken])
        again = place.request()
        if broken:
            assert (again.tail, again.follow) == (-1, True)
        found += read(place, [each for each in written if each.output.at_ms >= again.since_ms])
        assert found == [each.output.data.decode() for each in written]


def test_a_log_whose_clock_steps_back_loses_nothing():
    place = LogPlace(control_pb2.LogsRequest())
    assert read(place, [line(10, "a"), line(5, "b"), line(10, "c")]) == ["a", "b", "c"]
    assert place.request().since_ms == 10


def test_a_line_without_a_time_is_always_told():
    place = LogPlace(control_pb2.LogsRequest())
    assert read(place, [line(0, "a")]) == ["a"]
    assert place.request() == control_pb2.LogsRequest()
    assert read(place, [line(0, "a")]) == ["a"]
