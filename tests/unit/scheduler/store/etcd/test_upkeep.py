"""Verify when etcd's history is compacted, files defragmented, alarms taken back."""

from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler.store.etcd.health import Alarm, MemberStatus
from scheduler.store.etcd.upkeep import (
    HISTORY_REVISIONS,
    HISTORY_SECONDS,
    PAUSE_SECONDS,
    Compact,
    Defragment,
    Disarm,
    Memory,
    decide,
)

MIB = 2**20


def members(revision=1, *, size_mib=10, used_mib=10, count=3, **fields):
    """Members a, b, c…; a leads."""
    return [
        MemberStatus(
            **{
                "url": name,
                "id": ord(name),
                "leader": ord("a"),
                "revision": revision,
                "size_bytes": size_mib * MIB,
                "used_bytes": used_mib * MIB,
            }
            | fields
        )
        for name in "abcde"[:count]
    ]


def full(statuses):
    alarm = frozenset({Alarm(ord("a"), "NOSPACE")})
    return [replace(each, alarms=alarm) for each in statuses]


def play(looks, memory=None):
    """The actions at (time, statuses), each done at once; and the memory."""
    memory, actions = memory or Memory(), []
    for now, statuses in looks:
        action, memory = decide(statuses, memory, now)
        if action is not None:
            memory = memory.did(action, now)
        actions.append(action)
    return actions, memory


class TestHistory:
    def test_an_idle_cluster_is_never_compacted(self):
        actions, memory = play((t, members(5_000)) for t in range(0, 100_000, 10))

        assert [action for action in actions if action] == [Compact(5_000, actions[60].reason)]
        assert len(memory.samples) == 1

    def test_what_is_older_than_ten_minutes_goes(self):
        actions, _ = play((t, members(10 * t + 1)) for t in range(0, 2_000, 10))

        compacted = [(t * 10, a.revision) for t, a in enumerate(actions) if a]
        assert compacted
        for now, revision in compacted:
            assert revision <= 10 * (now - HISTORY_SECONDS) + 1

    def test_little_change_is_not_worth_it(self):
        actions, _ = play((t, members(1 + t // 100)) for t in range(0, 50_000, 10))

        assert not any(actions)

    def test_a_flood_of_changes_does_not_wait_for_ten_minutes(self):
        first, second = play([(0, members(1)), (10, members(HISTORY_REVISIONS * 2))])[0]

        assert first is None
        assert second.revision == HISTORY_REVISIONS

    def test_history_is_compacted_also_while_a_member_is_away(self):
        away = [*members(1, count=2), MemberStatus(url="c", trouble="connection refused")]
        flood = [replace(each, revision=HISTORY_REVISIONS * 2) for each in away[:2]] + away[2:]

        assert isinstance(play([(0, away), (10, flood)])[0][1], Compact)


class TestFiles:
    def test_a_file_that_is_mostly_empty_is_rewritten_followers_first_and_the_leader_last(self):
        statuses = members(size_mib=300, used_mib=100)

        actions, _ = play((t, statuses) for t in range(0, 10 * int(PAUSE_SECONDS), 10))

        urls = [action.url for action in actions if action]
        assert urls[0] == "b"
        times = [t * 10 for t, action in enumerate(actions) if action]
        assert all(later - now >= PAUSE_SECONDS for now, later in pairwise(times))
        shrunk = [replace(each, size_bytes=each.used_bytes) for each in statuses[1:]]
        assert decide([statuses[0], *shrunk], Memory(), 0)[0] == Defragment("a", actions[0].reason)

    def test_a_little_waste_is_left_alone(self):
        assert decide(members(size_mib=90, used_mib=1), Memory(), 0)[0] is None
        assert decide(members(size_mib=1_000, used_mib=600), Memory(), 0)[0] is None

    @pytest.mark.parametrize("count", [1, 2])
    def test_without_a_majority_beside_it_no_member_is_stopped_for_tidiness(self, count):
        assert decide(members(size_mib=300, used_mib=100, count=count), Memory(), 0)[0] is None

    def test_a_member_that_forgot_its_history_after_it_was_rewritten_is_rewritten_again(self):
        # NOSPACE was answered a moment ago; c compacted later than it was defragmented.
        memory = Memory(samples=((0.0, 5),), compacted=5, defragmented=dict.fromkeys("abc", 10.0))
        statuses = members(5, size_mib=4, used_mib=1, quota_bytes=100 * MIB)
        statuses[2] = replace(statuses[2], quota_bytes=4 * MIB)
        action, memory = decide(statuses, memory, 11.0)
        assert isinstance(action, Defragment)
        assert action.url == "c"
        # What is nearly full of what it needs is not helped by being rewritten.
        statuses[2] = replace(statuses[2], used_bytes=3 * MIB)
        assert decide(statuses, memory, 12.0)[0] is None
        assert decide([*statuses[:2], replace(statuses[2], trouble="x")], memory, 13.0)[0] is None

    def test_no_member_is_stopped_while_another_is_away(self):
        statuses = members(size_mib=300, used_mib=100)
        for sick in ({"trouble": "no answer"}, {"leader": 0}, {"is_learner": True}):
            assert decide([*statuses[:2], replace(statuses[2], **sick)], Memory(), 0)[0] is None


class TestNoSpace:
    def test_all_history_goes_then_each_member_then_the_alarm(self):
        statuses = full(members(500, size_mib=2_048, used_mib=2_040))

        actions, _ = play((t, statuses) for t in range(5))

        assert actions[0] == Compact(500, "the database is full")
        assert [action.url for action in actions[1:4]] == ["b", "c", "a"]
        assert actions[4] == Disarm((ord("a"),), actions[4].reason)

    def test_the_alarm_stands_while_a_member_is_away(self):
        statuses = full(members(500, count=2))
        away = MemberStatus(url="c", trouble="no answer")

        actions, _ = play((t, [*statuses, away]) for t in range(10))

        assert actions[1:] == [None] * 9

    def test_an_etcd_that_is_full_again_at_once_is_not_worn_out_by_it(self):
        statuses = full(members(500))

        actions, _ = play((t, statuses) for t in range(int(PAUSE_SECONDS)))

        assert len([action for action in actions if action]) == 5

    def test_a_second_time_everything_is_done_anew(self):
        done, memory = play((t, full(members(500))) for t in range(5))
        _, memory = play([(10, members(501))], memory)

        later = PAUSE_SECONDS + 100
        again, _ = play(((later + t, full(members(900))) for t in range(5)), memory)

        assert [type(action) for action in again] == [type(action) for action in done]
