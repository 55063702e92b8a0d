"""Try mutants: each in a process forked from one that has imported all but placement.

The changed module is compiled from its tree and handed to the import system; no file is written.
A process is stopped by its own time on the processor, not by the clock, so that a busy machine
makes no difference; one that needs much more than placement as it is does not end, and that is
noticed as well as an answer that is wrong.
"""

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from tests.placement.mutations.mutants import PACKAGE, code_of
from tests.seeds import ROOT

UNIT = Path("tests/unit/scheduler/placement")
CASES_FIRST, CASES = 40, 500
"""Random cases that are played before the unit tests, and after most of them."""
CASES_SECONDS, TESTS_SECONDS = 20, 120
"""Of the processor."""
MEMORY_BYTES = 4 << 30
SLOW = (
    ("test_filters.py", "test_engine.py"),
    ("test_granting.py", "test_fragmentation.py"),
    ("test_equal.py",),
)
"""Test files that take longest, after all others; those together are collected together.
`test_cases.py` is left out: its cases are played here, with fixed seeds."""


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of placement from changed code."""

    def __init__(self, mutant):
        self._name = f"{PACKAGE}.{mutant.file.removesuffix('.py')}"
        self._code = code_of(mutant)

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == self._name else None

    def exec_module(self, module):
        exec(self._code, module.__dict__)


class Failures:
    """A plugin of pytest: the first test that fails."""

    def __init__(self):
        self.first = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.first:
            self.first = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.first:
            self.first = report.nodeid


def preload():
    """Import what every mutant needs and none changes."""
    import hypothesis
    import numpy  # noqa: F401
    import pytest  # noqa: F401

    import homeport.compose
    import homeport.v1.types_pb2  # noqa: F401
    import scheduler.cluster.snapshot  # noqa: F401

    # The tests' own code is compiled once; beside the sources nothing is written.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(ROOT / ".simulation" / "pycache")
    # What is drawn is the same every time, and no test fails because the machine is busy.
    hypothesis.settings.register_profile(
        "mutants", deadline=None, derandomize=True, database=None, print_blob=False
    )
    hypothesis.settings.load_profile("mutants")
    assert not [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]


def start(mutant, hint=""):
    """Fork: (process, file for what it finds). `mutant` None: placement as it is."""
    handle, path = tempfile.mkstemp(prefix="mutant-")
    os.close(handle)
    process = os.fork()
    if process:
        return process, path
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(null, each)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        os.chdir(ROOT)
        Path(path).write_text(json.dumps({"caught": _try(mutant, hint)}))
    except BaseException as error:  # noqa: BLE001 - a mutant may raise whatever there is
        Path(path).write_text(json.dumps({"caught": f"{type(error).__name__}: {error}"[:200]}))
    finally:
        os._exit(0)


def result(path, status):
    """What caught a mutant whose process has ended; empty: nothing did."""
    text = Path(path).read_text()
    Path(path).unlink()
    if os.WIFSIGNALED(status):
        return "it does not end" if os.WTERMSIG(status) == signal.SIGXCPU else "it crashes"
    return json.loads(text)["caught"]


def try_unchanged():
    """What is wrong with placement as it is; empty: nothing."""
    process, path = start(None)
    try:
        _, status = os.waitpid(process, 0)
    except BaseException:
        stop(process, path)
        raise
    return result(path, status)


def stop(process, path):
    """The run was interrupted while it was tried."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    Path(path).unlink()


def _allow(seconds):
    """So much more of the processor, and no more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _try(mutant, hint):
    """What notices the mutant: the seed of a case, or a test. `hint`: what did the last time."""
    if mutant is not None:
        sys.meta_path.insert(0, Finder(mutant))
    _allow(CASES_SECONDS)
    try:
        from tests.placement import cases
    except Exception as error:  # noqa: BLE001 - a mutant may raise whatever there is
        return f"import: {type(error).__name__}"
    if hint.startswith("case ") and cases.play_seed(int(hint.split()[1])).mismatch:
        return hint
    if hint.startswith("tests/"):
        _allow(TESTS_SECONDS)
        if _test([hint]):
            return hint
        _allow(CASES_SECONDS)
    with contextlib.suppress(StopIteration):
        return next(_caught_by_cases(cases, 0, CASES_FIRST))
    *others, last = _ordered(mutant)
    for names in others:
        _allow(TESTS_SECONDS)
        if found := _test(names):
            return found
    _allow(CASES_SECONDS)
    with contextlib.suppress(StopIteration):
        return next(_caught_by_cases(cases, CASES_FIRST, CASES))
    _allow(TESTS_SECONDS)
    return _test(last)


def _caught_by_cases(cases, first, end):
    return (f"case {seed}" for seed in range(first, end) if cases.play_seed(seed).mismatch)


def _test(names):
    import pytest

    failures = Failures()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=0"]
    # Hypothesis was imported before pytest could look at it.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *names], plugins=[failures])
    assert code in (0, 1, 2), f"pytest ends with {code}"
    return failures.first


def _ordered(mutant):
    """The test files, together as they are collected: that of what is changed first."""
    own = f"test_{mutant.file}" if mutant is not None else ""
    slow = [name for names in SLOW for name in names]
    quick = sorted(
        (path.name for path in UNIT.glob("test_*.py") if path.name not in (*slow, "test_cases.py")),
        key=lambda name: (name != own, name),
    )
    groups = [quick, *SLOW]
    if own in slow:
        groups.insert(0, [own])
    return [[str(UNIT / name) for name in names] for names in groups]
