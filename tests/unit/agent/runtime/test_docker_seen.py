"""From the engine's account of a container to what was seen."""

from typing import Any

import pytest

from agent.runtime.base import Phase
from agent.runtime.docker_seen import digest_of, instant_ms, seen, seen_in_list
from agent.runtime.labels import container_labels
from homeport.model import BoundPort, Health
from tests.contract.works import work

LABELS = container_labels("c1", work(generation=3))


def inspected(status: str = "running", **state: Any) -> dict[str, Any]:
    return {
        "Id": "0123",
        "Image": "sha256:1",
        "Config": {"Labels": LABELS},
        "State": {
            "Status": status,
            "Pid": 42 if status in ("running", "paused") else 0,
            "ExitCode": 0,
            "OOMKilled": False,
            "Error": "",
            "StartedAt": "2026-11-23T12:00:00.5Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
        "NetworkSettings": {
            "Ports": {
                "80/tcp": [
                    {"HostIp": "0.0.0.0", "HostPort": "8080"},
                    {"HostIp": "::", "HostPort": "8080"},
                ],
                "81/udp": None,
            },
            "Networks": {
                "shop_front": {"IPAddress": "10.0.0.2"},
                "own": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"},
                "none": {"IPAddress": ""},
            },
        },
    }


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("created", Phase.CREATED),
        ("running", Phase.RUNNING),
        ("paused", Phase.PAUSED),
        ("exited", Phase.EXITED),
        ("dead", Phase.EXITED),
        ("removing", Phase.EXITED),
    ],
)
def test_each_word_of_the_engine_is_a_phase(status: str, phase: Phase) -> None:
    found = seen(inspected(status), cluster="c1", is_alive=True)
    assert found is not None
    assert found.phase is phase
    assert (found.exit_code is None) == (phase is not Phase.EXITED)


def test_what_runs_is_told_with_ports_and_addresses() -> None:
    found = seen(
        inspected(Health={"Status": "healthy"}),
        cluster="c1",
        is_alive=True,
        image_digest="sha256:2",
    )
    assert found is not None
    assert (found.generation, found.pid, found.health) == (3, 42, Health.HEALTHY)
    assert found.ports == (
        BoundPort(target=80, published=8080, host_ip="0.0.0.0"),
        BoundPort(target=80, published=8080, host_ip="::"),
    )
    assert found.addresses == (("front", "10.0.0.2"), ("own", "fd00::2"))
    assert found.started_ms % 1000 == 500


def test_what_proc_denies_does_not_run_and_nobody_knows_how_it_ended() -> None:
    found = seen(inspected(), cluster="c1", is_alive=False)
    assert found is not None
    assert (found.phase, found.exit_code, found.ports) == (Phase.EXITED, None, ())
    assert "process 42 is gone" in found.error


def test_what_is_not_of_our_cluster_is_not_seen() -> None:
    assert seen(inspected(), cluster="c2", is_alive=True) is None
    assert seen_in_list({"Id": "1", "Labels": LABELS, "State": "running"}, cluster="c2") is None
    assert seen_in_list({"Id": "1", "Labels": None, "State": "running"}, cluster="c1") is None


def test_an_out_of_memory_kill_is_told_of_the_dead_only() -> None:
    dead = seen(inspected("exited", OOMKilled=True, ExitCode=137), cluster="c1", is_alive=False)
    alive = seen(inspected("running", OOMKilled=True), cluster="c1", is_alive=True)
    assert dead is not None
    assert alive is not None
    assert (dead.oom_killed, alive.oom_killed) == (True, False)


def test_the_engine_s_zero_time_is_no_time() -> None:
    assert instant_ms("0001-01-01T00:00:00Z") == 0
    assert instant_ms("") == 0
    assert instant_ms("1970-01-01T00:00:01.234567891Z") == 1234


def test_an_image_that_no_registry_knows_is_known_by_its_id() -> None:
    assert digest_of({"RepoDigests": ["a/b@sha256:1"], "Id": "sha256:2"}) == "sha256:1"
    assert digest_of({"RepoDigests": [], "Id": "sha256:2"}) == "sha256:2"


@pytest.mark.parametrize(
    ("output", "health"),
    [
        (
            'connection error: desc = "transport: Error while dialing dial unix'
            ' /run/containerd/containerd.sock: connect: connection refused": unavailable',
            Health.NONE,
        ),
        ("Health check exceeded timeout (5s)", Health.UNHEALTHY),
        ("OCI runtime exec failed: exec: no such file", Health.UNHEALTHY),
    ],
)
def test_a_check_that_the_engine_could_not_even_try_says_nothing_of_the_container(
    output: str, health: Health
) -> None:
    log = [{"ExitCode": 0, "Output": ""}, {"ExitCode": -1, "Output": output}]
    state = inspected(Health={"Status": "unhealthy", "Log": log})
    found = seen(state, cluster="c1", is_alive=True)
    assert found is not None
    assert found.health is health


@pytest.mark.parametrize(("streak", "health"), [(0, Health.STARTING), (3, Health.UNHEALTHY)])
def test_unhealthy_without_a_check_that_failed_is_not_known_yet(
    streak: int, health: Health
) -> None:
    state = inspected(Health={"Status": "unhealthy", "FailingStreak": streak})
    found = seen(state, cluster="c1", is_alive=True)
    assert found is not None
    assert found.health is health
