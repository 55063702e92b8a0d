"""Tasks move to better nodes, by real scheduler and agent processes on the simulated runtime.

Told by the CLI, with no moment in which a service has fewer running tasks than before; and by
itself where the cluster says so, within its limit.
"""

import subprocess
import sys
import time
import urllib.request

import pytest

from homeport.client import Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until

YOUNG_SECONDS = 40
"""A leader lets nothing move before it has led for a node's lease (15 s)."""


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and one agent, n1; more come with `join`."""
    processes = [Scheduler(tmp_path / "scheduler")]
    try:
        scheduler = processes[0].leads()

        def join(name):
            processes.append(Agent(tmp_path / name, scheduler.address, name))
            ready = types_pb2.NODE_STATE_READY
            until(f"{name} is ready", lambda: name in ready_nodes(client, ready))

        with Client(scheduler.address) as client:
            join("n1")
            yield scheduler, client, join
    finally:
        for process in reversed(processes):
            process.end()


def ready_nodes(client, ready):
    """The names of the nodes in this state."""
    return [each.node.name for each in client.nodes() if each.state == ready]


def homeport(scheduler, *arguments):
    """Run the command line; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "homeport", "--scheduler", scheduler.address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def deploy(client, count):
    """So many tasks of a service that is watched for a moment when it is new."""
    quick = types_pb2.UpdateConfig(monitor_ms=500)
    client.apply(
        control_pb2.ApplyRequest(stack=stack("lab", service(replicas=count, update=quick)))
    )
    running(client, "lab", count)


def where(client):
    """The nodes of the running tasks; None while there is another that does not run."""
    tasks = list(client.tasks(stack="lab"))
    if any(state_of(task) != "RUNNING" for task in tasks):
        return None
    return sorted(task.node_name for task in tasks)


def metrics(scheduler):
    """Prometheus' page, by line."""
    with urllib.request.urlopen(f"{scheduler.http}/metrics", timeout=5) as page:
        return page.read().decode().splitlines()


def test_a_node_joins_and_takes_its_share_when_told_and_no_slot_is_ever_without_a_task(cluster):
    scheduler, client, join = cluster
    deploy(client, 6)
    join("n2")
    plan = homeport(scheduler, "rebalance")
    assert plan.count(" n1 ") == 3
    assert plan.count(" n2 ") == 3 + 3  # as the target, and in the sentence
    time.sleep(1)
    assert where(client) == ["n1"] * 6
    homeport(scheduler, "rebalance", "--apply")
    deadline = time.monotonic() + YOUNG_SECONDS
    while where(client) != ["n1"] * 3 + ["n2"] * 3:
        tasks = client.tasks(stack="lab")
        slots = {task.name for task in tasks if state_of(task) == "RUNNING"}
        assert slots == {f"web.{slot}" for slot in range(1, 7)}
        assert time.monotonic() < deadline, where(client)
    assert "Nothing to move." in homeport(scheduler, "rebalance")
    reasons = [event.reason for event in client.list_events(control_pb2.ListEventsRequest()).events]
    assert reasons.count("Moving") == 3
    assert 'homeport_moves_total{cause="rebalance"} 3.0' in metrics(scheduler)


def test_by_itself_within_its_limit(cluster):
    scheduler, client, join = cluster
    homeport(scheduler, "cluster", "update", "--rebalance", "auto", "--rebalance-per-hour", "2")
    assert "at most 2 moves an hour" in homeport(scheduler, "status")
    deploy(client, 6)
    join("n2")
    until(
        "two tasks moved", lambda: where(client) == ["n1"] * 4 + ["n2"] * 2, seconds=YOUNG_SECONDS
    )
    time.sleep(12)  # as long as it takes to look again
    assert where(client) == ["n1"] * 4 + ["n2"] * 2
    assert 'homeport_moves_total{cause="automatic"} 2.0' in metrics(scheduler)
