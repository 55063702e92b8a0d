"""What-if over real gRPC and from the command line, and that what it says is what then happens.

Real scheduler and agent processes, the simulated runtime.
"""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until

pytestmark = pytest.mark.timeout(180)

NAMES = ("n1", "n2", "n3")


@pytest.fixture
def cluster(tmp_path):
    """(scheduler, agents by name, client) with a stack that runs on three nodes."""
    processes = [Scheduler(tmp_path / "scheduler")]
    try:
        scheduler = processes[0].leads()
        agents = {name: Agent(tmp_path / name, scheduler.address, name) for name in NAMES}
        processes += agents.values()
        with Client(scheduler.address) as client:
            ready = types_pb2.NODE_STATE_READY
            until("the nodes are ready", lambda: [n.state for n in client.nodes()] == [ready] * 3)
            memory = next(iter(client.nodes())).node.inventory.capacity.memory_bytes
            data = types_pb2.Mount(kind=types_pb2.MOUNT_KIND_VOLUME, source="data", target="/data")
            lab = stack(
                "lab",
                service("web", replicas=3),
                service("db", replicas=1, container={"mounts": [data]}),
                service(
                    "big",
                    replicas=2,
                    reservations=types_pb2.Resources(memory_bytes=memory * 6 // 10),
                ),
                volumes=[types_pb2.VolumeSpec(name="data")],
            )
            client.apply(control_pb2.ApplyRequest(stack=lab))
            running(client, "lab", 6)
            yield scheduler, agents, client
    finally:
        for process in reversed(processes):
            process.end()


def homeport(scheduler, *arguments):
    """(exit code, the answer as a document)."""
    done = subprocess.run(
        [sys.executable, "-m", "homeport", "-s", scheduler.address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def slots(found):
    """service.slot of all these."""
    return sorted(f"{each['service']}.{each['slot']}" for each in found)


def moves(answer):
    """{service.slot: the node that it goes to}."""
    return {f"{m['service']}.{m['slot']}": m["to_node"] for m in answer.get("moves", ())}


def places(client, state="RUNNING"):
    """{service.slot: node} of the tasks in this state; of two in a slot the later one."""
    tasks = sorted(client.tasks(stack="lab"), key=lambda task: task.task.n)
    return {task.name: task.node_name for task in tasks if state_of(task) == state}


def losses(scheduler):
    """{node: (survivable, pinned, unplaceable)} as Prometheus sees it."""
    with urllib.request.urlopen(f"{scheduler.http}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = {}
    for name in NAMES:
        survivable = re.search(rf'homeport_node_loss_survivable{{node="{name}"}} (\S+)', text)
        counts = [
            re.search(
                rf'homeport_node_loss_waiting_slots{{node="{name}",reason="{reason}"}} (\S+)', text
            )
            for reason in ("pinned", "unplaceable")
        ]
        assert survivable, name
        found[name] = (float(survivable[1]), *(float(count[1]) for count in counts))
    return found


def test_a_drain_and_a_loss_are_what_was_imagined(cluster):
    scheduler, agents, client = cluster
    before = places(client)
    home = before["db.1"]
    elsewhere = next(name for name in NAMES if name != home)

    code, drained = homeport(scheduler, "whatif", "drain", elsewhere, "-o", "json")
    assert places(client) == before  # nothing was done
    availability = types_pb2.AVAILABILITY_DRAIN
    client.update_node(control_pb2.UpdateNodeRequest(node=elsewhere, availability=availability))
    stays = slots(drained.get("staying", ()))
    assert code == (1 if stays else 0)
    assert moves(drained)
    until(
        "what was imagined of the drain",
        lambda: places(client) == {**before, **moves(drained)},
    )
    assert [slot for slot, node in places(client).items() if node == elsewhere] == stays
    availability = types_pb2.AVAILABILITY_ACTIVE
    client.update_node(control_pb2.UpdateNodeRequest(node=elsewhere, availability=availability))

    before = places(client)
    asked = {name: homeport(scheduler, "whatif", "node-down", name, "-o", "json") for name in NAMES}
    seen = losses(scheduler)
    for name, (_, answer) in asked.items():
        survivable, pinned, unplaceable = seen[name]
        assert survivable == answer.get("survives", False), name
        assert pinned + unplaceable == len(answer.get("waiting", ())), name
        assert pinned == (name == home)
    code, lost = asked[home]
    assert code == 1
    assert "db.1" in slots(lost["waiting"])
    assert "survives" not in lost

    agents[home].end(signal.SIGKILL)
    down = types_pb2.NODE_STATE_DOWN

    def is_down():
        return {node.node.name: node.state for node in client.nodes()}[home] == down

    until("the node is down", is_down, 60)
    stuck = slots(lost["waiting"])
    expected = {slot: node for slot, node in before.items() if slot not in stuck}
    expected |= moves(lost)

    def happened():
        found = places(client)
        return {slot: node for slot, node in found.items() if node != home} == expected

    until("what was imagined of the loss", happened, 60)


def test_what_cannot_be_imagined_is_refused_in_words(cluster):
    scheduler, _, client = cluster
    with pytest.raises(CallFailed, match="there is no node pi9; there are n1, n2, n3"):
        client.what_if(control_pb2.WhatIfRequest(nodes_down=["pi9"]))
    with pytest.raises(CallFailed) as caught:
        client.what_if(
            control_pb2.WhatIfRequest(added=[control_pb2.ImaginedNode(name="n1", like="n2")])
        )
    assert caught.value.fields == (("added[0].name", "there is a node n1: imagine another name"),)
    code, answer = homeport(
        scheduler, "whatif", "add-node", "n4", "--like", "n1", "--with-node-down", "n1",
        *("-o", "json"),
    )  # fmt: skip
    assert code == (1 if answer.get("waiting") else 0)
    assert {"n2", "n3", "n4"} == {room["node"] for room in answer["rooms"]}
