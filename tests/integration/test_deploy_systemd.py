"""The units in deploy/systemd: systemd understands every line, and the daemons keep their word.

What this does not show: the sandbox at work. No test machine is sure to run systemd as its first
process, so the daemons are started here with a unit's command line and environment, by hand.
"""

import configparser
import os
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.process import Daemon, free_port

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
NAMES = ("homeport-scheduler", "homeport-agent")
INSTALLED = "/opt/homeport/bin/homeport"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen to what the service says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(30)
        yield bound


def _unit(name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / f"{name}.service").read_text())
    return parser["Service"]


def _complaints(text: str, name: str, folder: Path) -> list[str]:
    """What systemd says about a unit of this text, whose program is taken as installed."""
    program = shutil.which("true")
    file = folder / f"{name}.service"
    file.write_text(text.replace(INSTALLED, str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # It also reads the units of this machine that ours names; those are not ours to judge.
    return [line for line in (done.stdout + done.stderr).splitlines() if name in line]


@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line_of_the_unit(name: str, tmp_path: Path) -> None:
    text = (UNITS / f"{name}.service").read_text()
    assert _complaints(text, name, tmp_path) == []
    # And it would have said so otherwise.
    broken = text.replace("KillMode=", "KilMode=")
    assert any("KilMode" in line for line in _complaints(broken, name, tmp_path))


def test_the_scheduler_is_shut_in_and_the_agent_leaves_its_tasks_alone() -> None:
    scheduler, agent = _unit("homeport-scheduler"), _unit("homeport-agent")
    assert scheduler["DynamicUser"] == "yes"
    assert scheduler["CapabilityBoundingSet"] == ""
    assert scheduler["ProtectSystem"] == "strict"
    # Plain processes and the secrets that containers have mounted outlive the agent …
    assert agent["KillMode"] == "process"
    assert agent["RuntimeDirectoryPreserve"] == "yes"
    # … and what the engine can bind-mount the agent can see.
    for hiding in ("ProtectHome", "PrivateTmp", "ProtectSystem", "PrivateDevices"):
        assert hiding not in agent


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_cannot_be_used_are_not_tried_again(name: str, tmp_path: Path) -> None:
    unit = _unit(name)
    command = [*_command(unit, tmp_path), "--log-level", "nonsense"]
    usage = subprocess.run(command, capture_output=True, check=False, timeout=60).returncode
    setting = f"HOMEPORT_{name.removeprefix('homeport-').upper()}_INSECURE"
    unusable = subprocess.run(
        _command(unit, tmp_path),
        env={**os.environ, setting: "perhaps"},
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode
    assert {usage, unusable} == set(map(int, unit["RestartPreventExitStatus"].split()))


@pytest.mark.parametrize("name", NAMES)
def test_the_service_says_that_it_is_ready_alive_and_stopping(
    name: str, listener: socket.socket, tmp_path: Path
) -> None:
    unit = _unit(name)
    assert unit["Type"] == "notify"
    settings = {
        "homeport-scheduler": {
            "HOMEPORT_SCHEDULER_LISTEN": f"127.0.0.1:{free_port()}",
            "HOMEPORT_SCHEDULER_HTTP": f"127.0.0.1:{free_port()}",
        },
        "homeport-agent": {
            # Nobody answers there: an agent is a ready service all the same.
            "HOMEPORT_AGENT_SCHEDULER": f"127.0.0.1:{free_port()}",
            "HOMEPORT_AGENT_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        },
    }[name]
    environment = {
        **settings,
        "NOTIFY_SOCKET": listener.getsockname(),
        "WATCHDOG_USEC": str(int(unit["WatchdogSec"]) * 1_000_000),
    }
    with Daemon(_command(unit, tmp_path), name=name, environment=environment) as daemon:
        heard = listener.recv(1000).decode().splitlines()
        while not {"READY=1", "WATCHDOG=1"} <= set(heard):
            heard += listener.recv(1000).decode().splitlines()
        daemon.signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += listener.recv(1000).decode().splitlines()
        assert daemon.wait_for_end() == 0


def _command(unit: configparser.SectionProxy, state: Path) -> list[str]:
    """The unit's command line, with this environment's homeport and a state directory."""
    line = string.Template(unit["ExecStart"]).substitute(STATE_DIRECTORY=str(state / "state"))
    program, *arguments = line.split()
    assert re.fullmatch(INSTALLED, program)
    return [sys.executable, "-m", "homeport", *arguments]
