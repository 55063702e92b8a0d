"""Verify the book-keeping of leases, apart from any store."""

import pytest

from scheduler.store.leases import Leases


@pytest.fixture
def leases():
    return Leases()


def test_a_lease_ends_when_its_time_is_up_and_not_before(leases):
    lease = leases.grant(5, now=100)

    assert leases.is_alive(lease, now=104.9)
    assert leases.ended(now=104.9) == ()
    assert not leases.is_alive(lease, now=105)
    assert leases.ended(now=105) == (lease,)


def test_renewing_counts_from_now(leases):
    lease = leases.grant(5, now=100)

    assert leases.keep_alive(lease, now=104) == 5
    assert leases.is_alive(lease, now=108.9)
    assert leases.ended(now=109) == (lease,)


def test_a_lease_whose_time_is_up_cannot_be_renewed_even_if_nobody_ended_it_yet(leases):
    lease = leases.grant(5, now=100)

    assert leases.keep_alive(lease, now=105) == 0
    assert leases.ended(now=105) == (lease,)


def test_ending_tells_the_keys_in_order_with_the_version_that_the_lease_wrote(leases):
    lease = leases.grant(5, now=0)
    leases.written("b", 7, lease)
    leases.written("a", 8, lease)
    leases.written("b", 9, lease)

    assert leases.end(lease) == {"a": 8, "b": 9}
    assert leases.end(lease) == {}


def test_a_key_that_was_written_otherwise_or_deleted_is_not_the_leases_any_more(leases):
    first, second = leases.grant(5, now=0), leases.grant(5, now=0)
    for key in ("taken", "freed", "deleted", "kept"):
        leases.written(key, 1, first)
    leases.written("taken", 2, second)
    leases.written("freed", 3, 0)
    leases.written("deleted", 0, 0)

    assert leases.end(first) == {"kept": 1}
    assert leases.end(second) == {"taken": 2}


def test_a_key_written_with_a_lease_that_ended_meanwhile_is_told_so(leases):
    lease = leases.grant(5, now=0)
    leases.end(lease)

    assert not leases.written("a", 1, lease)


def test_the_next_deadline_is_that_of_the_lease_that_ends_first(leases):
    assert leases.next_deadline() is None
    first = leases.grant(5, now=0)
    leases.grant(3, now=0)

    assert leases.next_deadline() == 3
    leases.end(2)
    assert leases.next_deadline() == 5
    leases.keep_alive(first, now=4)
    assert leases.next_deadline() == 9


def test_numbers_are_not_used_again(leases):
    first = leases.grant(5, now=0)
    leases.end(first)

    assert leases.grant(5, now=0) != first
