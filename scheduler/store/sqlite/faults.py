"""SQLite's errors as the store's, in sentences that a user can act on.

What counts is whether the write may have happened. A full disk or a lock stops it before
it did. Any other failure of the COMMIT itself may have left a valid commit in the log on
disk: that is Ambiguous, and whoever wrote must look.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.store.base import Ambiguous, Damaged, StoreError, Unavailable

BEGIN_ANEW = (
    "Containers keep running. The file was left as it is. Stop the scheduler and restore a"
    " backup over it; or, to begin a new cluster, move {path}* away and start again"
)


def damaged(path: Path, what: str, advice: str = BEGIN_ANEW) -> Damaged:
    """The error for a file that cannot be trusted, with what to do."""
    return Damaged(f"the store {path} is damaged: {what}. {advice.format(path=path)}")


def translated(error: sqlite3.Error, path: Path, *, committing: bool = False) -> StoreError:
    """The store's error for one of SQLite's; `committing`: it came from COMMIT."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(path, str(error))
    if name == "SQLITE_FULL":
        return Unavailable(
            f"the disk of the store {path} is full: nothing was written; reads are still"
            " answered, and writes will be as soon as there is space again"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable(f"another program holds the store {path} locked: nothing was written")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return Unavailable(f"the store {path} cannot be opened for writing: {error}")
    if committing:
        return Ambiguous(f"the store {path} failed while it committed: {error} ({name})")
    return Unavailable(f"the store {path} failed, nothing was written: {error} ({name})")


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Let the store's errors out instead of SQLite's and the system's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except OSError as error:
        raise Unavailable(f"the store {path} cannot be used: {error}") from error
