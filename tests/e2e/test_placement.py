"""Where containers really run, on three real engines (docs/placement.md). `make e2e ONLY=placement`

Everything is asked of the command line, and where it went is read off the engines, not off what
the scheduler says of itself. Fake is only what cannot be bought: each host has a file tree of its
own in which a device may be plugged in. The device behind it is this machine's /dev/fuse, which
no container may open that was not given it.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.base import LABEL_SERVICE, LABEL_STACK, LABEL_TASK
from homeport.v1 import types_pb2
from tests.e2e.cluster import POLL_SECONDS, Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

HOSTS = ("h1", "h2", "h3")
DEVICE = "/dev/fuse"
YOUNG_SECONDS = 60
"""A new leader moves nothing before it has led for a node's lease, and ends nobody before that."""

Placed = dict[str, list[str]]
"""Host → the slots, as `web.1`, whose containers run there."""
Runs = Callable[..., Placed]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file tree that each host's agent takes for its machine's; only h2 has the device."""
    trees = {name: tmp_path_factory.mktemp(f"tree-{name}") for name in HOSTS}
    for tree in trees.values():
        (tree / "dev").mkdir()
    plug_in(trees["h2"])
    return trees


@pytest.fixture(scope="module")
def whole_cluster(
    lab3: Lab, trees: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with Cluster(
        lab3,
        directory=tmp_path_factory.mktemp("cluster"),
        agent_arguments=("--device", f"meter={DEVICE}"),
        host_arguments={name: ("--host-root", str(tree)) for name, tree in trees.items()},
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; the stacks of a test are gone after it."""
    yield whole_cluster
    for stack in whole_cluster.json("stacks"):
        whole_cluster.remove(stack["name"])


@pytest.fixture(scope="module")
def runs(lab3: Lab) -> Runs:
    """What runs of a stack, by the engines' word: `docker ps` on all or some hosts, h1 first."""
    engines = {host.name: host.engine.client() for host in lab3.hosts}

    def look(stack: str, hosts: Sequence[str] = HOSTS) -> Placed:
        found = {}
        for name in hosts:
            containers = engines[name].containers(filters={"label": f"{LABEL_STACK}={stack}"})
            labels = [container["Labels"] for container in containers]
            here = (f"{each[LABEL_SERVICE]}.{each[LABEL_TASK].split('/')[1]}" for each in labels)
            found[name] = sorted(here)
        return found

    return look


def plug_in(tree: Path) -> None:
    """Make the device's node in a host's file tree."""
    real = os.stat(DEVICE)
    os.mknod(tree / DEVICE.lstrip("/"), real.st_mode, real.st_rdev)


def counts(placed: Placed) -> dict[str, int]:
    return {name: len(slots) for name, slots in placed.items()}


def slots(placed: Placed) -> list[str]:
    return [slot for here in placed.values() for slot in here]


def write(cluster: Cluster, stack: str, services: str) -> str:
    """A Compose file of sleepers, each `name: the rest of it`, in flow style."""
    file = cluster.directory / f"{stack}.yaml"
    lines = [line.strip() for line in services.strip().splitlines()]
    sleeper = "image: hp/sleeper:1, stop_grace_period: 1s"
    body = (line.replace(": {", f": {{{sleeper}, ", 1) for line in lines)
    file.write_text("services:\n  " + "\n  ".join(body) + "\nvolumes: {data: {}}\n")
    return str(file)


def apply(cluster: Cluster, stack: str, services: str) -> None:
    """Apply without waiting: some of it may be meant to wait."""
    cluster.homeport("apply", "-f", write(cluster, stack, services), "-p", stack)


def waiting(cluster: Cluster, stack: str) -> list[str]:
    """The slots that have no node, and say why."""
    pending = types_pb2.TASK_STATE_PENDING
    return sorted(
        view.name
        for view in cluster.tasks(stack)
        if view.status.state == pending and view.objections
    )


def explain(cluster: Cluster, task: str) -> str:
    return cluster.homeport("explain", task).stdout


def on(host: str) -> str:
    return f"placement: {{constraints: [node.hostname == {host}]}}"


