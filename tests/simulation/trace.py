"""What happened in a run, line by line: the last lines for people, a hash of all for replays."""

import hashlib
import logging
import traceback
from collections import deque

import structlog

from tests.simulation.loop import PROCESS

LINES_KEPT = 200

_ACTIVE = None


class Trace:
    """One run's story; the product's log goes into it."""

    def __init__(self, loop, on_error):
        """`on_error` is told of what the product logs as an error."""
        self.lines = deque(maxlen=LINES_KEPT)
        self._loop = loop
        self._on_error = on_error
        self._hash = hashlib.sha256()

    def note(self, text):
        """Add a line."""
        line = f"{self._loop.now:9.3f} {text}"
        self.lines.append(line)
        self._hash.update(line.encode())

    def count(self, text):
        """Add to the hash alone: too frequent to be read."""
        self._hash.update(f"{self._loop.now:.6f}{text}".encode())

    @property
    def digest(self):
        return self._hash.hexdigest()

    def listen(self):
        """From now on structlog's events come here."""
        global _ACTIVE  # noqa: PLW0603 - structlog's configuration is the process's
        _ACTIVE = self
        structlog.configure(
            processors=[_take],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            cache_logger_on_first_use=False,
        )

    def deafen(self):
        global _ACTIVE  # noqa: PLW0603
        _ACTIVE = None
        structlog.reset_defaults()


def _take(_logger, level, event):
    trace = _ACTIVE
    if trace is None:
        raise structlog.DropEvent
    said = event.pop("event")
    error = event.pop("exc_info", None)
    process = PROCESS.get()
    who = f"{process[0]}#{process[1]}" if process else "-"
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    trace.note(f"{who:6} {said} {rest}")
    if level in ("error", "critical", "exception") or error:
        text = traceback.format_exc() if error is True else repr(error or "")
        trace._on_error(f"{who}: {said} {rest}\n{text}")
    raise structlog.DropEvent
