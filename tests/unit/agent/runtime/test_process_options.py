"""What a plain process can have, and what it is refused for."""

import pytest

from agent.runtime.base import Rejected
from agent.runtime.process_options import Identity, objections, plan
from homeport.spec import (
    Argv,
    Driver,
    HealthCheck,
    Hook,
    Mount,
    MountKind,
    NetworkAttachment,
    Port,
    Ulimit,
)
from tests.contract.works import work


def process(**spec: object) -> object:
    return work(driver=Driver.PROCESS, **{"command": Argv(args=("serve",)), **spec})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"mounts": (Mount(kind=MountKind.TMPFS, target="/x"),)}, "cannot have: volumes, tmpfs"),
        ({"cap_add": ("SYS_TIME",), "privileged": True}, "cannot have: cap_add, privileged"),
        ({"networks": (NetworkAttachment(network="front"),)}, "cannot have: network front"),
        ({"network_mode": "none"}, "cannot have: network_mode: none"),
        ({"command": None}, "needs a `command`"),
        ({"ulimits": (Ulimit(name="nosuch", soft=1, hard=1),)}, "no limit called nosuch"),
        ({"labels": (("dev.homeport.task", "x"),)}, "Homeport's own"),
    ],
)
def test_what_a_process_cannot_have_is_refused_by_its_compose_key(
    spec: dict[str, object], words: str
) -> None:
    (sentence,) = objections(process(**spec))  # type: ignore[arg-type]
    assert words in sentence


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"networks": (NetworkAttachment(network="default", aliases=("web",)),)},
        {"network_mode": "host"},
        {"image": "", "expose": ("80",), "ports": (Port(target=80, published=80),)},
        {"init": True, "stop_signal": "SIGINT", "oom_score_adj": 5},
        {"ulimits": (Ulimit(name="nofile", soft=1, hard=1),), "labels": (("a", "b"),)},
    ],
)
def test_what_changes_nothing_for_a_process_is_accepted(spec: dict[str, object]) -> None:
    assert list(objections(process(**spec))) == []  # type: ignore[arg-type]


def planned(**spec: object) -> dict[str, object]:
    return plan(
        process(**spec),  # type: ignore[arg-type]
        cluster="c",
        node="n",
        container_id="id",
        identity=Identity(uid=7, gid=8, home="/home/me", name="me"),
        base_env={"PATH": "/bin", "LANG": "C"},
        venv=str(spec.pop("venv", "")),
        default_dir="/state",
    )


def test_the_environment_is_the_spec_s_with_little_of_the_agent_s() -> None:
    env = planned(env=(("LANG", "de"), ("A", "1")))["env"]
    assert env == {
        "PATH": "/bin",
        "LANG": "de",
        "A": "1",
        "HOME": "/home/me",
        "USER": "me",
        "HOMEPORT_FENCE_TOKEN": "0",
    }


def test_entrypoint_and_command_are_one_line() -> None:
    argv = planned(entrypoint=Argv(args=("sh", "-c")), command=Argv(args=("exit 1",)))["argv"]
    assert argv == ["sh", "-c", "exit 1"]


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (("CMD", "curl", "-f", "x"), ["curl", "-f", "x"]),
        (("CMD-SHELL", "curl -f x || exit 1"), ["/bin/sh", "-c", "curl -f x || exit 1"]),
    ],
)
def test_a_health_check_has_docker_s_defaults(test: tuple[str, ...], argv: list[str]) -> None:
    assert planned(health_check=HealthCheck(test=test))["health"] == {
        "argv": argv,
        "interval": 30.0,
        "timeout": 30.0,
        "start_period": 0.0,
        "start_interval": 5.0,
        "retries": 3,
    }


@pytest.mark.parametrize("test", [(), ("NONE",)])
def test_a_health_check_that_is_switched_off_is_none(test: tuple[str, ...]) -> None:
    assert planned(health_check=HealthCheck(test=test))["health"] is None


def test_a_health_check_that_says_nothing_is_refused() -> None:
    with pytest.raises(Rejected, match="CMD-SHELL"):
        planned(health_check=HealthCheck(test=("CMD",)))


def test_hooks_and_ports_are_written_down() -> None:
    found = planned(
        post_start=(Hook(command=("a", "b"), working_dir="/w", env=(("K", "v"),)),),
        ports=(Port(target=80), Port(target=81, published=8081, protocol="udp")),
    )
    assert found["post_start"] == [
        {"command": ["a", "b"], "working_dir": "/w", "env": [["K", "v"]]}
    ]
    assert found["ports"] == [[80, 80, "tcp", ""], [81, 8081, "udp", ""]]
