"""A backup as a file: written under another name, checked, and only then there.

The file holds what secrets there are, so nobody but its owner may read it. A newcomer's
mistake: writing to the final name. A disk that fills up half way would leave something that
looks like a backup.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from homeport.backup import BackupDamaged, Header, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A backup that is there."""

    header: Header
    records: int
    size_bytes: int


def write(path: Path, pieces: Iterable[bytes], *, overwrite: bool = False) -> Written:
    """Write a backup and read it again; on any failure nothing is left under `path`.

    Raises FileExistsError unless `overwrite`, OSError (a full disk, say), BackupDamaged when
    what was written is not whole, and whatever `pieces` raises.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(17, "it exists already; --force writes over it", str(path))
    part = path.with_name(f".{path.name}.part")
    with suppress(FileNotFoundError):
        part.unlink()
    try:
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:  # of the name that was asked for, not of ours
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(file, "w+b") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
            size_bytes = stream.tell()
            stream.seek(0)
            reader = Reader(stream)
            records = reader.check()
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
    return Written(header=reader.header, records=records, size_bytes=size_bytes)


def read(path: Path) -> tuple[Header, list[tuple[str, bytes]]]:
    """A whole backup. Raises OSError, or BackupDamaged with the file's name in it."""
    try:
        with path.open("rb") as stream:
            reader = Reader(stream)
            return reader.header, list(reader.entries())
    except BackupDamaged as error:
        raise BackupDamaged(f"{path}: {error}") from error
