"""The store in one SQLite file: the default for a cluster with one control node.

`shell` is the asyncio side and `queue` its group commit. `database` opens the file for the
blocking side: `writer`, with `grouping` deciding what a group of commits writes, and
`reader`. `opening` holds the lock and the checks of a file that may be damaged, `faults`
puts SQLite's errors into words.
"""

from scheduler.store.sqlite.shell import SqliteStore

__all__ = ["SqliteStore"]
