"""What a Compose file says to the cluster, shown on three real engines: the table's links.

What it says to one container is shown in tests/contract/test_docker_*.py.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeport.v1 import types_pb2
from tests.e2e.cluster import Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(240)]

SLEEPER = """
services:
  web:
    image: hp/sleeper:1
    stop_grace_period: 1s
"""


@pytest.fixture(scope="module")
def cluster(lab3: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(lab3, directory=tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def stack(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for the stack of one test; whatever it deploys is removed."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    yield name
    remove(cluster, name)


def remove(cluster: Cluster, stack: str) -> None:
    cluster.homeport("rm", stack, check=False)
    cluster.wait_for(
        lambda: stack not in [each.name for each in cluster.client.stacks()], f"{stack} to be gone"
    )


def nodes(views: list[Any]) -> list[str]:
    return sorted(view.node_name for view in views)


def with_deploy(deploy: str) -> str:
    return f"{SLEEPER}    deploy: {{{deploy}}}\n"


def write(cluster: Cluster, stack: str, text: str) -> Path:
    file = cluster.directory / f"{stack}.yaml"
    file.write_text(text)
    return file


def apply(cluster: Cluster, stack: str, text: str) -> None:
    """Apply without waiting: for what is not meant to come up."""
    cluster.homeport("apply", "-f", str(write(cluster, stack, text)), "-p", stack)


def waiting(cluster: Cluster, stack: str) -> list[Any]:
    return [
        view
        for view in cluster.tasks(stack)
        if view.status.state == types_pb2.TASK_STATE_PENDING and view.objections
    ]


def test_deploy_mode(cluster: Cluster, stack: str) -> None:
    apply(cluster, stack, with_deploy("mode: global"))
    cluster.wait_for(lambda: len(cluster.running(stack)) == 3, "one task on each node")
    assert nodes(cluster.running(stack)) == ["h1", "h2", "h3"]


def test_deploy_labels(cluster: Cluster, stack: str) -> None:
    cluster.apply(stack, with_deploy("labels: {tier: front}"))
    (view,) = cluster.client.services(stack=stack)
    assert dict(view.spec.labels) == {"tier": "front"}
    (task,) = cluster.running(stack)
    engine = cluster.host(task.node_name).engine.client()
    labels = engine.inspect_container(task.status.container_id)["Config"]["Labels"]
    assert "tier" not in labels  # of the service, not of its containers


def test_deploy_endpoint_mode(cluster: Cluster, stack: str) -> None:
    deploy = "replicas: 2, endpoint_mode: dnsrr, placement: {constraints: [node.hostname == h1]}"
    cluster.apply(stack, with_deploy(deploy))

    def addresses() -> set[str]:
        return {
            address
            for view in cluster.running(stack)
            for address in dict(view.status.addresses).values()
        }

    # The engine may name one a moment after it says that the container runs.
    cluster.wait_for(lambda: len(addresses()) == 2, "an address for each")
    answer = cluster.homeport("exec", f"{stack}/web.1", "--", "nslookup", "web").stdout
    assert all(address in answer for address in addresses())


def test_deploy_restart_policy(cluster: Cluster, stack: str) -> None:
    text = SLEEPER.replace("hp/sleeper", "hp/crashing")
    policy = "restart_policy: {condition: on-failure, delay: 100ms, max_attempts: 2}"
    apply(cluster, stack, f"{text}    deploy: {{{policy}}}\n")

    def ended() -> list[Any]:
        failed = types_pb2.TASK_STATE_FAILED
        return [v for v in cluster.tasks(stack, all=True) if v.task.outcome.state == failed]

    cluster.wait_for(ended, "a task that gave up")
    outcome = ended()[0].task.outcome
    assert (outcome.exit_code, outcome.attempts) == (3, 3)


def test_deploy_placement(cluster: Cluster, stack: str) -> None:
    only = "replicas: 2, placement: {constraints: [node.labels.disk == ssd]}"
    cluster.apply(stack, with_deploy(only))
    assert nodes(cluster.running(stack)) == ["h1", "h1"]
    remove(cluster, stack)
    spread = "replicas: 2, placement: {preferences: [{spread: node.labels.disk}]}"
    cluster.apply(stack, with_deploy(spread))
    assert "h1" in nodes(cluster.running(stack))
    assert len(set(nodes(cluster.running(stack)))) == 2
    remove(cluster, stack)
    apply(cluster, stack, with_deploy("replicas: 4, placement: {max_replicas_per_node: 1}"))
    cluster.wait_for(lambda: len(cluster.running(stack)) == 3, "one on each node")
    cluster.wait_for(lambda: len(waiting(cluster, stack)) == 1, "one that waits")
    assert nodes(cluster.running(stack)) == ["h1", "h2", "h3"]


def test_deploy_resources(cluster: Cluster, stack: str) -> None:
    apply(cluster, stack, with_deploy("resources: {reservations: {memory: 900g}}"))
    cluster.wait_for(lambda: waiting(cluster, stack), "a slot that waits")
    (view,) = waiting(cluster, stack)
    assert {objection.rule for objection in view.objections} == {"memory"}
    apply(cluster, stack, with_deploy("resources: {reservations: {cpus: 2000}}"))
    cluster.wait_for(
        lambda: [o.rule for v in waiting(cluster, stack) for o in v.objections][:1] == ["cpu"],
        "a slot that waits for cores",
    )
    apply(cluster, stack, with_deploy("resources: {reservations: {cpus: 0.01, memory: 8m}}"))
    cluster.wait_for(lambda: cluster.running(stack), "a slot that fits")


def test_node(cluster: Cluster, stack: str) -> None:
    cluster.apply(stack, SLEEPER + "    x-homeport: {node: h2}\n    scale: 2\n")
    assert nodes(cluster.running(stack)) == ["h2", "h2"]


def test_exclusive(cluster: Cluster, stack: str) -> None:
    cluster.apply(stack, SLEEPER + "    x-homeport: {exclusive: true}\n")
    (view,) = cluster.running(stack)
    assert view.task.exclusive


def test_priority(cluster: Cluster, stack: str) -> None:
    service = (
        "    image: hp/sleeper:1\n    ports: ['18081:80']\n    stop_grace_period: 1s\n"
        "    deploy: {placement: {constraints: [node.hostname == h3]}}\n"
    )
    text = f"services:\n  a:\n{service}  b:\n{service}    x-homeport: {{priority: 5}}\n"
    apply(cluster, stack, text)
    cluster.wait_for(lambda: cluster.running(stack, "b"), "the more important one")
    cluster.wait_for(lambda: waiting(cluster, stack), "the other to wait")
    assert [view.service_name for view in waiting(cluster, stack)] == ["a"]


def test_max_concurrent(cluster: Cluster, stack: str) -> None:
    text = (
        "services:\n  job:\n    image: hp/busybox:1\n    command: [sleep, '1']\n"
        "    deploy: {mode: replicated-job, replicas: 4}\n    x-homeport: {max_concurrent: 2}\n"
    )
    apply(cluster, stack, text)
    complete = types_pb2.TASK_STATE_COMPLETE
    live: list[int] = []

    def all_done() -> bool:
        views = cluster.tasks(stack, all=True)
        done = [view for view in views if view.task.outcome.state == complete]
        live.append(len([v for v in views if v.task.node and not v.task.outcome.state]))
        return len(done) == 4

    cluster.wait_for(all_done, "all four pieces to be done")
    assert max(live) == 2


def test_build(cluster: Cluster, stack: str) -> None:
    context = cluster.directory / "app"
    context.mkdir()
    (context / "page").write_text("built\n")
    (context / "other.Dockerfile").write_text(
        "FROM hp/sleeper:1 AS prod\nARG VERSION\nCOPY page /page\n"
        "RUN echo $VERSION >/version; grep box /etc/hosts >/hosts; df -k /dev/shm >/shm\n"
        "FROM hp/busybox:1 AS never\nRUN false\n"
    )
    text = (
        "services:\n"
        "  web:\n    build:\n      context: ./app\n      dockerfile: other.Dockerfile\n"
        "      args: {VERSION: 1.10}\n      target: prod\n      labels: {com.example.a: b}\n"
        "      extra_hosts: {box: 10.9.8.7}\n      network: none\n      shm_size: 32m\n"
        "      no_cache: true\n      pull: false\n    scale: 3\n    stop_grace_period: 1s\n"
        "  inline:\n    build:\n      context: ./app\n      dockerfile_inline: |\n"
        "        FROM hp/sleeper:1\n        COPY page /inline\n    stop_grace_period: 1s\n"
    )
    file = write(cluster, stack, text)
    builder = cluster.host("h1").engine
    subprocess.run(
        [sys.executable, "-m", "homeport", "-s", cluster.address, "apply", "--build", "-f", file,
         "-p", stack, "--wait", "--timeout", "100"],
        cwd=cluster.directory, check=True, timeout=120, capture_output=True, text=True,
        env={**os.environ, "DOCKER_HOST": builder.host},
    )  # fmt: skip
    web = cluster.running(stack, "web")
    assert nodes(web) == ["h1", "h2", "h3"]
    for name in ("web.1", "web.2", "web.3"):
        said = cluster.homeport("exec", f"{stack}/{name}", "--", "cat", "/page", "/version").stdout
        assert said == "built\n1.1\n"
    said = cluster.homeport("exec", f"{stack}/web.1", "--", "cat", "/hosts", "/shm").stdout
    assert "10.9.8.7" in said
    assert "32768" in said
    image = builder.client().inspect_image(f"{stack}-web")
    assert image["Config"]["Labels"]["com.example.a"] == "b"
    said = cluster.homeport("exec", f"{stack}/inline.1", "--", "cat", "/inline").stdout
    assert said == "built\n"
