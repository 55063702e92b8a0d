"""A TCP relay between two hosts that delays, holds back and lets go: for late words, not lost ones.

A newcomer would drop packets and call it "late": TCP then sends them again, or gives up. Here the
sender's kernel has its acknowledgement at once, and the far side hears the bytes when we say so.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from typing import Self

_CHUNK_BYTES = 64 * 1024
_POLL_SECONDS = 0.05


class Relay:
    """Listens on `host` at a free port and forwards to `target`; one thread does all of it."""

    def __init__(self, target: tuple[str, int], *, host: str) -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self.delay_seconds = 0.0
        self.connections = 0
        self.late = 0
        """Pieces that were delivered later than they came."""
        self.held_bytes = 0
        self._holding = False
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._queues: dict[socket.socket, deque[tuple[float, bytes]]] = {}
        self._peers: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Self:
        """Begin to forward."""
        self._thread.start()
        return self

    def hold(self) -> None:
        """Keep what both sides say from now on."""
        self._holding = True

    def let_go(self) -> None:
        """Deliver what was kept, and go on as before."""
        self._holding = False

    def stop(self) -> None:
        """Close everything."""
        self._closing = True
        self._thread.join(timeout=10)
        for end in list(self._peers):
            end.close()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(_POLL_SECONDS / 5):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._receive(key.fileobj)
            self._deliver()

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(self._target, timeout=2)
        except OSError:
            near.close()
            return
        self.connections += 1
        for one, other in ((near, far), (far, near)):
            one.setblocking(True)
            one.settimeout(5)
            self._peers[one] = other
            self._queues[one] = deque()
            self._selector.register(one, selectors.EVENT_READ, "end")

    def _receive(self, end: socket.socket) -> None:
        try:
            chunk = end.recv(_CHUNK_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            self._close(end)
            return
        peer = self._peers.get(end)
        if peer is None:
            return
        if self._holding:
            self.held_bytes += len(chunk)
        if self.delay_seconds:
            self.late += 1
        self._queues[peer].append((time.monotonic() + self.delay_seconds, chunk))

    def _deliver(self) -> None:
        now = time.monotonic()
        if self._holding:
            return
        for end, queue in list(self._queues.items()):
            while queue and queue[0][0] <= now:
                _, chunk = queue.popleft()
                try:
                    end.sendall(chunk)
                except OSError:
                    self._close(end)
                    break

    def _close(self, end: socket.socket) -> None:
        for each in (end, self._peers.get(end)):
            if each is None or each not in self._peers:
                continue
            self._peers.pop(each)
            self._queues.pop(each, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
            each.close()
