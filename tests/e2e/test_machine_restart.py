"""A machine loses its power and comes back: what ran on it runs again, once, with its data (L10).

Containers, engine and agent are killed at once; files stay; what was in memory goes. The boot id,
which hosts of a lab share with the machine under them, is told to the agent.
"""

import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.files import find_secrets_dir
from homeport.v1 import types_pb2
from tests.e2e.cluster import Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(300)]

STACK = """
services:
  db:
    image: hp/busybox:1
    command: sh -c "echo began >> /data/starts; exec sleep 100000"
    volumes: [data:/data]
    x-homeport: {node: h1}
  web:
    image: hp/healthy:1
    depends_on: [db]
    deploy: {replicas: 3}
  only:
    image: hp/sleeper:1
    x-homeport: {exclusive: true}
volumes:
  data:
"""


@pytest.fixture(scope="module")
def cluster(lab3: Lab, tmp_path_factory: pytest.TempPathFactory):
    with Cluster(lab3, directory=tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.apply("app", STACK)
        yield cluster


@pytest.fixture(autouse=True)
def settled(cluster: Cluster) -> None:
    cluster.wait_for(lambda: all_right(cluster), "five tasks that run well", seconds=60)


def all_right(cluster: Cluster) -> bool:
    return len(cluster.ready_nodes()) == 3 and len(cluster.running("app")) == 5


def containers(cluster: Cluster, host: str) -> dict[str, dict[str, Any]]:
    """name -> what the engine says of it."""
    client = cluster.host(host).engine.client()
    found = [client.inspect_container(each["Id"]) for each in client.containers(all=True)]
    return {each["Name"]: each for each in found}


def running_slots(cluster: Cluster) -> list[str]:
    """Service and slot of everything that runs, wherever; twice what runs twice."""
    return sorted(
        name.lstrip("/").rpartition(".")[0]
        for host in cluster.lab.hosts
        for name, each in containers(cluster, host.name).items()
        if each["State"]["Running"]
    )


def starts(cluster: Cluster) -> int:
    """How often the database has begun, as its volume remembers."""
    volume = cluster.host("h1").engine.client().inspect_volume("app_data")
    return len(Path(volume["Mountpoint"], "starts").read_text().splitlines())


def power_cut(cluster: Cluster, name: str) -> None:
    cluster.host(name).power_off()
    secrets = find_secrets_dir(
        cluster.directory / name, Path("/proc/self/mountinfo").read_text(), dict(os.environ)
    )
    shutil.rmtree(secrets, ignore_errors=True)


def boot(cluster: Cluster, name: str) -> None:
    """Start engine and agent, as after a boot."""
    cluster.host(name).engine.start()
    agent = cluster.agents[name]
    words = agent.argv[agent.argv.index("--scheduler") :]
    altered = [sys.executable, "-m", "tests.faults.altered", "--boot-id", str(uuid.uuid4())]
    agent.argv = [*altered, "agent", *words]
    agent.start()


def of_service(found: dict[str, dict[str, Any]], service: str) -> list[dict[str, Any]]:
    label = "dev.homeport.service"
    return [each for each in found.values() if each["Config"]["Labels"].get(label) == service]


def test_all_runs_again_with_the_scheduler_gone_and_what_is_exclusive_waits_for_a_word(
    cluster: Cluster, figures
) -> None:
    (only,) = cluster.running("app", "only")
    host = only.node_name
    slots, began = running_slots(cluster), starts(cluster)
    before = containers(cluster, host)
    cluster.scheduler.stop()
    power_cut(cluster, host)
    boot(cluster, host)

    def runs_again() -> bool:
        now = containers(cluster, host)
        return all(
            each["State"]["Running"] for each in now.values() if each not in of_service(now, "only")
        )

    took = cluster.wait_for(runs_again, "all but the exclusive task to run again", seconds=60)
    figures.record("a machine's tasks run again after a power cut", took, "s", bound=30)
    now = containers(cluster, host)
    assert {name: each["Id"] for name, each in now.items()} == {
        name: each["Id"] for name, each in before.items()
    }, "each is started again in place"
    (waiting,) = of_service(now, "only")
    assert not waiting["State"]["Running"], "it may have been moved, as far as this node knows"
    cluster.scheduler.start()
    cluster.wait_for(lambda: all_right(cluster), "all of it to run by the scheduler's word")
    assert running_slots(cluster) == slots
    assert starts(cluster) == began + (1 if host == "h1" else 0)


def test_all_runs_again_with_the_scheduler_there_and_nothing_twice(
    cluster: Cluster, figures
) -> None:
    slots, began = running_slots(cluster), starts(cluster)
    volume = cluster.host("h1").engine.client().inspect_volume("app_data")["CreatedAt"]
    power_cut(cluster, "h1")
    boot(cluster, "h1")

    def is_right() -> bool:
        return all_right(cluster) and running_slots(cluster) == slots

    took = cluster.wait_for(is_right, "all to run again, and once", seconds=90)
    figures.record("a cluster is right after a node's power cut", took, "s", bound=60)
    assert starts(cluster) == began + 1
    again = cluster.host("h1").engine.client().inspect_volume("app_data")["CreatedAt"]
    assert again == volume, "it is the same volume"
    (db,) = cluster.running("app", "db")
    assert (db.node_name, db.status.state) == ("h1", types_pb2.TASK_STATE_RUNNING)


def test_a_machine_that_stays_away_gives_its_exclusive_task_up_and_comes_back_without_it(
    cluster: Cluster, figures
) -> None:
    (only,) = cluster.running("app", "only")
    host, token = only.node_name, fence_token(cluster)
    power_cut(cluster, host)

    def moved() -> bool:
        # Of the old copy the last known is shown, until its machine is back.
        return any(view.node_name != host for view in cluster.running("app", "only"))

    took = cluster.wait_for(moved, "the exclusive task to run elsewhere", seconds=60)
    figures.record("an exclusive task runs elsewhere after a power cut", took, "s", bound=22)
    boot(cluster, host)
    cluster.wait_for(lambda: all_right(cluster), "the machine to be back", seconds=60)
    cluster.wait_for(
        lambda: (
            not [e for e in of_service(containers(cluster, host), "only") if e["State"]["Running"]]
            and len([slot for slot in running_slots(cluster) if "-only-" in slot]) == 1
        ),
        "one copy of it",
    )
    assert fence_token(cluster) > token, "the later copy has the higher token"


def fence_token(cluster: Cluster) -> int:
    """Of the copy that runs."""
    (found,) = [
        each
        for host in cluster.lab.hosts
        if host.engine.answers()
        for each in of_service(containers(cluster, host.name), "only")
        if each["State"]["Running"]
    ]
    (variable,) = [
        each for each in found["Config"]["Env"] if each.startswith("HOMEPORT_FENCE_TOKEN=")
    ]
    return int(variable.partition("=")[2])
