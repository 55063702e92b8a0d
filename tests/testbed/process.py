"""A program under test as a child process: started, watched, killed, and quoted when it fails.

A newcomer would sleep until the program "should be up", and lose its output. `wait_for…` returns
the moment that the condition holds, fails at once when the program ends instead, and every
failure carries the end of the log.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed import sweep
from tests.testbed.ledger import Component, current_run

_POLL_SECONDS = 0.02
_TAIL_LINES = 40


class Daemon:
    """One command, started again as often as a test likes; its log goes on in the same file.

    It runs in a session of its own, so that Ctrl-C reaches the tests and not it. `namespace` is
    the name of a network namespace to run in. `environment` is added to this process's own.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        name: str | None = None,
        component: Component | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        namespace: str | None = None,
    ) -> None:
        self.argv = [os.fspath(word) for word in argv]
        self.name = name or Path(self.argv[0]).name
        self._component = component or current_run().component(self.name)
        self._owns_component = component is None
        self._environment = dict(environment or {})
        self._directory = directory
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = self._component.directory / f"{self.name}.log"
        # Where this start's output begins in the log.
        self._log_start = 0

    def start(self) -> Self:
        """Start the command; RuntimeError if it still runs."""
        if self.alive:
            raise RuntimeError(f"{self.name} runs already, as process {self.pid}")
        prefix = ["nsenter", f"--net=/run/netns/{self._namespace}"] if self._namespace else []
        self._component.directory.mkdir(exist_ok=True)
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                prefix + self.argv,
                env=self._component.environment() | self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The process of the last start; RuntimeError before the first."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs now (stopped by SIGSTOP counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last start: None while it runs, negative for a signal."""
        return None if self._process is None else self._process.poll()

    # ------------------------------------------------------------------------------- waiting

    def wait_for(
        self, holds: Callable[[], object], what: str, *, deadline_seconds: float = 20
    ) -> None:
        """Return once `holds()` is true; it may raise OSError for "not yet".

        TimeoutError at the deadline and RuntimeError when the process ends first, both with `what`
        was waited for and the end of the log.
        """
        deadline = time.monotonic() + deadline_seconds
        while True:
            try:
                if holds():
                    return
            except OSError:
                pass
            if not self.alive:
                raise RuntimeError(
                    f"{self.name} ended with exit code {self.exit_code} before {what}"
                    f"{self._quoted()}"
                )
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.name}: {deadline_seconds:g} s without {what}{self._quoted()}"
                )
            time.sleep(_POLL_SECONDS)

    def wait_for_port(
        self, port: int, *, host: str = "127.0.0.1", deadline_seconds: float = 20
    ) -> None:
        """Return once something accepts connections there; errors as wait_for."""

        def answers() -> bool:
            with socket.create_connection((host, port), timeout=1):
                return True

        self.wait_for(answers, f"an answer on {host}:{port}", deadline_seconds=deadline_seconds)

    def wait_for_line(self, pattern: str, *, deadline_seconds: float = 20) -> re.Match[str]:
        """The first match of the regular expression in what this start has written; errors as
        wait_for."""
        expression = re.compile(pattern)
        found: list[re.Match[str]] = []

        def matches() -> bool:
            match = expression.search(self.output())
            found.extend([match] if match else [])
            return match is not None

        self.wait_for(matches, f"{pattern!r} in its log", deadline_seconds=deadline_seconds)
        return found[0]

    def wait_for_end(self, *, deadline_seconds: float = 20) -> int:
        """The exit code, once it has ended; TimeoutError with the end of the log."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        try:
            return self._process.wait(timeout=deadline_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.name} still runs after {deadline_seconds:g} s{self._quoted()}"
            ) from None

    # ------------------------------------------------------------------------------- the log

    def output(self) -> str:
        """What this start has written so far, to stdout and stderr."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of this start's output."""
        return "\n".join(self.output().splitlines()[-lines:])

    def _quoted(self) -> str:
        tail = self.tail()
        return f"; its last words:\n{tail}" if tail else "; it wrote nothing"

    # ------------------------------------------------------------------------------- ending

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: it stays, connections open, and does nothing. Returns when it stands still."""
        sweep.stop({self.pid} if self.alive else set())

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill9(self) -> None:
        """SIGKILL to this process alone, not to its children; returns when it is gone."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def terminate(self, *, deadline_seconds: float = 20) -> int:
        """SIGTERM; the exit code once it has ended. TimeoutError, with the log, if it does not."""
        self.resume()
        self.signal(signal.SIGTERM)
        return self.wait_for_end(deadline_seconds=deadline_seconds)

    def restart(self) -> Self:
        """SIGTERM, wait, start."""
        if self.alive:
            self.terminate()
        return self.start()

    def stop(self) -> None:
        """End it and its children by SIGKILL, and delete its files if they are its own alone."""
        self.kill9()
        if self._owns_component:
            self._component.remove()

    def __enter__(self) -> Self:
        return self if self.alive else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now; somebody else may before you do."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
