"""Compose stacks on three real engines: the commands do what their names say."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from homeport.v1 import types_pb2
from tests.e2e.cluster import Cluster
from tests.testbed.hosts import Lab

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(240)]

SHOP = """
services:
  web:
    image: hp/web:1
    environment:
      GREETING: ${GREETING:-hello}
    ports: ["18080:80"]
    deploy:
      replicas: 3
      resources: {reservations: {cpus: "0.05", memory: 16M}}
  db:
    image: hp/busybox:1
    command: ["sh", "-c", "trap 'exit 0' TERM; date +%s%N >> /data/starts; sleep 100000 & wait"]
    volumes: ["data:/data"]
    healthcheck:
      test: ["CMD", "test", "-s", "/data/starts"]
      interval: 1s
  worker:
    image: hp/busybox:1
    command: ["sh", "-c", "trap 'exit 0' TERM; while true; do echo tick; sleep 1 & wait $$!; done"]
    depends_on:
      db: {condition: service_healthy}
volumes:
  data: {}
"""


@pytest.fixture(scope="module")
def cluster(lab3: Lab, tmp_path_factory: pytest.TempPathFactory):
    with Cluster(lab3, directory=tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.apply("shop", SHOP)
        yield cluster


def page(host: str, port: int) -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as answer:
        return answer.read().decode()


def test_replicas_are_spread_over_the_nodes_and_answer_on_their_ports(cluster: Cluster) -> None:
    web = cluster.running("shop", "web")
    assert sorted(view.node_name for view in web) == ["h1", "h2", "h3"]
    for view in web:
        assert page(cluster.host(view.node_name).address, 18080).strip()


def test_ps_shows_every_task_with_its_node_and_state(cluster: Cluster) -> None:
    listed = cluster.homeport("ps").stdout.splitlines()
    assert listed[0].split()[:4] == ["NAME", "STACK", "NODE", "STATE"]
    assert len(listed) == 1 + 5
    assert all("RUNNING" in line for line in listed[1:])
    names = {view["name"] for view in cluster.json("ps")}
    assert names == {"web.1", "web.2", "web.3", "db.1", "worker.1"}


def test_the_dependency_was_healthy_before_what_depends_on_it_started(cluster: Cluster) -> None:
    (db,), (worker,) = cluster.running("shop", "db"), cluster.running("shop", "worker")
    assert db.status.health == types_pb2.HEALTH_HEALTHY
    assert db.status.running_since_ms < worker.status.running_since_ms


def test_logs_follow_what_a_task_writes(cluster: Cluster) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "homeport", "-s", cluster.address, "logs", "-f", "shop/worker"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        lines = [follower.stdout.readline().strip() for _ in range(4)]
    finally:
        follower.kill()
        follower.communicate()
    assert lines == ["tick"] * 4


def test_exec_runs_inside_the_task_and_passes_on_its_exit_code(cluster: Cluster) -> None:
    done = cluster.homeport(
        "exec", "-i", "shop/web.2", "--", "sh", "-c", "cat; echo err >&2; exit 7",
        stdin="from outside", check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("from outside", "err\n", 7)


def test_scale_adds_and_removes_without_touching_the_others(cluster: Cluster) -> None:
    before = {view.name: view.status.container_id for view in cluster.running("shop", "web")}
    cluster.homeport("scale", "shop/web=2")
    cluster.wait_for(lambda: len(cluster.tasks("shop", "web")) == 2, "two replicas")
    cluster.homeport("scale", "shop/web=3")
    cluster.wait_for(lambda: len(cluster.running("shop", "web")) == 3, "three replicas")
    after = {view.name: view.status.container_id for view in cluster.running("shop", "web")}
    assert {name: after[name] for name in ("web.1", "web.2")} == {
        name: before[name] for name in ("web.1", "web.2")
    }
    assert after["web.3"] != before["web.3"]


def test_a_slot_that_fits_nowhere_waits_and_says_why(cluster: Cluster) -> None:
    cluster.homeport("scale", "shop/web=4")
    cluster.wait_for(
        lambda: any(view.objections for view in cluster.tasks("shop", "web")), "a waiting slot"
    )
    (waiting,) = [
        view
        for view in cluster.tasks("shop", "web")
        if view.status.state == types_pb2.TASK_STATE_PENDING
    ]
    assert {objection.rule for objection in waiting.objections} == {"ports"}
    explained = cluster.homeport("explain", "shop/web.4").stdout
    assert all(f"{name} has port 18080/tcp taken" in explained for name in ("h1", "h2", "h3"))
    assert "smallest change: publish port 18081 instead of 18080/tcp (ports)" in explained
    cluster.homeport("scale", "shop/web=3")
    cluster.wait_for(lambda: len(cluster.tasks("shop", "web")) == 3, "three replicas again")


def test_plan_shows_fields_and_changes_nothing(cluster: Cluster) -> None:
    before = cluster.container_facts()
    file = str(cluster.directory / "changed.yaml")
    with open(file, "w") as changed:
        changed.write(
            SHOP.replace("${GREETING:-hello}", "changed").replace("  worker:", "  extra:")
        )
    planned = cluster.homeport("plan", "-f", file, "-p", "shop", check=False)
    assert planned.returncode == 1, planned.stderr
    assert "GREETING" in planned.stdout
    assert "extra" in planned.stdout
    assert "worker" in planned.stdout
    same = cluster.homeport("plan", "-f", str(cluster.directory / "shop.yaml"), "-p", "shop")
    assert same.returncode == 0
    assert cluster.container_facts() == before


def test_applying_the_same_file_again_changes_nothing(cluster: Cluster) -> None:
    before = cluster.container_facts()
    done = cluster.homeport("apply", "-f", str(cluster.directory / "shop.yaml"), "-p", "shop")
    assert "unchanged" in done.stdout
    assert cluster.container_facts() == before


def test_a_change_replaces_one_slot_at_a_time(cluster: Cluster) -> None:
    file = cluster.directory / "shop2.yaml"
    file.write_text(
        SHOP.replace("${GREETING:-hello}", "second").replace(
            "      replicas: 3", "      replicas: 3\n      update_config: {monitor: 1s}"
        )
    )
    cluster.homeport("apply", "-f", str(file), "-p", "shop")
    fewest = 3
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        views = cluster.tasks("shop", "web")
        up = [view for view in views if view.status.state == types_pb2.TASK_STATE_RUNNING]
        fewest = min(fewest, len(up))
        (service,) = [
            view for view in cluster.client.services("shop") if view.service.name == "web"
        ]
        if service.rollout.state == types_pb2.ROLLOUT_STATE_COMPLETED and service.updated == 3:
            break
        time.sleep(0.05)
    assert fewest == 2
    for view in cluster.running("shop", "web"):
        address = cluster.host(view.node_name).address
        with urllib.request.urlopen(f"http://{address}:18080/env", timeout=5) as answer:
            assert "GREETING=second" in answer.read().decode()


def test_a_bad_image_stops_the_rollout_with_its_reason(cluster: Cluster) -> None:
    before = {view.name for view in cluster.running("shop", "web")}
    assert len(before) == 3
    file = cluster.directory / "bad.yaml"
    file.write_text(SHOP.replace("hp/web:1", "hp/not-there:1"))
    cluster.homeport("apply", "-f", str(file), "-p", "shop")

    def paused() -> str:
        return next(
            view.rollout.message
            for view in cluster.client.services("shop")
            if view.service.name == "web" and view.rollout.state == types_pb2.ROLLOUT_STATE_PAUSED
        )

    cluster.wait_for(
        lambda: any(
            view.rollout.state == types_pb2.ROLLOUT_STATE_PAUSED
            for view in cluster.client.services("shop")
        ),
        "the rollout to pause",
        seconds=60,
    )
    assert "not-there" in paused()
    assert len(cluster.running("shop", "web")) == 2
    cluster.apply("shop", SHOP)
    cluster.wait_for(lambda: len(cluster.running("shop", "web")) == 3, "all three again")


def test_removing_a_stack_keeps_its_data(cluster: Cluster) -> None:
    (db,) = cluster.running("shop", "db")
    host = cluster.host(db.node_name)
    cluster.homeport("rm", "shop")
    for each in cluster.lab.hosts:
        client = each.engine.client()
        assert client.containers(all=True) == []
        assert client.networks(filters={"type": "custom"}) == []
    volumes = host.engine.client().volumes()["Volumes"]
    assert [volume["Name"] for volume in volumes] == ["shop_data"]
    cluster.apply("shop", SHOP)
    (again,) = cluster.running("shop", "db")
    assert again.node_name == db.node_name
    starts = cluster.homeport("exec", "shop/db", "--", "cat", "/data/starts").stdout.split()
    assert len(starts) == 2


def test_errors_are_sentences(cluster: Cluster) -> None:
    for arguments in (
        ("scale", "shop/nothing=3"),
        ("explain", "shop/nothing"),
        ("rm", "nothing"),
        ("logs", "nothing/web"),
        ("exec", "nothing/web", "--", "true"),
        ("drain", "nothing"),
        ("apply", "-f", "/nowhere.yaml"),
    ):
        done = cluster.homeport(*arguments, check=False)
        assert done.returncode not in (0, None), arguments
        assert "Traceback" not in done.stderr
        assert "nothing" in done.stderr or "nowhere" in done.stderr, (arguments, done.stderr)


def test_documents_are_valid_json(cluster: Cluster) -> None:
    for command in ("ps", "services", "nodes", "stacks", "events"):
        assert isinstance(json.loads(cluster.homeport(command, "-o", "json").stdout), list)
