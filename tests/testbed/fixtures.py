"""The testbed's pytest fixtures, and the check that nothing of it outlives the run.

A test that needs an engine never skips: where none can be started it fails, and says what is
missing. The fixtures are shared by all tests of a session or module: a test removes the
containers, networks and volumes that it made, and heals what it cut. Where several processes
share the suite (pytest-xdist), each has a session of its own, with engines of its own.
"""

import os
import signal
import socket
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest
from docker.errors import DockerException

from tests.testbed import requirements
from tests.testbed.engine import Engine, RunningEngine
from tests.testbed.hosts import Lab
from tests.testbed.ledger import clean_crashed_runs, current_run
from tests.testbed.registry import Registry

_LEAKS = pytest.StashKey[list[str]]()
_LEAKS_KEY = "leaks"


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[RunningEngine]:
    """One engine with the test images. A private one; without root, the one of DOCKER_HOST."""
    problem = requirements.missing(requirements.ENGINE, root=True)
    if problem is None:
        with Engine() as engine:
            engine.load()
            yield engine
        return
    there = _engine_that_is_there()
    if there is None:
        pytest.fail(problem, pytrace=False)
    try:
        there.load()
        before = _container_ids(there)
        yield there
        if left := _container_ids(there) - before:
            pytest.fail(f"the tests left containers on {there.host}: {', '.join(sorted(left))}")
    finally:
        there.close()


@pytest.fixture(scope="module")
def lab3() -> Iterator[Lab]:
    """Three hosts with an engine each, test images loaded; one lab per test module."""
    if problem := requirements.missing(requirements.ENGINE, root=True):
        pytest.fail(problem, pytrace=False)
    with Lab(3) as lab:
        yield lab


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A container registry on the loopback, open to all; name your images by your test."""
    if problem := requirements.missing(requirements.REGISTRY):
        pytest.fail(problem, pytrace=False)
    with Registry() as registry:
        yield registry


def _engine_that_is_there() -> RunningEngine | None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not _somebody_listens(host):
        return None
    engine = RunningEngine(host)
    try:
        engine.client(timeout_seconds=5).ping()
    except DockerException:
        engine.close()
        return None
    return engine


def _somebody_listens(host: str) -> bool:
    """Asked first, because a client that cannot connect leaves its socket open."""
    url = urlsplit(host)
    try:
        if url.scheme != "unix":
            socket.create_connection((url.hostname, url.port or 2375), timeout=5).close()
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(url.path)
            return True
    except OSError:
        return False


def _container_ids(engine: RunningEngine) -> set[str]:
    client: docker.APIClient = engine.client()
    return {container["Id"][:12] for container in client.containers(all=True)}


# ------------------------------------------------------------------------------ nothing is left


def pytest_configure(config: pytest.Config) -> None:
    """Take everything down on SIGTERM too, as Ctrl-C does: `timeout` sends it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Once every fixture is gone, whatever the testbed still has is a leak: it fails the run."""
    result = yield
    leaks = session.config.stash.setdefault(_LEAKS, [])
    # Asking for the run would begin one, in a session that never used the testbed.
    if current_run.cache_info().currsize:
        run = current_run()
        leaks += run.leftovers()
        run.close()
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_LEAKS_KEY] = leaks  # the process that shares out the tests fails the run
    elif session.config.pluginmanager.hasplugin("dsession"):
        clean_crashed_runs()  # processes that were interrupted had no time to
    if leaks and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of several processes has ended: its leaks are the run's."""
    leaks = node.config.stash.setdefault(_LEAKS, [])
    leaks += getattr(node, "workeroutput", {}).get(_LEAKS_KEY, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left, and has been removed now."""
    if leaks := config.stash.get(_LEAKS, []):
        terminalreporter.section("left behind by the tests (removed now)", red=True)
        for leak in leaks:
            terminalreporter.line(leak)
