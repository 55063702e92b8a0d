"""S1: no word of an operator lets a second copy of an exclusive task begin while one may run."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import Condition, NodeState, NodeStatus, Outcome, ServiceId, Task
from homeport.v1 import control_pb2, types_pb2
from scheduler.api import losing, standing
from scheduler.cluster.observed import Brake, Liveness
from tests.builders import World

HOLDER = Task(service=ServiceId("s-db-1"), slot=1, n=1, node="node-a", generation=1, exclusive=True)


class Cluster(World):
    def __init__(self, *tasks, state=NodeState.READY):
        super().__init__()
        self.add_node("a", state=state)
        for task in tasks:
            self.put(task)

    @property
    def node(self):
        return self.tables.node("node-a")


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (NodeState.READY, True),
        (NodeState.SUSPECT, False),
        (NodeState.DOWN, False),
        (NodeState.UNKNOWN, False),
    ],
)
def test_a_node_that_is_heard_of_is_not_lost(state, refused):
    cluster = Cluster(state=state)
    assert bool(losing.may_be_on(cluster.snapshot(), cluster.node)) is refused


@pytest.mark.parametrize("state", list(NodeState))
@pytest.mark.parametrize(
    ("tasks", "holds"),
    [
        ((), False),
        ((HOLDER,), True),
        ((replace(HOLDER, exclusive=False),), False),
        ((replace(HOLDER, pinned=True),), False),
        ((replace(HOLDER, outcome=Outcome(state=TaskState.SHUTDOWN)),), False),
        ((HOLDER, replace(HOLDER, n=2, node="node-b")), False),  # its successor runs already
    ],
)
def test_s1_a_node_is_not_forgotten_while_an_exclusive_task_may_run_there(state, tasks, holds):
    cluster = Cluster(*tasks, state=state)
    why = losing.leases_held(cluster.snapshot(), cluster.node)
    assert bool(why) is (holds and state is not NodeState.DOWN)
    if why:
        assert "homeport drain a" in why
        assert "homeport node lost a" in why


def test_the_standing_names_the_brake_its_cause_and_the_word_that_lifts_it():
    cluster = Cluster(state=NodeState.DOWN)
    cluster.add_node("b", state=NodeState.READY)
    cluster.observed.put_liveness(
        "node-b",
        Liveness(
            state=NodeState.READY,
            status=NodeStatus(
                conditions=(Condition(name="mass-stop", ok=False, message="5 stops are held"),),
                unknown_containers=("old.1",),
            ),
        ),
    )
    cluster.put(replace(cluster.node, lost_ms=5))
    cluster.observed.brake = Brake(
        since=0.0, since_ms=1_000, silent=("node-a",), counted=(), cause="2 of 2 fell silent"
    )
    answer = control_pb2.GetClusterResponse()
    standing.fill(answer, cluster.snapshot())
    assert [(each.state, each.nodes) for each in answer.node_states] == [
        (types_pb2.NODE_STATE_READY, 1),
        (types_pb2.NODE_STATE_DOWN, 1),
    ]
    assert answer.brake.cause == "2 of 2 fell silent"
    assert answer.brake.replicas_move_at_ms == 61_000
    assert list(answer.brake.lifted_by) == ["homeport node lost a"]
    assert [(each.node, each.message) for each in answer.held_stops] == [("b", "5 stops are held")]
    assert [(each.node, *each.containers) for each in answer.unknown_containers] == [("b", "old.1")]
    assert list(answer.lost_nodes) == ["a"]
