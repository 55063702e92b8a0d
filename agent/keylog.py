"""A small durable map: a log of (kind, key, payload) entries, the latest of a key counts.

Entries are written in frames with a length and a checksum, whole or not at all: a frame
that a power cut tore off at the end is dropped, damage anywhere else is told. A newcomer's
mistake: this never touches a disk, it hands bytes to a `Medium`; the file is in
`state_dir.py`, a simulation brings its own.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import structlog

WRITE_SECONDS = 0.1
"""What is noted is gathered so long before it is written."""
SYNC_SECONDS = 5.0
"""What is noted is synced at most this often: flash wears out."""
COMPACT_BYTES = 256 * 1024
"""A log below this size is never rewritten; above, when it is four times what counts in it."""

Key = tuple[int, str]

_FRAME = struct.Struct("<II")  # length, crc32
_ENTRY = struct.Struct("<BHi")  # kind, bytes of key, bytes of payload (-1: deleted)

log = structlog.get_logger(__name__)


class JournalDamaged(Exception):
    """What is on the disk cannot be read; the text says where."""


class Medium(Protocol):
    """Where a log is kept: a file, or a simulated disk."""

    def read(self) -> bytes:
        """All of it, at start."""
        ...

    async def append(self, data: bytes, *, sync: bool) -> None:
        """Add to its end; with `sync` all of it survives a power cut once this returns.

        Raises OSError, and has then added nothing.
        """
        ...

    async def replace(self, data: bytes) -> None:
        """Put `data` in place of all of it, at once and durably. Raises OSError."""
        ...

    def truncate(self, size: int) -> None:
        """Drop what is behind the first `size` bytes: a torn frame. Raises OSError."""
        ...

    def set_aside(self) -> str:
        """Keep what is there under another name, which is returned, and start empty."""
        ...


class MemoryMedium:
    """A disk for tests and simulations: what was not synced is lost with the power."""

    def __init__(self) -> None:
        self.written = b""
        self.durable = b""
        self.syncs = 0
        self.error: OSError | None = None
        """Raised by all that writes, while it is set."""

    def read(self) -> bytes:
        """All of it."""
        return self.written

    async def append(self, data: bytes, *, sync: bool) -> None:
        """Add to its end."""
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.written += data
        if sync:
            self.durable = self.written
            self.syncs += 1

    async def replace(self, data: bytes) -> None:
        """Put `data` in place of all of it."""
        if self.error is not None:
            raise self.error
        self.written = self.durable = data
        self.syncs += 1

    def truncate(self, size: int) -> None:
        """Drop what is behind the first `size` bytes."""
        self.written = self.written[:size]

    def set_aside(self) -> str:
        """Start empty."""
        self.written = self.durable = b""
        return "memory"

    def cut_power(self) -> None:
        """Lose what was not synced."""
        self.written = self.durable


class KeyLog:
    """The map and its log."""

    def __init__(self, medium: Medium) -> None:
        """Read the log. Raises JournalDamaged."""
        self._medium = medium
        self.entries: dict[Key, bytes] = {}
        """What counts; for reading."""
        data = medium.read()
        whole_bytes = 0
        for end, entries in _parse(data):
            for key, payload in entries:
                self._absorb(key, payload)
            whole_bytes = end
        if whole_bytes < len(data):
            medium.truncate(whole_bytes)
        self._log_bytes = whole_bytes
        self._noted: dict[Key, bytes | None] = {}
        self._later: dict[Key, bytes | None] = {}
        self._wake = asyncio.Event()
        self._is_unsynced = False

    def note(self, key: Key, payload: bytes | None, *, soon: bool = True) -> None:
        """Set the key, or delete it with None; `run` writes it.

        What need not be written soon waits for the next sync, and may be replaced until then.
        """
        if soon:
            self._later.pop(key, None)
            self._noted[key] = payload
        else:
            self._later[key] = payload
        self._wake.set()

    async def commit(self, changes: Mapping[Key, bytes | None]) -> None:
        """Set these keys, all or none; they survive a power cut once this returns.

        Raises OSError, and has then changed nothing.
        """
        await self._write(dict(changes), sync=True)

    async def flush(self) -> None:
        """Write and sync what was noted, now. Raises OSError; it is noted still."""
        await self._write({}, sync=True)
        live_bytes = sum(map(len, self.entries.values()))
        if self._log_bytes > COMPACT_BYTES and self._log_bytes > 4 * live_bytes:
            data = _frame(self.entries)
            await self._medium.replace(data)
            self._log_bytes = len(data)

    async def run(self) -> None:
        """Write what is noted, for ever. An idle log writes nothing."""
        clock = asyncio.get_running_loop().time
        next_sync = 0.0
        while True:
            is_due = True
            try:
                has_rest = self._is_unsynced or self._later
                async with asyncio.timeout_at(next_sync if has_rest else None):
                    await self._wake.wait()
                await asyncio.sleep(WRITE_SECONDS)
                is_due = clock() >= next_sync
            except TimeoutError:
                pass
            try:
                if is_due:
                    next_sync = clock() + SYNC_SECONDS
                    await self.flush()
                else:
                    await self._write({}, sync=False)
            except OSError as error:
                # Containers go on without a journal; what was noted is tried again.
                log.warning("cannot write the journal", error=str(error))
                await asyncio.sleep(SYNC_SECONDS)

    async def _write(self, changes: dict[Key, bytes | None], *, sync: bool) -> None:
        noted, self._noted = self._noted, {}
        if sync:
            noted, self._later = {**noted, **self._later}, {}
        self._wake.clear()
        changes = {**noted, **changes}
        if not changes and not (sync and self._is_unsynced):
            return
        frame = _frame(changes) if changes else b""
        try:
            await self._medium.append(frame, sync=sync)
        except OSError:
            self._noted = {**noted, **self._noted}
            if self._noted:
                self._wake.set()
            raise
        for key, payload in changes.items():
            self._absorb(key, payload)
        self._log_bytes += len(frame)
        self._is_unsynced = not sync

    def _absorb(self, key: Key, payload: bytes | None) -> None:
        # The latest entry comes last, also in a log that is read again.
        self.entries.pop(key, None)
        if payload is not None:
            self.entries[key] = payload


def _frame(changes: Mapping[Key, bytes | None]) -> bytes:
    parts = []
    for (kind, key), payload in changes.items():
        name = key.encode()
        size = -1 if payload is None else len(payload)
        parts += [_ENTRY.pack(kind, len(name), size), name, payload or b""]
    body = b"".join(parts)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _parse(data: bytes) -> Iterator[tuple[int, Iterable[tuple[Key, bytes | None]]]]:
    """Each whole frame's end and entries. Raises JournalDamaged."""
    at = 0
    while at < len(data):
        if not any(data[at : at + _FRAME.size]) and not data[at:].strip(b"\0"):
            return  # the file grew, and the power went before its content was written
        if at + _FRAME.size > len(data):
            return
        size, checksum = _FRAME.unpack_from(data, at)
        body = data[at + _FRAME.size : at + _FRAME.size + size]
        end = at + _FRAME.size + size
        if end > len(data):
            return  # torn off at the end: it was never acted on
        if zlib.crc32(body) != checksum:
            if end == len(data):
                return
            raise JournalDamaged(f"the checksum at byte {at} of {len(data)} is wrong")
        yield end, _entries(body)
        at = end


def _entries(body: bytes) -> Iterable[tuple[Key, bytes | None]]:
    at = 0
    while at < len(body):
        kind, key_size, size = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        key = body[at : at + key_size].decode()
        at += key_size
        if size < 0:
            yield (kind, key), None
        else:
            yield (kind, key), body[at : at + size]
            at += size
