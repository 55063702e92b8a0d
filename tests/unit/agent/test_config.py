"""The agent's settings and what is refused of them."""

import os
import subprocess
import sys

import pytest

from agent.config import Config, ConfigError, default_state_dir
from agent.state_dir import StateDir


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        pytest.param(Config(scheduler=("10.0.0.5:7070",)), "--insecure", id="in plain text"),
        pytest.param(Config(metrics_address="0.0.0.0:7072"), "--insecure", id="metrics for all"),
        pytest.param(Config(scheduler=("pi",)), "HOST:PORT", id="no port"),
        pytest.param(Config(scheduler=()), "no scheduler", id="no scheduler"),
        pytest.param(Config(runtime="podman"), "docker", id="an unknown runtime"),
        pytest.param(Config(label=("ssd",)), "KEY=VALUE", id="a label without a value"),
        pytest.param(Config(starts_in_flight=0), "1 or more", id="nothing may start"),
    ],
)
def test_refused(config: Config, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config.check()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(Config(), id="the defaults"),
        pytest.param(Config(scheduler=("127.0.0.1:7070", "[::1]:7070", "localhost:1")), id="local"),
        pytest.param(Config(scheduler=("10.0.0.5:7070",), insecure=True), id="with consent"),
        pytest.param(Config(label=("disk=ssd", "zone="), metrics_address=""), id="labels"),
    ],
)
def test_accepted(config: Config) -> None:
    config.check()


def test_the_state_directory_of_a_user_is_their_own() -> None:
    assert default_state_dir(is_root=True, xdg_state_home="", home="/root").startswith("/var/lib")
    own = default_state_dir(is_root=False, xdg_state_home="", home="/home/x")
    assert own == "/home/x/.local/state/homeport/agent"


def agent(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it as a process of its own: it sets up logging for the whole process."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environ},
        check=False,
    )


def test_a_wrong_setting_is_told_with_what_was_meant() -> None:
    run = agent(HOMEPORT_AGENT_SCHEDULERS="127.0.0.1:7070")
    assert (run.returncode, run.stdout) == (78, "")
    assert "did you mean scheduler" in run.stderr


def test_a_second_agent_says_why_it_does_not_start(tmp_path) -> None:
    first = StateDir(tmp_path)
    run = agent("--state-dir", str(tmp_path), "--metrics-address", "")
    first.close()
    assert run.returncode == 1
    assert run.stderr.startswith("homeport agent: another agent uses")
