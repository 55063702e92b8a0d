"""Starts a scheduler or an agent as it is, but for what it is told of the machine: clock, boot id.

    python -m tests.faults.altered --wall-file FILE --rate 1.1 --boot-id X agent --name h1 …

The product has no switch for this, and shall have none. Homeport takes time from one class
(homeport.seams.SystemClock), so wrapping that one is the whole machine as far as it can tell; a
newcomer would need a library preloaded into Python, which the engines and etcd do not hear anyway.
The guard, a program of its own, is given the same clock by a wrapper of its file.
"""

import argparse
import runpy
import sys
import tempfile
import time
from pathlib import Path

from homeport import seams

PROGRAMS = ("agent", "scheduler", "homeport")

_GUARD = """
import runpy, sys, time
_real, _base, _rate = time.clock_gettime_ns, {base_ns}, {rate}
def _skewed_ns(clock):
    now = _real(clock)
    return int(_base + (now - _base) * _rate) if clock == time.CLOCK_BOOTTIME else now
time.clock_gettime_ns = _skewed_ns
time.clock_gettime = lambda clock: _skewed_ns(clock) / 1e9
sys.argv[0] = {guard!r}
runpy.run_path({guard!r}, run_name="__main__")
"""


def skew_boottime(rate: float) -> None:
    """Let boot time run `rate` times as fast from now on, in this process and its guard."""
    base_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boottime(self: seams.SystemClock) -> float:
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return (base_ns + (now_ns - base_ns) * rate) / 1e9

    seams.SystemClock.boottime = boottime  # type: ignore[method-assign]
    _skew_guard(base_ns, rate)


def _skew_guard(base_ns: int, rate: float) -> None:
    from agent import guard, guarding

    with tempfile.NamedTemporaryFile("w", suffix="-guard.py", delete=False) as wrapper:
        wrapper.write(_GUARD.format(base_ns=base_ns, rate=rate, guard=guard.__file__))
    places = [name for name, value in vars(guarding).items() if str(value) == guard.__file__]
    if not places:
        raise RuntimeError("agent.guarding does not say any more which file the guard is")
    for name in places:
        setattr(guarding, name, type(getattr(guarding, name))(wrapper.name))


def move_wall(file: Path) -> None:
    """Let the wall clock be off by as many seconds as the file says, from one call to the next."""

    def wall_ms(self: seams.SystemClock) -> int:
        return time.time_ns() // 1_000_000 + round(float(file.read_text() or 0) * 1000)

    seams.SystemClock.wall_ms = wall_ms  # type: ignore[method-assign]


def main() -> None:
    """Alter, then run the program's own __main__ with the rest of the words."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wall-file", type=Path)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--boot-id", default="")
    words = sys.argv[1:]
    place = next(at for at, word in enumerate(words) if word in PROGRAMS)
    options, program, rest = parser.parse_args(words[:place]), words[place], words[place + 1 :]
    if options.wall_file:
        move_wall(options.wall_file)
    if options.rate != 1.0:
        skew_boottime(options.rate)
    if options.boot_id:
        from agent.runtime import proc

        proc.boot_id = lambda: options.boot_id
    sys.argv = [str(Path(sys.argv[0])), *rest]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
