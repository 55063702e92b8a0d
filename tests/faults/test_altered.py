"""The altered clock is really wrong, in the program and in its guard: what F43 and F44 rest on."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import sys, time
from pathlib import Path
from tests.faults import altered
from homeport.seams import SystemClock
{setting}
clock = SystemClock()

def between():
    # The tightest of several: a machine that is busy may stop us between any two of these lines.
    readings = [(time.monotonic(), clock.boottime(), time.monotonic()) for _ in range(20)]
    return min(readings, key=lambda reading: reading[2] - reading[0])

before, begin, after = between()
time.sleep(0.2)
early, end, late = between()
print(
    (end - begin) / (late - before), (end - begin) / (early - after),
    clock.wall_ms() - time.time() * 1000,
)
"""


def measured(setting: str) -> tuple[float, float, float]:
    """The least and the most that boot time's rate can be, and how many ms the wall clock is off.

    Each reading of boot time lies between two of the real clock, so the rate is in these bounds
    whatever else the machine does meanwhile.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(setting=setting)],
        capture_output=True, text=True, timeout=30, check=True, cwd=ROOT,
    )  # fmt: skip
    least, most, offset = map(float, done.stdout.split())
    assert most - least < 0.004, "the machine never let two readings follow each other closely"
    return least, most, offset


def test_as_it_is_the_clock_is_right() -> None:
    least, most, offset = measured("")
    assert least <= 1.0 <= most
    assert abs(offset) < 1000


@pytest.mark.parametrize("rate", [0.8, 0.99, 1.01, 1.5])
def test_boot_time_runs_at_another_rate(rate: float) -> None:
    least, most, _ = measured(f"altered.skew_boottime({rate})")
    assert least <= rate <= most


def test_the_wall_clock_is_off_by_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "offset").write_text("-86400")
    least, most, offset = measured(f"altered.move_wall(Path({str(tmp_path / 'offset')!r}))")
    assert least <= 1.0 <= most
    assert offset == pytest.approx(-86_400_000, abs=1000)


def test_the_guard_has_the_same_clock() -> None:
    """What an agent starts as its guard is the wrapper, which skews and then runs the real one."""
    setting = (
        "altered.skew_boottime(0.5)\n"
        "from agent import guard, guarding\n"
        "names = [n for n, v in vars(guarding).items() if str(v).endswith('-guard.py')]\n"
        "assert names, 'the guard is started as it is'\n"
        "text = Path(str(getattr(guarding, names[0]))).read_text()\n"
        "assert guard.__file__ in text and '0.5' in text"
    )
    measured(setting)