def test_priority_ends_the_least_harmful_of_a_full_node(cluster: Cluster, runs: Runs) -> None:
    (node,) = [view.node for view in cluster.client.nodes() if view.node.name == "h1"]
    percent = node.inventory.capacity.memory_bytes // 100

    def takes(share: int, replicas: int) -> str:
        memory = f"resources: {{reservations: {{memory: {share * percent}b}}}}"
        return f"deploy: {{replicas: {replicas}, {on('h1')}, {memory}}}"

    chief = f"chief: {{{takes(40, 1)}, x-homeport: {{priority: 10, preempts: true}}}}"
    apply(
        cluster,
        "low",
        f"""
        batch: {{{takes(40, 1)}, x-homeport: {{min_replicas: 1}}}}
        other: {{{takes(15, 1)}, x-homeport: {{priority: 5}}}}
        """,
    )
    cluster.wait_for(lambda: runs("low")["h1"] == ["batch.1", "other.1"], "the first")
    cluster.homeport("scale", "low/batch=2")  # the youngest of the lowest priority
    full = {"h1": ["batch.1", "batch.2", "other.1"], "h2": [], "h3": []}
    cluster.wait_for(lambda: runs("low") == full, "h1 to be full")

    planned = cluster.homeport("plan", "-f", write(cluster, "top", chief), "-p", "top", check=False)
    assert planned.returncode == 1
    assert "low/batch.2 ends on h1 to make room for it" in planned.stdout
    assert "batch.1" not in planned.stdout
    assert "other.1" not in planned.stdout
    assert runs("low") == full  # nothing was done

    apply(cluster, "top", chief)
    cluster.wait_for(
        lambda: runs("top")["h1"] == ["chief.1"], "the chief to run", seconds=YOUNG_SECONDS
    )
    assert runs("low")["h1"] == ["batch.1", "other.1"]
    cluster.wait_for(lambda: waiting(cluster, "low") == ["batch.2"], "what ended to wait")
    said = explain(cluster, "low/batch.2")
    assert "it makes room for top/chief.1 of priority 10" in said
    assert re.search(r"h1 has \S+ .iB of memory free of reservations, and \S+ .iB is needed", said)

    # The last of batch is its minimum, and what the other has is not enough.
    cluster.homeport("scale", "top/chief=2")
    why = "no tasks of lower priority could make room for it"
    cluster.wait_for(lambda: why in explain(cluster, "top/chief.2"), "the second chief to wait")
    assert runs("low")["h1"] == ["batch.1", "other.1"]

    cluster.remove("top")
    cluster.wait_for(lambda: runs("low") == full, "what ended to be back")


def test_taints_keep_away_and_let_in(cluster: Cluster, runs: Runs) -> None:
    once = "ports: ['18080:80']"  # so each node takes one
    try:
        cluster.homeport("node", "update", "h3", "--taint", "attic:refuse")
        apply(
            cluster,
            "tainted",
            f"""
            web: {{deploy: {{replicas: 3}}, {once}}}
            hardy: {{deploy: {{{on("h3")}}}, x-homeport: {{tolerations: [attic]}}}}
            """,
        )
        cluster.wait_for(lambda: len(waiting(cluster, "tainted")) == 1, "one that waits")
        expected = {"h1": 1, "h2": 1, "h3": 1}
        cluster.wait_for(lambda: counts(runs("tainted")) == expected, "the others to run")
        assert runs("tainted")["h3"] == ["hardy.1"]
        (name,) = waiting(cluster, "tainted")
        said = explain(cluster, f"tainted/{name}")
        assert "h3 has the taint attic:refuse, which this service does not tolerate" in said
        cluster.homeport("node", "update", "h3", "--taint-rm", "attic")
        cluster.wait_for(lambda: runs("tainted")["h3"] == ["hardy.1", name], "it to be let in")
        cluster.remove("tainted")

        cluster.homeport("node", "update", "h1", "--taint", "noisy:avoid")
        apply(cluster, "avoiding", f"web: {{deploy: {{replicas: 2}}, {once}}}")
        expected = {"h1": 0, "h2": 1, "h3": 1}
        cluster.wait_for(lambda: counts(runs("avoiding")) == expected, "two of three")
        cluster.homeport("scale", "avoiding/web=3")
        expected = {"h1": 1, "h2": 1, "h3": 1}
        cluster.wait_for(lambda: counts(runs("avoiding")) == expected, "no other left")
    finally:
        for host, taint in (("h3", "attic"), ("h1", "noisy")):
            cluster.homeport("node", "update", host, "--taint-rm", taint, check=False)


