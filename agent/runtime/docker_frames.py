"""Taking apart what an engine sends for logs and commands: frames, lines and times.

A decider: bytes in, chunks out. A newcomer's mistakes: a frame may arrive in any number of
pieces; with a terminal there are no frames at all; and the engine writes a time before
every message, also before the second half of a line longer than 16 kB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime

from agent.runtime.base import OutputChunk

_HEADER = struct.Struct(">BxxxL")
_STDERR = 2
_LONGEST_MESSAGE = 16 * 1024
_LONGEST_TIME = 40


class Frames:
    """Splits a multiplexed stream into (is standard error, data)."""

    def __init__(self) -> None:
        """Starts between two frames."""
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        """The frames that are complete now."""
        self._pending += data
        while len(self._pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._pending)
            end = _HEADER.size + length
            if len(self._pending) < end:
                return
            yield stream == _STDERR, bytes(self._pending[_HEADER.size : end])
            del self._pending[:end]


class TerminalMessages:
    """Splits a terminal's log, which has no frames, into messages that begin with a time."""

    def __init__(self) -> None:
        """Starts at the beginning of a message."""
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        """The messages that are complete now."""
        self._pending += data
        while message := self._take():
            yield False, message

    def rest(self) -> Iterator[tuple[bool, bytes]]:
        """What came without the end of its line, once the stream has ended."""
        if self._pending:
            yield False, bytes(self._pending)
            self._pending.clear()

    def _take(self) -> bytes:
        end = self._pending.find(b"\n") + 1
        space = self._pending.find(b" ", 0, _LONGEST_TIME) + 1
        longest = space + _LONGEST_MESSAGE
        if space and len(self._pending) >= longest and not 0 < end <= longest:
            end = longest
        message = bytes(self._pending[:end])
        del self._pending[:end]
        return message


def timed(message: bytes) -> tuple[int, bytes]:
    """The time that the engine put before a message, in nanoseconds since 1970, and the rest.

    0 and the whole message when it does not begin with a time.
    """
    stamp, space, text = message.partition(b" ")
    if not space or len(stamp) > _LONGEST_TIME or b"T" not in stamp:
        return 0, message
    try:
        at = datetime.fromisoformat(stamp.decode("ascii"))
    except ValueError:
        return 0, message
    fraction = stamp.partition(b".")[2].rstrip(b"Z").split(b"+")[0][:9]
    nanoseconds = int(fraction.ljust(9, b"0")) if fraction.isdigit() else 0
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000_000 + nanoseconds, text


def chunk(is_stderr: bool, at_ns: int, data: bytes) -> OutputChunk:
    """A piece of a log as the agent passes it on."""
    return OutputChunk(data=data, is_stderr=is_stderr, at_ms=at_ns // 1_000_000)
