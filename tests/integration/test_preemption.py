"""Who ends to make room, over real gRPC: `plan` says it, events and `explain` say it, it happens.

Real scheduler and agent processes, the simulated runtime; what runs short is a resource that an
operator gave one of two nodes.
"""

import pytest

from homeport.client import Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, service, stack, state_of, until

NAMES = ("n1", "n2")
YOUNG_SECONDS = 40
"""A new leader has nothing stopped in its first eleven seconds."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two agents; the second has three tuners."""
    folder = tmp_path_factory.mktemp("preemption")
    processes = [Scheduler(folder / "scheduler")]
    try:
        scheduler = processes[0].leads()
        processes += [Agent(folder / name, scheduler.address, name) for name in NAMES]
        with Client(scheduler.address) as client:
            ready = [types_pb2.NODE_STATE_READY] * len(NAMES)
            until("the nodes are ready", lambda: [n.state for n in client.nodes()] == ready)
            client.update_node(
                control_pb2.UpdateNodeRequest(node="n2", set_resources={"tuner": "3"})
            )
            yield client
    finally:
        for process in reversed(processes):
            process.end()


@pytest.fixture
def client(cluster):
    """A client whose stacks are gone afterwards."""
    yield cluster
    for each in cluster.stacks():
        cluster.remove_stack(control_pb2.RemoveStackRequest(stack=each.name))
    until("all stacks are gone", lambda: not list(cluster.stacks()))


def needs(name, replicas, tuners, **fields):
    """A service whose tasks take so many tuners each."""
    wanted = types_pb2.Resources(generic={"tuner": str(tuners)})
    return service(name, replicas=replicas, reservations=wanted, **fields)


def apply(client, name, *services, **fields):
    """Deploy a stack, or say what that would do."""
    return client.apply(control_pb2.ApplyRequest(stack=stack(name, *services), **fields))


def running(client):
    """The names of all tasks that run."""
    return sorted(
        f"{task.stack}/{task.name}" for task in client.tasks() if state_of(task) == "RUNNING"
    )


def runs(client, *names):
    """Wait until these run and nothing else does."""
    until(f"{names} run", lambda: running(client) == list(names), YOUNG_SECONDS)


def reason(client, name):
    """Why the slot is as it is."""
    (line,) = client.explain(control_pb2.ExplainRequest(stack="low", object=name)).lines
    return line


def test_room_is_made_and_plan_events_and_explain_say_so(client):
    apply(client, "low", needs("web", 3, 1))
    runs(client, "low/web.1", "low/web.2", "low/web.3")
    chief = needs("chief", 1, 2, priority=10, preempts=True)
    plan = apply(client, "top", chief, validate_only=True)
    (task,) = plan.tasks
    assert (task.node, len(task.ends)) == ("n2", 2)
    assert any(each.endswith("of lower priority end to make room") for each in plan.notices)
    assert len(running(client)) == 3
    apply(client, "top", chief)
    (left,) = {"low/web.1", "low/web.2", "low/web.3"} - set(task.ends)
    runs(client, left, "top/chief.1")
    ended = {
        event.message
        for event in client.list_events(control_pb2.ListEventsRequest(page_size=1000)).events
        if event.reason == "Preempted"
    }
    assert ended == {"it makes room for top/chief.1 of priority 10"}
    victim = task.ends[0].removeprefix("low/")
    assert "it makes room for top/chief.1 of priority 10" in reason(client, victim)
    # What gave way comes back when there is room again.
    client.remove_stack(control_pb2.RemoveStackRequest(stack="top"))
    runs(client, "low/web.1", "low/web.2", "low/web.3")


def test_a_minimum_is_left_running(client):
    apply(client, "low", needs("web", 3, 1, min_replicas=2))
    runs(client, "low/web.1", "low/web.2", "low/web.3")
    apply(client, "top", needs("chief", 2, 1, priority=10, preempts=True))
    until("one of them runs", lambda: "top/chief.1" in running(client), YOUNG_SECONDS)
    assert sum(each.startswith("low/") for each in running(client)) == 2
    (waits,) = [
        task for task in client.tasks() if state_of(task) == "PENDING" and task.stack == "top"
    ]
    assert "no tasks of lower priority could make room for it" in waits.status.message


def test_what_is_not_preemptible_stays(client):
    kept = needs("kept", 2, 1, preemptible=False)
    apply(client, "low", kept, needs("web", 1, 1, priority=1))
    runs(client, "low/kept.1", "low/kept.2", "low/web.1")
    apply(client, "top", needs("chief", 2, 1, priority=10, preempts=True))
    runs(client, "low/kept.1", "low/kept.2", "top/chief.1")