def test_a_service_is_spread_by_a_label(cluster: Cluster, runs: Runs) -> None:
    for host, zone in (("h1", "a"), ("h2", "a"), ("h3", "b")):
        cluster.homeport("node", "update", host, "--label", f"zone={zone}")
    rule = "x-homeport: {spread: [{over: node.labels.zone, max_skew: 1}]}"
    apply(cluster, "even", f"web: {{deploy: {{replicas: 6}}, {rule}}}")
    # By number alone it would be two on each.
    cluster.wait_for(lambda: len(slots(runs("even"))) == 6, "six that run")
    assert counts(runs("even"))["h3"] == 3

    # One to a node: the second zone is full with one, so the first may have two, and no more.
    cluster.remove("even")
    seat = "generic_resources: [{discrete_resource_spec: {kind: seat, value: 1}}]"
    for host, seats in (("h1", 4), ("h2", 4), ("h3", 1)):
        cluster.homeport("node", "update", host, "--resource", f"seat={seats}")
    deploy = f"deploy: {{replicas: 4, resources: {{reservations: {{{seat}}}}}}}"
    apply(cluster, "even", f"web: {{{deploy}, {rule}}}")
    cluster.wait_for(lambda: len(waiting(cluster, "even")) == 1, "one that waits")
    expected = {"h1": 1, "h2": 1, "h3": 1}
    cluster.wait_for(lambda: counts(runs("even")) == expected, "the others to run")
    (name,) = waiting(cluster, "even")
    said = "has node.labels.zone a with 2 tasks of this service, the emptiest has 1, and it allows"
    assert said in explain(cluster, f"even/{name}")


def test_a_device_leads_to_the_machine_that_has_it(
    cluster: Cluster, runs: Runs, trees: dict[str, Path]
) -> None:
    needs = "x-homeport: {device: {kind: meter, target: /dev/meter}}"
    apply(
        cluster,
        "metered",
        f"""
        reader: {{deploy: {{replicas: 2}}, {needs}}}
        plain: {{deploy: {{{on("h2")}}}}}
        """,
    )
    cluster.wait_for(lambda: len(waiting(cluster, "metered")) == 1, "one that waits")
    (late,) = waiting(cluster, "metered")
    first = "reader.1" if late == "reader.2" else "reader.2"
    expected = {"h1": [], "h2": ["plain.1", first], "h3": []}
    cluster.wait_for(lambda: runs("metered") == expected, "one to run")
    opens = ("--", "sh", "-c", ": </dev/meter && stat -c %t:%T /dev/meter")
    number = os.stat(DEVICE).st_rdev
    said = cluster.homeport("exec", f"metered/{first}", *opens).stdout.strip()
    assert said == f"{os.major(number):x}:{os.minor(number):x}"
    assert cluster.homeport("exec", "metered/plain.1", *opens, check=False).returncode != 0
    said = explain(cluster, f"metered/{late}")
    assert "h2 has 0 of 1 meter free" in said, said
    assert "h1 has 0 of 1 meter" in said, said
    # Plugged in at h3, which is seen there without a restart.
    plug_in(trees["h3"])
    expected["h3"] = [late]
    cluster.wait_for(lambda: runs("metered") == expected, "the other", seconds=60)


