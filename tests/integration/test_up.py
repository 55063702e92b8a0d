"""`homeport up --example`, as `make up` runs it: with Docker but no registry, and without."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testbed.engine import RunningEngine
from tests.testbed.process import Daemon

pytestmark = pytest.mark.timeout(180)


@contextmanager
def up(directory: Path, *arguments: str, **environment: str) -> Iterator[tuple[Daemon, str, str]]:
    """A cluster in the foreground; yields (it, the scheduler's address, the example's URL)."""
    command = [sys.executable, "-m", "homeport", "up", "--example", "--state-dir", directory]
    with Daemon([*command, *arguments], name="up", environment=environment) as daemon:
        daemon.wait_for_line("Ctrl-C here", deadline_seconds=120)
        address = daemon.wait_for_line(r"API (\S+),")[1]
        url = daemon.wait_for_line(r"The example answers at (\S+)")[1]
        yield daemon, address, url


def homeport(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeport", "-s", address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answer(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as page:
        return page.read().decode()


def processes_with(mark: str) -> list[int]:
    """Processes whose command line or working directory speaks of `mark`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            if mark.encode() in command or mark in os.readlink(f"/proc/{name}/cwd"):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.docker
def test_with_docker_and_no_registry_the_example_runs_in_containers_and_leaves_nothing(
    docker_engine: RunningEngine, tmp_path: Path
) -> None:
    client = docker_engine.client()
    before = {container["Id"] for container in client.containers(all=True)}
    networks = {network["Name"] for network in client.networks()}
    with up(tmp_path, "--runtime", "docker", DOCKER_HOST=docker_engine.host) as (daemon, _, url):
        assert answer(url).startswith("Hello from Homeport")
        assert len(client.containers()) == len(before) + 2
        daemon.signal(signal.SIGINT)
        assert daemon.wait_for_end(deadline_seconds=60) == 0
    assert {container["Id"] for container in client.containers(all=True)} == before
    assert {network["Name"] for network in client.networks()} == networks
    assert processes_with(str(tmp_path)) == []


def test_without_docker_the_example_runs_as_processes_and_says_so(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/no-docker.sock"
    with up(tmp_path, DOCKER_HOST=nowhere) as (daemon, address, url):
        assert "No Docker engine answers here" in daemon.output()
        assert answer(url).startswith("Hello from Homeport")
        listed = homeport(address, "ps")
        assert "RUNNING (healthy)" in listed.stdout
        assert "asked" in homeport(address, "logs", "hello/visitor").stdout
        daemon.signal(signal.SIGINT)
        assert daemon.wait_for_end(deadline_seconds=60) == 0
    assert processes_with(str(tmp_path)) == []
    with pytest.raises(OSError, match="refused"):
        answer(url)


def test_without_the_example_a_stop_leaves_what_runs(tmp_path: Path) -> None:
    """The control plane goes and comes; the program that it keeps does not notice."""
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no-docker.sock"}
    command = [sys.executable, "-m", "homeport", "up", "--state-dir", tmp_path]
    command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services:\n  sleeper:\n    command: [sleep, '100000']\n"
        "    x-homeport: {runtime: process}\n"
    )
    with Daemon(command, name="up", environment=nowhere) as daemon:
        address = daemon.wait_for_line(r"API (\S+),")[1]
        done = homeport(address, "apply", "-f", str(file), "-p", "nap", "--wait")
        assert done.returncode == 0, done.stderr
        pid = _pid(homeport(address, "ps", "-o", "json").stdout)
        daemon.signal(signal.SIGINT)
        assert daemon.wait_for_end(deadline_seconds=30) == 0
        assert Path(f"/proc/{pid}").exists()
        daemon.start()
        address = daemon.wait_for_line(r"API (\S+),")[1]
        assert _pid(homeport(address, "ps", "-o", "json").stdout) == pid
        assert homeport(address, "rm", "nap").returncode == 0
        assert not Path(f"/proc/{pid}").exists()
        daemon.signal(signal.SIGINT)
        daemon.wait_for_end(deadline_seconds=30)


def _pid(listing: str) -> int:
    found = re.search(r'"pid": "?(\d+)', listing)
    assert found is not None, listing
    return int(found[1])
