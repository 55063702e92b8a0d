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
begin, real = clock.boottime(), time.monotonic()
while time.monotonic() - real < 0.2:
    pass
print((clock.boottime() - begin) / (time.monotonic() - real), clock.wall_ms() - time.time() * 1000)
"""


def measured(setting: str) -> tuple[float, float]:
    """How fast boot time runs in such a program, and by how many ms its wall clock is off."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(setting=setting)],
        capture_output=True, text=True, timeout=30, check=True, cwd=ROOT,
    )  # fmt: skip
    rate, offset = done.stdout.split()
    return float(rate), float(offset)


def test_as_it_is_the_clock_is_right() -> None:
    rate, offset = measured("")
    assert rate == pytest.approx(1.0, abs=0.002)
    assert abs(offset) < 1000


@pytest.mark.parametrize("rate", [0.8, 0.99, 1.01, 1.5])
def test_boot_time_runs_at_another_rate(rate: float) -> None:
    found, _ = measured(f"altered.skew_boottime({rate})")
    assert found == pytest.approx(rate, abs=0.004)


def test_the_wall_clock_is_off_by_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "offset").write_text("-86400")
    rate, offset = measured(f"altered.move_wall(Path({str(tmp_path / 'offset')!r}))")
    assert rate == pytest.approx(1.0, abs=0.002)
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
