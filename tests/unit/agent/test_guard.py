"""The guard's rules, its page, and how it finds processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent import guard
from agent.guard import LOOK_NS, STAMP_NS, Page

SECOND = 1_000_000_000
DOCKER_ID = "4f44054ffbaffef6bd34fccacbbc800d" * 2
MARKS = (f"c {DOCKER_ID}",)


@pytest.mark.parametrize(
    ("now_ns", "until_ns", "marks", "due"),
    [
        pytest.param(99, 100, MARKS, False, id="before the end nothing is due"),
        pytest.param(100, 100, MARKS, True, id="at the end it is"),
        pytest.param(101, 100, (), False, id="without tasks nothing ever is"),
        pytest.param(5, 0, MARKS, True, id="without any lease it is"),
    ],
)
def test_what_is_due(now_ns: int, until_ns: int, marks: tuple[str, ...], due: bool) -> None:
    assert guard.is_due(now_ns, until_ns, marks) is due


@pytest.mark.parametrize(
    ("now_ns", "until_ns", "marks", "pause_ns"),
    [
        pytest.param(0, 10 * SECOND, MARKS, STAMP_NS, id="it shows itself while the lease lasts"),
        pytest.param(0, 7, MARKS, 7, id="it is there when the lease ends"),
        pytest.param(20, 10, MARKS, LOOK_NS, id="it looks again and again after the end"),
    ],
)
def test_when_it_looks_next(
    now_ns: int, until_ns: int, marks: tuple[str, ...], pause_ns: int
) -> None:
    assert guard.pause_ns(now_ns, until_ns, marks) == pause_ns


@pytest.mark.parametrize(
    ("cgroups", "is_named"),
    [
        (f"4:memory:/docker/{DOCKER_ID}\n0::/\n", True),
        (f"0::/system.slice/docker-{DOCKER_ID}.scope\n", True),
        (f"0::/../{DOCKER_ID}\n", True),
        ("0::/homeport/ab-web.1.1\n", True),
        ("4:memory:/homeport/ab-web.1.1/inner\n", True),
        ("0::/homeport/ab-web.1.10\n", False),
        ("0::/homeport/ab-web.1.1.2.3\n", False),
        ("0::/homeport/xab-web.1.1\n", False),
        ("0::/user.slice\n", False),
        ("", False),
    ],
)
def test_a_process_is_known_by_its_control_group(cgroups: str, is_named: bool) -> None:
    assert guard.is_named(cgroups, (*MARKS, "p ab-web.1.1", "r /nowhere", "n db/1/1")) is is_named


def test_what_is_left_on_the_page_is_read_by_another(tmp_path: Path) -> None:
    page, other = Page(str(tmp_path / "page")), Page(str(tmp_path / "page"))
    assert (other.marks, other.lease_until_ns, other.lapsed_ns) == ((), 0, 0)
    page.lease_until_ns, page.lapsed_ns = 5, 4
    page.arm(("c one", "p two"))
    assert (other.marks, other.lease_until_ns) == (("c one", "p two"), 5)
    page.arm(("c three",))
    assert other.marks == ("c three",)
    page.arm(())
    assert other.marks == ()
    page.close()
    after = Page(str(tmp_path / "page"))
    assert (after.lease_until_ns, after.lapsed_ns) == (5, 4)


def test_marks_that_were_half_written_do_not_count(tmp_path: Path) -> None:
    page = Page(str(tmp_path / "page"))
    page.arm(("c one",))

    class Killed(Exception):
        pass

    class Words:
        """The last store, which makes the new marks count, does not happen."""

        def __getitem__(self, place: int) -> int:
            return words[place]

        def __setitem__(self, place: int, value: int) -> None:
            raise Killed

    words, page._words = page._words, Words()  # type: ignore[assignment]
    with pytest.raises(Killed):
        page.arm(("c two", "c three"))
    assert Page(str(tmp_path / "page")).marks == ("c one",)


def test_more_marks_than_the_page_holds_are_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    page = Page(str(tmp_path / "page"))
    page.arm(("c one",))
    with pytest.raises(ValueError, match="2000 tasks"):
        page.arm(("c " + DOCKER_ID,) * 2000)
    assert page.marks == ("c one",)


def test_a_file_that_is_no_page_becomes_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"\xff" * Page.SIZE)
    page = Page(str(tmp_path / "page"))
    assert (page.marks, page.lease_until_ns, page.guard) == ((), 0, (0, 0))


def test_a_page_that_was_deleted_is_noticed(tmp_path: Path) -> None:
    page = Page(str(tmp_path / "page"))
    assert not page.is_gone()
    (tmp_path / "page").unlink()
    assert page.is_gone()


def test_processes_are_found_in_proc_and_zombies_left_alone(tmp_path: Path) -> None:
    for pid, cgroups, state in [
        (7, f"0::/docker/{DOCKER_ID}\n", "S"),
        (8, f"0::/docker/{DOCKER_ID}\n", "Z"),
        (9, "0::/user.slice\n", "S"),
    ]:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cgroup").write_text(cgroups)
        (folder / "stat").write_text(f"{pid} (a) b) {state} 1 2")
    (tmp_path / "self").mkdir()
    found = [pid for _, pid in guard.processes(MARKS, str(tmp_path))]
    assert found == [7]


def test_a_plain_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    run = tmp_path / "run.json"
    keeper = '"keeper": 1, "keeper_ticks": 2'
    try:
        ticks = guard.start_ticks(child.pid)
        run.write_text(f'{{{keeper}, "pid": {child.pid}, "ticks": {ticks + 1}}}')
        assert guard.end((f"r {run}",)) == (0, 0), "another process had this pid"
        run.write_text(f'{{{keeper}, "pid": {child.pid}, "ticks": {ticks}}}')
        assert guard.end((f"r {run}",)) == (1, 0)
        assert child.wait(5) == -9
    finally:
        child.kill()
        child.wait()


def test_the_guard_needs_only_a_handful_of_modules() -> None:
    def modules(program: str) -> set[str]:
        argv = [sys.executable, "-I", "-S", "-c", f"import os, sys\n{program}\nprint(*sys.modules)"]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())

    source = f"exec(open({guard.__file__!r}).read(), {{'__name__': 'guard'}})"
    assert modules(source) - modules("") <= {"mmap", "time", "__future__"}
