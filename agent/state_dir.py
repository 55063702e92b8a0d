"""The agent's state directory: its lock, its identity, the journal's file, and secrets' tmpfs.

All the agent's own file I/O is here. A newcomer's mistake: fsync on the event loop. On an
SD card it takes a second at times, so the journal's file has one thread of its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from agent.identity import Identity

T = TypeVar("T")


class StateDirBusy(Exception):
    """Another agent uses this state directory."""


class StateDir:
    """One agent's directory, locked for as long as this object lives."""

    def __init__(self, path: Path) -> None:
        """Make and lock the directory. Raises StateDirBusy, OSError."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateDirBusy(
                f"another agent uses {path}: give this one a directory of its own (--state-dir)"
            ) from None

    def close(self) -> None:
        """Let another agent have it."""
        os.close(self._lock)


class IdentityFile:
    """The identity as a small JSON file, replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Identity | None:
        """The identity; None on the first start. Raises OSError, ValueError."""
        try:
            fields = json.loads(self._path.read_bytes())
            return Identity(**{**fields, "schedulers": tuple(fields["schedulers"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._path} is damaged ({error}): restore it from a backup, or delete it to"
                " join as a new node"
            ) from error

    def save(self, identity: Identity) -> None:
        """Keep it durably. Raises OSError."""
        _replace(self._path, json.dumps(asdict(identity), indent=2).encode() + b"\n")


class PointedFile:
    """Where an operator says that the schedulers are now; one address a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[str, ...]:
        """The addresses; none where nobody said anything, or it cannot be read."""
        try:
            return tuple(self._path.read_text().split())
        except (OSError, UnicodeDecodeError):
            return ()

    def write(self, addresses: tuple[str, ...]) -> None:
        """Keep them durably. Raises OSError."""
        _replace(self._path, "".join(f"{each}\n" for each in addresses).encode())


class JournalFile:
    """The journal's medium on a real disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, "journal")
        self._file = -1
        self._size = 0

    def read(self) -> bytes:
        """All of it; opens the file. Raises OSError."""
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = self._path.read_bytes()
        self._size = len(data)
        return data

    async def append(self, data: bytes, *, sync: bool) -> None:
        """Add to its end. Raises OSError, and has then added nothing."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._append, data, sync)

    async def replace(self, data: bytes) -> None:
        """Put `data` in place of all of it. Raises OSError."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._replace, data)

    def set_aside(self) -> str:
        """Keep what is there under another name; start empty. Raises OSError."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        self._path.rename(aside)
        return str(aside)

    def close(self) -> None:
        """Finish what is being written."""
        self._writer.shutdown()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def truncate(self, size: int) -> None:
        """Drop what a power cut tore off, so that what follows can be read. Raises OSError."""
        os.ftruncate(self._file, size)
        self._size = size

    def _append(self, data: bytes, sync: bool) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._size + written)
            if sync:
                os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _replace(self, data: bytes) -> None:
        _replace(self._path, data)
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._size = len(data)


class SecretFiles:
    """The data of secrets, on a tmpfs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, digest: str, data: bytes, /) -> None:
        """Keep the data of the secret with this digest. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{digest}"
        fresh.write_bytes(data)
        fresh.chmod(0o400)
        fresh.rename(self._folder / digest)

    def get(self, digest: str, /) -> bytes | None:
        """Its data; None when it is not there."""
        try:
            return (self._folder / digest).read_bytes()
        except OSError:
            return None

    def drop(self, digest: str, /) -> None:
        """Forget it."""
        (self._folder / digest).unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
