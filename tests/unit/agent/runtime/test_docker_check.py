"""Whether an engine's containers can be fenced from here."""

import os

import pytest

from agent.runtime import cgroups, docker_check


@pytest.mark.parametrize(
    ("sees", "mounts", "user", "says"),
    [
        pytest.param(True, {"memory": "/sys"}, 0, "", id="a service on the machine"),
        pytest.param(False, {"memory": "/sys"}, 0, "pid: host", id="a container of its own"),
        pytest.param(True, {}, 0, "/sys/fs/cgroup", id="a container without control groups"),
        pytest.param(True, {"": "/sys"}, 1000, "root", id="a member of group docker"),
    ],
)
def test_why_an_agent_cannot_fence(
    sees: bool, mounts: dict[str, str], user: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "mounted", lambda: mounts)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    sentence = docker_check._unfenced(sees_processes=sees)
    assert says in sentence
    assert bool(sentence) is bool(says)
