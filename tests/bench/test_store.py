"""The store's own benchmark, in `make bench`; tests/bench/bench_store.py says what it is."""

import pytest

from tests.bench import bench_store

pytestmark = pytest.mark.bench


def test_the_sqlite_store_beside_a_bare_loop() -> None:
    print()
    bench_store.main([])


def test_the_etcd_store_beside_bare_puts() -> None:
    print()
    bench_store.main(["--store", "etcd"])
