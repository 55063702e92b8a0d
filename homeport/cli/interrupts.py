"""Ctrl-C ends a command for certain.

Python turns it into a KeyboardInterrupt wherever the main thread happens to be, and there
are places that swallow one: a finaliser, a callback of gRPC. There are also ends that hang,
in a channel that waits for its thread. So the first Ctrl-C also sets a term, after which the
process ends as it is, and a second one ends it at once.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
TERM_SECONDS = 2.0
"""How long a command may take to end by itself after Ctrl-C."""


class Interrupts:
    """What Ctrl-C does to this process."""

    def __init__(self) -> None:
        """Nothing is caught before `caught`."""
        self.restore: Callable[[], None] = lambda: None
        """Puts the terminal back; called where the process ends without unwinding."""
        self.came = False
        self._has_term = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Notice Ctrl-C while this lasts, where nobody else does."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            yield  # not ours to decide: a test, or a shell that had it ignored
            return
        self.came = False
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def set_term(self) -> None:
        """From now on the end has a term: nothing is to be taken down that takes time."""
        self._has_term = True

    def end(self) -> None:
        """End the process now, if Ctrl-C came; what was written is written out."""
        if not self.came:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(INTERRUPTED)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            self._end_now()
        self.came = True
        if self._has_term:
            # No lock may be needed here: the main thread can hold any, this one among them.
            _thread.start_new_thread(self._end_at_term, ())
        raise KeyboardInterrupt

    def _end_at_term(self) -> None:
        time.sleep(TERM_SECONDS)
        self._end_now()

    def _end_now(self) -> None:
        with contextlib.suppress(Exception):
            self.restore()
        os._exit(INTERRUPTED)


interrupts = Interrupts()
"""Those of this process: signals are its own, and not a command's."""
