"""Verify what is said of etcd's members: versions, alarms, quorum."""

import pytest

from scheduler.store.etcd.health import (
    Alarm,
    MemberStatus,
    alarms_in,
    conditions,
    has_safe_progress,
    version_warning,
)


def status(name, **fields):
    return MemberStatus(**{"url": f"http://{name}:2379", "id": ord(name), "leader": 97} | fields)


@pytest.mark.parametrize(
    ("version", "is_warned"),
    [
        ("3.4.23", True),
        ("3.4.99", True),
        ("3.5.27", True),
        ("3.5.28", False),
        ("3.6.8", True),
        ("3.6.9", False),
        ("3.7.0", False),
        ("4.0.0-rc.1", False),
        ("", False),
    ],
)
def test_versions_with_known_faults_are_warned_of(version, is_warned):
    assert bool(version_warning("http://a", version)) is is_warned


def test_the_warning_says_where_what_may_happen_and_what_to_do():
    text = version_warning("http://a:2379", "3.4.23")

    assert all(word in text for word in ("3.4.23", "http://a:2379", "stale", "Upgrade", "3.6.9"))


@pytest.mark.parametrize(
    ("version", "is_safe"),
    [("3.4.24", False), ("3.4.25", True), ("3.5.7", False), ("3.5.8", True), ("3.6.0", True)],
)
def test_progress_is_trusted_from_the_fixed_versions_on(version, is_safe):
    assert has_safe_progress(version) is is_safe
    assert not has_safe_progress("")


def test_alarms_are_read_off_the_errors_of_a_status():
    errors = ["memberID:8211 alarm:NOSPACE ", "etcdserver: no leader", "memberID:1 alarm:CORRUPT"]

    assert alarms_in(errors) == {Alarm(8211, "NOSPACE"), Alarm(1, "CORRUPT")}


@pytest.mark.parametrize(
    ("size", "passed"), [(60, ""), (61, "60 %"), (80, "60 %"), (81, "80 %"), (100, "80 %")]
)
def test_a_member_that_fills_up_is_told_with_the_ways_out(size, passed):
    filling = status("a", size_bytes=size << 20, quota_bytes=100 << 20)
    said = conditions([filling, status("b", size_bytes=1 << 20, quota_bytes=100 << 20)])
    assert len(said) == bool(passed)
    for sentence in said:
        assert f"http://a:2379 has filled more than {passed} of its quota of 100 MiB" in sentence
        for way in ("etcdctl compact", "etcdctl defrag", "--quota-backend-bytes"):
            assert way in sentence


def test_without_a_known_quota_no_size_is_too_much():
    assert conditions([status("a", size_bytes=1 << 40)]) == ()


def test_a_full_database_is_told_once():
    full = status(
        "a", size_bytes=99, quota_bytes=100, alarms=frozenset({Alarm(ord("a"), "NOSPACE")})
    )
    (sentence,) = conditions([full])
    assert "NOSPACE" in sentence


def test_of_members_that_are_well_there_is_nothing_to_say():
    assert conditions([status("a"), status("b"), status("c")]) == ()


def test_a_lost_member_is_named_and_that_no_other_may_be_lost():
    told = conditions([status("a"), status("b"), status("c", trouble="connection refused")])

    assert "http://c:2379 fails: connection refused" in told[0]
    assert "one more member" in told[1]


def test_a_single_member_is_not_said_to_be_short_of_others():
    assert conditions([status("a")]) == ()


def test_members_without_a_leader_have_no_quorum():
    told = conditions([status("a", leader=0), status("b", trouble="x"), status("c", trouble="x")])

    assert any("no quorum" in sentence and "http://a:2379" in sentence for sentence in told)


def test_a_full_database_says_its_size():
    full = status("a", alarms=frozenset({Alarm(97, "NOSPACE")}), size_bytes=2 * 2**30)

    assert "2048 MiB" in conditions([full])[0]
