"""Verify what is read of a member's metrics."""

import pytest

from scheduler.store.etcd.quota import quota_in

PAGE = b"""HTTP/1.0 200 OK\r\n\r
# HELP etcd_server_quota_backend_bytes Current backend storage quota size in bytes.
# TYPE etcd_server_quota_backend_bytes gauge
etcd_server_quota_backend_bytes %b
etcd_server_read_indexes_failed_total 0
"""


@pytest.mark.parametrize(
    ("value", "quota"),
    [
        (b"2.147483648e+09", 2_147_483_648),
        (b"4e+06", 4_000_000),
        (b"0", 0),
        (b"-1", 0),
        (b"NaN", 0),
        (b"+Inf", 0),
        (b"much", 0),
    ],
)
def test_the_quota_is_found_among_the_metrics(value, quota):
    assert quota_in(PAGE % value) == quota


def test_a_page_without_it_says_nothing():
    assert quota_in(b"HTTP/1.0 404 Not Found\r\n\r\n") == 0
    assert quota_in(b"") == 0
