"""Verify what is sent to etcd: keys, compares, and how much of both."""

import pytest

from scheduler.store.base import ABSENT, ANY, OPERATIONS_MAX, Fence, Write
from scheduler.store.etcd.messages import Keys, transaction, ttl_of

KEYS = Keys("/homeport/")


@pytest.mark.parametrize("prefix", ["", "a", "tasks/", "ä", "a\U0010ffff"])
def test_the_range_of_a_prefix_holds_its_keys_and_ends_before_all_others(prefix):
    start, end = KEYS.range(prefix)

    for more in ("", "\0", "z", "\U0010ffff\U0010ffff"):
        assert start <= KEYS.raw(prefix + more) < end
    assert not start <= b"/homeport0" < end
    assert not start <= b"/homeport" < end


def test_as_many_writes_as_promised_stay_within_etcd_s_stock_limit():
    writes = [Write(f"k{n}", b"", ABSENT) for n in range(OPERATIONS_MAX)]

    request = transaction(KEYS, writes, Fence(7))

    # etcd counts the largest of the three against --max-txn-ops, which is 128.
    assert max(len(request.compare), len(request.success), len(request.failure)) == 121


def test_only_what_is_compared_is_read_back():
    request = transaction(KEYS, [Write("a", b"1", ANY), Write("b", None, 5)], None)

    assert [compare.key for compare in request.compare] == [b"/homeport/b"]
    assert [each.request_range.key for each in request.failure] == [b"/homeport/b"]
    assert all(each.request_range.keys_only for each in request.failure)


@pytest.mark.parametrize(("asked", "granted"), [(0.3, 1), (5, 5), (5.2, 6)])
def test_a_lease_is_never_shorter_than_asked_for(asked, granted):
    assert ttl_of(asked) == granted
