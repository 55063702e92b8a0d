"""Ctrl-C ends a command for certain.

Python notes a signal and acts upon it when the main thread next runs a line of Python: never,
where it is about to begin a wait without end. What it then raises, a KeyboardInterrupt, can be
swallowed where the main thread happens to be, by a finaliser or a callback of gRPC; and there
are ends that hang, in a channel that waits for its thread. So another thread is told of the
signal too. It wakes the main thread until that has noticed, and ends the process as it is
after a term, or at the second Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
TERM_SECONDS = 2.0
"""How long a command may take to end by itself after Ctrl-C."""
WAKE_SECONDS = 0.5
"""How often the main thread is woken until it has noticed. gRPC looks for signals after 0.2 s of
undisturbed waiting: woken more often than that, it never would."""


class Interrupts:
    """What Ctrl-C does to this process."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self.restore: Callable[[], None] = lambda: None
        """Puts the terminal back; called where the process ends without unwinding."""
        self.came = False
        self._is_caught = False
        self._write = -1

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Notice Ctrl-C while this lasts, where nobody else does."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            yield  # not ours to decide: a test, or a shell that had it ignored
            return
        self.came, self._is_caught = False, True
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            self._is_caught = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._write >= 0:
                signal.set_wakeup_fd(-1)
                os.close(self._write)  # which ends the thread
                self._write = -1

    def set_term(self) -> None:
        """From now on the end has a term: nothing is to be taken down that takes time."""
        if not self._is_caught or self._write >= 0:
            return
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        main = threading.get_ident()
        threading.Thread(target=self._see_to_it, args=(read, main), daemon=True).start()

    def answered(self) -> None:
        """Ctrl-C is how this command is meant to end: its own exit code counts."""
        self.came = False

    def end(self) -> None:
        """End the process now, if Ctrl-C came; what was written is written out."""
        if not self.came:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(INTERRUPTED)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.came and self._write >= 0:
            return  # the thread that wakes us up counts
        self.came = True
        raise KeyboardInterrupt

    def _see_to_it(self, read: int, main: int) -> None:
        try:
            found = _interrupts_in(read)
            if not found:
                return  # the command has ended by itself
            # The second one may have come before this thread had its turn.
            term_seconds = TERM_SECONDS if found == 1 else 0.0
            until, expected = time.monotonic() + term_seconds, 0
            while (left := until - time.monotonic()) > 0:
                if select.select([read], [], [], min(WAKE_SECONDS, left))[0]:
                    expected -= os.read(read, 64).count(signal.SIGINT)
                    if expected < 0:
                        break  # more than we sent: somebody means it
                elif not self.came:
                    expected += 1
                    signal.pthread_kill(main, signal.SIGINT)
                else:
                    expected = 0  # two of them at once are one: it may never come
        finally:
            os.close(read)
        with contextlib.suppress(Exception):
            self.restore()
        os._exit(INTERRUPTED)


def _interrupts_in(read: int) -> int:
    """Wait for a signal that is Ctrl-C; 0 when there will be none."""
    while data := os.read(read, 64):
        if found := data.count(signal.SIGINT):
            return found
    return 0


interrupts = Interrupts()
"""Those of this process: signals are its own, and not a command's."""
