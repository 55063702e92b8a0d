"""Verify that Ctrl-C ends a process whatever its main thread does with it."""

import os
import signal
import subprocess
import sys

import pytest

SWALLOWS = """
import sys, time
from homeport.cli import interrupts

interrupts.TERM_SECONDS = float(sys.argv[1])
interrupts.interrupts.restore = lambda: print("the terminal is put back", flush=True)
with interrupts.interrupts.caught():
    interrupts.interrupts.set_term()
    word = "ready"
    while True:
        try:
            said, word = word, ""
            if said:
                print(said, flush=True)
            time.sleep(3600)
        except KeyboardInterrupt:
            print("swallowed", flush=True)
"""


@pytest.fixture
def stubborn():  # type: ignore[no-untyped-def]
    """A process that swallows every KeyboardInterrupt: start(seconds of its term)."""
    started = []

    def start(seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SWALLOWS, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_an_interrupt_that_is_swallowed_ends_the_process_when_its_term_is_up(stubborn) -> None:  # type: ignore[no-untyped-def]
    process = stubborn(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "swallowed\nthe terminal is put back\n")


def test_the_second_interrupt_ends_the_process_at_once(stubborn) -> None:  # type: ignore[no-untyped-def]
    process = stubborn(3600)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "swallowed\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "the terminal is put back\n")
