"""The stores under the two million: a real etcd of one member, or the SQLite file.

Both count the records of tasks themselves, past the scheduler: that is what durable means.
"""

import json
import sqlite3
from contextlib import closing

from tests.testbed.etcd import Etcd

QUOTA_BYTES = 8 << 30
"""etcd's own advice for large clusters; the stock 2 GiB hold two million tasks and no more."""


class _Etcd:
    """One member with stock limits of operations and bytes."""

    def __init__(self, directory):
        self._etcd = Etcd(quota_bytes=QUOTA_BYTES)

    @property
    def arguments(self):
        return ["--store", "etcd", "--etcd-endpoints", ",".join(self._etcd.endpoints)]

    @property
    def pid(self):
        return self._etcd.members[0].daemon.pid

    def tasks(self):
        # An answer counts all that there are, however few it brings.
        words = ("--prefix", "--keys-only", "--limit=1", "--write-out=json", "/homeport/tasks/")
        return json.loads(self._etcd.ctl("get", *words)).get("count", 0)

    def size_bytes(self):
        return _size(self._etcd.members[0].directory)

    def __enter__(self):
        self._etcd.start()
        return self

    def __exit__(self, *_):
        self._etcd.stop()


class _Sqlite:
    """The file in the scheduler's state directory."""

    pid = 0
    arguments = ("--store", "sqlite")

    def __init__(self, directory):
        self._file = directory / "store.db"
        self._directory = directory

    def tasks(self):
        with closing(sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True)) as file:
            rows = "SELECT count(*) FROM records WHERE key >= ? AND key < ?"
            return file.execute(rows, (b"tasks/", b"tasks0")).fetchone()[0]

    def size_bytes(self):
        return _size(self._directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _size(directory):
    return sum(each.stat().st_blocks * 512 for each in directory.rglob("*") if each.is_file())


STORES = {"etcd": _Etcd, "sqlite": _Sqlite}
