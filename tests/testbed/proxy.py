"""A TCP connection that misbehaves on command: stalls, breaks, or stops after so many bytes.

A newcomer would close sockets and call it an outage. The cases that hurt are the silent ones: the
peer's kernel acknowledges, and no byte comes. `stall()` is that; `cut()` resets what is open.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 64 * 1024
_POLL_SECONDS = 0.05


class _Pair:
    """One connection: the client's socket and the target's, and which way has ended."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.sockets = (near, far)
        self.cut = False
        self.ways_ended = 0

    def reset(self) -> None:
        """Break both sides so that the peers see a reset; wakes the threads that wait for bytes."""
        self.cut = True
        for end in self.sockets:
            _reset(end)


class Wire:
    """Listens on `host` at a free port and forwards to `target`. A context manager.

    All connections share one state: stalled or flowing, and one count of bytes.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(_POLL_SECONDS)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._closing = threading.Event()
        self._refusing = threading.Event()
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._bytes_left: int | None = None
        self._delivered_bytes = 0
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """`host:port` to connect to."""
        return f"{self.host}:{self.port}"

    @property
    def delivered_bytes(self) -> int:
        """What the target has sent through so far."""
        return self._delivered_bytes

    # ------------------------------------------------------------------------------- trouble

    def stall(self) -> None:
        """From now on no byte passes in either direction; connections stay open."""
        self._flowing.clear()

    def stall_after(self, count: int) -> None:
        """Stall once the target has sent `count` bytes more."""
        with self._lock:
            self._bytes_left = count

    def resume(self) -> None:
        """Let bytes pass and connections be made again."""
        with self._lock:
            self._bytes_left = None
        self._refusing.clear()
        self._flowing.set()

    def cut(self, *, refuse: bool = False) -> None:
        """Reset every open connection; with `refuse` also each new one, until `resume()`."""
        if refuse:
            self._refusing.set()
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.reset()

    # ------------------------------------------------------------------------------ forwarding

    def start(self) -> Self:
        """Begin to forward."""
        self._spawn(self._accept)
        return self

    def stop(self) -> None:
        """Reset what is open and stop listening."""
        self._closing.set()
        self._flowing.set()
        self.cut()
        for thread in self._threads:
            thread.join(timeout=15)
        # A connection that was accepted while we cut.
        self.cut()
        self._listener.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            near.settimeout(None)
            if self._refusing.is_set():
                _reset(near)
                continue
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            pair = _Pair(near, far)
            with self._lock:
                self._pairs.add(pair)
            self._spawn(self._forward, pair, near, far, False)
            self._spawn(self._forward, pair, far, near, True)

    def _forward(
        self, pair: _Pair, source: socket.socket, sink: socket.socket, counted: bool
    ) -> None:
        """Pass bytes on until this way ends or the connection is cut."""
        # An error of either socket means that it was cut, here or at the far end.
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                while chunk:
                    self._flowing.wait()
                    part = chunk[: self._take(len(chunk))] if counted else chunk
                    sink.sendall(part)
                    chunk = chunk[len(part) :]
            self._flowing.wait()
            if not pair.cut:
                sink.shutdown(socket.SHUT_WR)
        with self._lock:
            pair.ways_ended += 1
            over = pair.ways_ended == 2
            if over:
                self._pairs.discard(pair)
        if over and not pair.cut:
            for end in pair.sockets:
                end.close()

    def _take(self, wanted: int) -> int:
        """How much of a piece may pass now, counted at once: connections share what is left.

        0 when another one took the last of it; the caller then waits for `resume`.
        """
        with self._lock:
            if not self._flowing.is_set():
                return 0
            granted = wanted if self._bytes_left is None else min(wanted, self._bytes_left)
            self._delivered_bytes += granted
            if self._bytes_left is not None:
                self._bytes_left -= granted
                if self._bytes_left <= 0:
                    self._bytes_left = None
                    self._flowing.clear()
            return granted

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _reset(end: socket.socket) -> None:
    """Close with a reset instead of an orderly end, and wake who waits for bytes from it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    end.close()
