"""Answers to requests are kept for a day, and never forgotten because a clock was off."""

from homeport.model import RequestRecord
from scheduler.cluster import keys
from scheduler.reconcile.answers import KEPT_MS, KNOWN_SECONDS, Answers
from tests.builders import World


def remembers(world, name, created_ms):
    world.put(
        RequestRecord(
            request_id=name, method="Apply", digest="", response=b"", created_ms=created_ms
        )
    )


def forgotten(world, answers):
    return [change.key for change in answers.decide(world.snapshot())]


def test_an_answer_is_forgotten_after_a_day():
    world, answers = World(), Answers()
    remembers(world, "old", world.now_ms - KEPT_MS)
    remembers(world, "young", world.now_ms - KEPT_MS + KNOWN_SECONDS * 1000)
    assert forgotten(world, answers) == []
    world.pass_time(KNOWN_SECONDS)
    assert forgotten(world, answers) == [keys.request("old")]


def test_a_new_leader_whose_clock_is_a_day_ahead_forgets_nothing_that_it_has_just_read():
    world, answers = World(), Answers()
    remembers(world, "made by its predecessor", world.now_ms)
    world.now_ms += 2 * KEPT_MS
    assert forgotten(world, answers) == []


def test_a_leader_whose_clock_jumps_forgets_nothing_that_was_made_just_now():
    world, answers = World(), Answers()
    remembers(world, "before the first look", world.now_ms)
    assert forgotten(world, answers) == []
    world.pass_time(2 * KNOWN_SECONDS)
    remembers(world, "before the second", world.now_ms)
    world.now_ms += 2 * KEPT_MS
    assert forgotten(world, answers) == [keys.request("before the first look")]
    world.pass_time(1)
    assert forgotten(world, answers) == []  # a look that comes too soon proves nothing
    world.pass_time(KNOWN_SECONDS)
    assert keys.request("before the second") in forgotten(world, answers)
