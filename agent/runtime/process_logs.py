"""Reading what a plain process wrote, from the two files that its keeper writes.

A newcomer's mistake: following by name alone. The file is replaced when it is full, so a
follower keeps its file open to the end and goes on with the one that took the name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from agent.runtime.base import OutputChunk

LOOK_SECONDS = 0.25


def entry(line: bytes) -> OutputChunk | None:
    """One line of a log file; None when it is not one (a crash in the middle of writing)."""
    stamp, _, rest = line.rstrip(b"\n").partition(b" ")
    stream, _, rest = rest.partition(b" ")
    kind, _, text = rest.partition(b" ")
    if not stamp.isdigit() or stream not in (b"o", b"e") or kind not in (b"F", b"P"):
        return None
    return OutputChunk(
        data=text + (b"\n" if kind == b"F" else b""),
        is_stderr=stream == b"e",
        at_ms=int(stamp),
    )


async def read(
    folder: Path,
    *,
    follow: bool,
    tail: int,
    since_ms: int,
    until_ms: int,
    is_over: Callable[[], bool],
) -> AsyncIterator[OutputChunk]:
    """What is in the log files of `folder`; following looks again until `is_over`."""

    def is_asked(chunk: OutputChunk) -> bool:
        return chunk.at_ms >= since_ms and (not until_ms or chunk.at_ms <= until_ms)

    reader = _Reader(folder)
    try:
        first = [chunk for chunk in reader.more() if is_asked(chunk)]
        for chunk in first[len(first) - tail :] if 0 <= tail < len(first) else first:
            yield chunk
        while follow:
            # Asked before reading: what came before the end must not be missed.
            is_last = is_over()
            for chunk in reader.more():
                if is_asked(chunk):
                    yield chunk
            if is_last:
                return
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        reader.close()


class _Reader:
    """Reads the older file, then the newer one, then what took its place."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._file: BinaryIO | None = _open(folder / "log.1") or _open(self._path)
        self._unfinished = b""

    def more(self) -> Iterator[OutputChunk]:
        while self._file is not None:
            for line in self._file:
                self._unfinished += line
                if self._unfinished.endswith(b"\n"):
                    chunk = entry(self._unfinished)
                    self._unfinished = b""
                    if chunk is not None:
                        yield chunk
            follower = _open(self._path)
            if follower is None or _is_same(self._file, follower):
                if follower is not None:
                    follower.close()
                return
            self._file.close()
            self._file = follower
        self._file = _open(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
