"""Who may open the store's file, and whether what is in it can be trusted.

Beside `store.db` lies `store.db.lock`, which says who holds the store and whether it was
closed properly. Its flock keeps a second scheduler out; what it says gives away a file,
or a write-ahead log, that someone deleted: SQLite would quietly begin anew, and a
cluster would forget what it runs. All checks read only: a damaged file stays as it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from scheduler.store.base import Unavailable
from scheduler.store.sqlite.faults import damaged, translating
from scheduler.store.sqlite.grouping import checksum_of

APPLICATION_ID = 0x686F6D65
"""Marks our files: "home"."""
SCHEMA_VERSION = 1

SIDECAR_BYTES = 80
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24


class FileLock:
    """The sidecar of the store's file: held while the store is open."""

    def __init__(self, path: Path) -> None:
        """Take the lock for the store at `path`. Raises Unavailable, naming who holds it."""
        self.path = Path(f"{path}.lock")
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = re.search(rb"process (\d+)", self._read())
            os.close(self._file)
            process = f"process {holder[1].decode()}" if holder else "another process"
            raise Unavailable(
                f"{process} has the store {path} open, and only one scheduler may:"
                " stop it first, or give this one another data directory"
            ) from None
        said = self._read()
        self.store_existed = bool(said)
        self.was_open = b"open" in said

    def say_open(self) -> None:
        """The store exists and is in use: from now on a missing file is a lost one."""
        self._write(f"process {os.getpid()} has this store open")

    def say_closed(self) -> None:
        """All is in the main file; there need not be a write-ahead log."""
        self._write(f"closed by process {os.getpid()}")

    def release(self) -> None:
        """Let others have the store."""
        os.close(self._file)

    def _read(self) -> bytes:
        return os.pread(self._file, SIDECAR_BYTES, 0)

    def _write(self, text: str) -> None:
        # In place and always as long, so that it works on a full disk, too.
        os.pwrite(self._file, text.encode().ljust(SIDECAR_BYTES - 1) + b"\n", 0)
        os.fsync(self._file)


def check_files(path: Path, lock: FileLock) -> bool:
    """Whether there is a store at `path`; False: a new one may be made.

    Raises Damaged where files are missing that a store had left there.
    """
    log = Path(f"{path}-wal")
    if not path.exists():
        if lock.store_existed or log.exists():
            raise damaged(path, "the file is gone, but a store was kept here")
        return False
    if path.stat().st_size == 0:
        raise damaged(path, "the file is empty")
    if lock.was_open and not log.exists():
        raise damaged(
            path,
            f"its write-ahead log {log} is gone, and with it perhaps the last commits",
            f"Put {log} back, or restore a backup; to go on with what is left, remove {lock.path}",
        )
    return True


def check_content(path: Path) -> None:
    """Read everything once. Raises Damaged, or Unavailable where reading fails."""
    with translating(path), closing(_read_only(path)) as file:
        if file.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise damaged(path, "it is a database of another program")
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise Unavailable(
                f"the store {path} has schema {version}, this version of Homeport reads up to"
                f" {SCHEMA_VERSION}: run the newer version that wrote it"
            )
        _check_log_tail(path)
        verdict = [row[0] for row in file.execute("PRAGMA quick_check(3)")]
        if verdict != ["ok"]:
            raise damaged(path, "; ".join(verdict))
        _check_rows(path, file)


def _check_rows(path: Path, file: sqlite3.Connection) -> None:
    rows = file.execute("SELECT sequence, key, value, created, checksum FROM log")
    for sequence, key, value, created, checksum in rows:
        if checksum_of(sequence, key, value, created) != checksum:
            name = key.decode(errors="replace")
            raise damaged(path, f"the checksum of {name!r} at {sequence} does not match")
    loose = file.execute(
        "SELECT records.key FROM records LEFT JOIN log USING (sequence)"
        " WHERE log.key IS NOT records.key OR log.created IS NOT records.created"
        " OR log.value IS NULL LIMIT 1"
    ).fetchone()
    if loose:
        raise damaged(path, f"the record {loose[0].decode(errors='replace')!r} has no value")


def _check_log_tail(path: Path) -> None:
    """Look for acknowledged commits behind the point where SQLite stops reading its log.

    A log may end in one torn commit: power failed before it was acknowledged. SQLite stops
    at the first broken frame and says nothing; if two commits lie behind it, at least one
    of them had been acknowledged, because each waits for the disk before the next begins.
    Needs an open connection that has read something: it has left what it accepts in `-shm`.
    """
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    if not log.exists() or not index.exists():
        return
    with index.open("rb") as file:
        header = file.read(48)
    with log.open("rb") as file:
        frames_accepted = struct.unpack_from("=I", header, 16)[0] if len(header) == 48 else 0
        lost = _commits_behind(file, frames_accepted)
    if lost >= 2:
        raise damaged(
            path,
            f"its write-ahead log breaks off after frame {frames_accepted}, and of the"
            f" {lost} commits behind that at least {lost - 1} had been acknowledged",
            "Containers keep running. Restore a backup; or, to go on without those commits, run"
            " `sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'` and remove {path}.lock",
        )


def _commits_behind(log: BinaryIO, frames: int) -> int:
    header = log.read(WAL_HEADER_BYTES)
    if len(header) < WAL_HEADER_BYTES:
        return 0
    page_bytes, salts = struct.unpack_from(">I", header, 8)[0], header[16:24]
    found = 0
    log.seek(WAL_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + page_bytes))
    while len(frame := log.read(FRAME_HEADER_BYTES)) == FRAME_HEADER_BYTES:
        database_pages = struct.unpack_from(">I", frame, 4)[0]  # above 0: ends a commit
        found += frame[8:16] == salts and database_pages > 0
        log.seek(page_bytes, os.SEEK_CUR)
    return found


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