def test_a_node_down_is_what_was_imagined(cluster: Cluster, runs: Runs) -> None:
    for host in ("h1", "h2"):
        cluster.homeport("node", "update", host, "--resource", "tuner=1")
    tuner = "generic_resources: [{discrete_resource_spec: {kind: tuner, value: 1}}]"
    liked = "where: node.hostname == h2, weight: 100"
    apply(
        cluster,
        "lab",
        f"""
        web: {{deploy: {{replicas: 5}}}}
        db: {{deploy: {{{on("h2")}}}, volumes: ['data:/data']}}
        cam: {{deploy: {{replicas: 2, resources: {{reservations: {{{tuner}}}}}}}}}
        only: {{x-homeport: {{exclusive: true, prefer: [{{{liked}}}]}}}}
        """,
    )
    cluster.wait_for(lambda: len(slots(runs("lab"))) == 9, "all of it to run")
    before = runs("lab")
    assert {"db.1", "only.1"} < set(before["h2"])

    asked = cluster.homeport("whatif", "node-down", "h2", "-o", "json", check=False)
    assert asked.returncode == 1, asked.stderr
    answer: dict[str, Any] = json.loads(asked.stdout)
    stuck = sorted(f"{each['service']}.{each['slot']}" for each in answer["waiting"])
    assert len(stuck) == 2
    assert stuck[1] == "db.1"
    assert stuck[0].startswith("cam.")
    expected = {host: list(before[host]) for host in ("h1", "h3")}
    for move in answer["moves"]:
        assert move["from_node"] == "h2"
        expected[move["to_node"]].append(f"{move['service']}.{move['slot']}")
    expected = {host: sorted(here) for host, here in expected.items()}
    assert sorted([*stuck, *slots(expected)]) == sorted(slots(before))
    assert runs("lab") == before  # nothing was done

    host = cluster.host("h2")
    host.power_off()
    try:
        assert not host.engine.answers()
        assert not cluster.agents["h2"].alive
        cluster.wait_for(
            lambda: runs("lab", ("h1", "h3")) == expected, "what was imagined", seconds=90
        )
        time.sleep(5)
        assert runs("lab", ("h1", "h3")) == expected  # and it stays so
        said = explain(cluster, f"lab/{stuck[0]}")
        assert "h3 has 0 tuner free of reservations, and 1 is needed" in said
        assert "h2 is not ready" in explain(cluster, "lab/db.1")
    finally:
        host.engine.start()
        cluster.agents["h2"].start()
        cluster.wait_for(lambda: len(cluster.ready_nodes()) == 3, "h2 to be back", seconds=60)
    cluster.wait_for(lambda: sorted(stuck) == runs("lab")["h2"], "what waited for h2", seconds=60)


def test_rebalance_moves_what_it_plans_and_no_replica_is_missed(
    cluster: Cluster, runs: Runs
) -> None:
    cluster.homeport("cordon", "h3")
    apply(cluster, "wide", "web: {deploy: {replicas: 6, update_config: {monitor: 2s}}}")
    expected = {"h1": 3, "h2": 3, "h3": 0}
    cluster.wait_for(lambda: counts(runs("wide")) == expected, "six on two nodes")
    assert "Nothing to move." in cluster.homeport("rebalance").stdout
    cluster.homeport("uncordon", "h3")
    moves = cluster.json("rebalance")["moves"]
    ways = sorted((move["from_node"], move["to_node"]) for move in moves)
    assert ways == [("h1", "h3"), ("h2", "h3")]
    assert counts(runs("wide")) == expected  # only planned

    cluster.homeport("rebalance", "--apply")
    deadline = time.monotonic() + YOUNG_SECONDS
    # h3 is asked last: what has left h1 by then has run there for two seconds.
    while counts(placed := runs("wide")) != {"h1": 2, "h2": 2, "h3": 2}:
        assert set(slots(placed)) == {f"web.{slot}" for slot in range(1, 7)}, placed
        assert time.monotonic() < deadline, placed
        time.sleep(POLL_SECONDS)
    assert placed["h3"] == sorted(f"web.{move['slot']}" for move in moves)
    cluster.wait_for(lambda: len(cluster.tasks("wide")) == 6, "the old ones to be forgotten")
    assert "Nothing to move." in cluster.homeport("rebalance").stdout
