"""The SQLite file behind the store: making, opening and closing it.

One connection writes, in the writer's thread; one reads, in the reader's. So reads are
answered while the disk is slow or full, and they see only what is durable: WAL with
`synchronous=FULL` shows a commit after the disk has it. A newcomer's mistake: writing
anything besides commits, for instance a bookmark or a heartbeat; every transaction costs
a flash card about 20 kB, and an idle cluster writes nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from scheduler.store.base import Unavailable
from scheduler.store.sqlite.faults import translating
from scheduler.store.sqlite.opening import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    FileLock,
    check_content,
    check_files,
)
from scheduler.store.sqlite.reader import Reader
from scheduler.store.sqlite.writer import Writer

TABLES = """
BEGIN;
CREATE TABLE log (
    sequence INTEGER PRIMARY KEY,  -- revision << 20 | position in the commit
    key BLOB NOT NULL,
    value BLOB,                    -- NULL: deleted
    created INTEGER NOT NULL,
    previous INTEGER NOT NULL,     -- the row that this one replaced, 0: none
    checksum INTEGER NOT NULL
);
CREATE TABLE records (
    key BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL,     -- the last row that the log has for this key
    created INTEGER NOT NULL,
    leased INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE compacted (revision INTEGER NOT NULL);
INSERT INTO compacted VALUES (0);
COMMIT;
"""

BUSY_SECONDS = 2.0
"""How long to wait for another program (a shell, a backup) that holds the file locked."""
LOG_BYTES_MAX = 4_194_304
"""The write-ahead log is cut back to this size after a checkpoint."""


class Database:
    """The file, open."""

    def __init__(self, path: Path, *, history_revisions: int) -> None:
        """Open or make the store. Raises Unavailable (held, disk) or Damaged."""
        self._path = path
        with ExitStack() as undo:
            undo.enter_context(translating(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path)
            undo.callback(self._lock.release)
            if check_files(path, self._lock):
                check_content(path)
            else:
                _make(path)
            write = undo.enter_context(closing(_connect(path)))
            self.writer = Writer(path, write, history_revisions=history_revisions)
            read = undo.enter_context(closing(_connect(path)))
            self.reader = Reader(path, read)
            _sync_directory(path)  # the write-ahead log is there now, and must not be missed
            self._lock.say_open()
            self.writer.end_old_leases()
            self._connections = (read, write)
            undo.pop_all()

    def close(self) -> None:
        """Move everything to the main file, where that is possible, and let go."""
        read, write = self._connections
        try:
            with closing(write):
                read.close()
                busy = write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    self._lock.say_closed()
        except (sqlite3.Error, OSError):
            pass  # full disk: the log keeps what was committed, and is read when next opened
        finally:
            self._lock.release()


def _make(path: Path) -> None:
    """Make an empty store under another name and move it into place: all of it or nothing."""
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as file:
        file.execute("PRAGMA auto_vacuum = INCREMENTAL")
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        file.executescript(TABLES)
    new.rename(path)
    _sync_directory(path)


def _connect(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # both are opened and closed in the writer's thread
    )
    mode = file.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        file.close()
        raise Unavailable(f"the file system of {path} cannot hold a write-ahead log")
    file.execute("PRAGMA synchronous = FULL")
    file.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    return file


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
