"""The store in one SQLite file: the default for a cluster with one control node.

`SqliteStore` is the asyncio side (queue, leases, watches), `database` the blocking side
with all SQL, `grouping` decides what a group of commits writes, `opening` holds the lock
and the checks of a file that may be damaged, `faults` puts SQLite's errors into words.
"""

from scheduler.store.sqlite.shell import SqliteStore

__all__ = ["SqliteStore"]
