"""S21: the tasks of silent nodes move a node at a time, and not before it is time."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import NodeState, ServiceId, Task
from scheduler.cluster.observed import Brake
from scheduler.reconcile.moves import NODE_SECONDS, STARTING_MAX, Moves
from scheduler.reconcile.slots import Vacancy
from tests.builders import World

WEB = ServiceId("s-web-1")
LEASE = 15.0


def vacancy(slot, leaves="node-a", **fields):
    return Vacancy(
        service=WEB,
        slot=slot,
        n=2,
        generation=1,
        reason="node a is silent",
        leaves=leaves,
        **fields,
    )


class Cluster(World):
    """Three nodes of which `a` and `b` are silent, and a leader of some age."""

    def __init__(self, state=NodeState.SUSPECT, age=100.0):
        super().__init__()
        for name in "abc":
            self.add_node(name)
        for name in "ab":
            self.set_state(f"node-{name}", state)
        self.moves = Moves(self.now - age)

    def admit(self, *vacancies):
        return self.moves.admit(self.snapshot(), vacancies, LEASE)

    def free(self, *vacancies):
        """The slots that may move now."""
        return [each.slot for each in self.admit(*vacancies).vacancies if not each.blocked]

    def brake(self):
        self.observed.brake = Brake(
            since=self.now, since_ms=0, silent=("node-a",), counted=(), cause="2 of 3 nodes fell"
        )


def test_what_is_no_move_is_let_through():
    cluster = Cluster(age=0.0)
    assert cluster.free(vacancy(1, leaves=None)) == [1]


def test_s21_none_while_the_leader_is_younger_than_the_node_lease():
    cluster = Cluster(age=14.9)
    answer = cluster.admit(vacancy(1))
    assert "waits until this scheduler has led" in answer.vacancies[0].blocked
    assert answer.wake_at[WEB] == pytest.approx(cluster.now + 0.1)
    cluster.pass_time(0.2)
    assert cluster.free(vacancy(1)) == [1]


def test_of_a_suspected_node_three_replacements_start_at_once():
    cluster = Cluster()
    wanted = [vacancy(slot) for slot in range(1, 6)]
    assert cluster.free(*wanted) == [1, 2, 3]
    placed = {(WEB, slot): f"{WEB}/{slot}/2" for slot in (1, 2, 3)}
    cluster.moves.placed(cluster.snapshot(), wanted, placed)
    assert cluster.free(*wanted[3:]) == []
    for slot in (1, 2, 3):
        cluster.put(Task(service=WEB, slot=slot, n=2, node="node-c", generation=1))
    cluster.pass_time(1)
    assert cluster.free(*wanted[3:]) == []
    cluster.report(f"{WEB}/2/2", TaskState.RUNNING)
    assert cluster.free(*wanted[3:]) == [4]


def test_a_replacement_that_was_not_written_gives_its_turn_back():
    cluster = Cluster()
    wanted = [vacancy(slot) for slot in range(1, 4)]
    placed = {(WEB, slot): f"{WEB}/{slot}/2" for slot in (1, 2, 3)}
    cluster.moves.placed(cluster.snapshot(), wanted, placed)
    assert cluster.free(vacancy(4)) == []
    cluster.pass_time(1)
    assert cluster.free(vacancy(4)) == [4]


def test_of_a_node_that_is_down_all_start_at_once():
    cluster = Cluster(NodeState.DOWN)
    wanted = [vacancy(slot) for slot in range(1, 3 * STARTING_MAX)]
    assert len(cluster.free(*wanted)) == len(wanted)


def test_s21_one_lost_nodes_worth_begins_in_ten_seconds():
    cluster = Cluster(NodeState.DOWN)
    both = (vacancy(1, "node-a"), vacancy(2, "node-b"))
    answer = cluster.admit(*both)
    assert [bool(each.blocked) for each in answer.vacancies] == [False, True]
    assert answer.wake_at[WEB] == cluster.now + NODE_SECONDS
    cluster.pass_time(9.9)
    assert cluster.free(*both) == [1]
    cluster.pass_time(0.2)
    assert cluster.free(*both) == [1, 2]


def test_a_node_that_came_back_is_admitted_anew():
    cluster = Cluster(NodeState.DOWN)
    assert cluster.free(vacancy(1)) == [1]
    cluster.pass_time(60)
    cluster.set_state("node-a", NodeState.READY)
    assert cluster.free(vacancy(2, "node-b")) == [2]
    cluster.set_state("node-a", NodeState.DOWN)
    assert cluster.free(vacancy(1)) == []


def test_s21_the_brake_holds_replicas_for_a_minute_and_exclusive_tasks_until_a_word():
    cluster = Cluster(NodeState.DOWN)
    cluster.brake()
    moves = (vacancy(1), vacancy(2, needs_lease=True))
    answer = cluster.admit(*moves)
    assert all(each.blocked for each in answer.vacancies)
    assert "homeport node lost a" in answer.vacancies[1].blocked
    assert list(answer.held) == [WEB]
    cluster.pass_time(60)
    assert cluster.free(*moves) == [1]


def test_the_operators_word_that_a_node_is_lost_overrides_everything():
    cluster = Cluster(NodeState.DOWN, age=0.0)
    cluster.brake()
    cluster.put(replace(cluster.tables.node("node-a"), lost_ms=7))
    assert cluster.free(vacancy(1, needs_lease=True), vacancy(2, "node-b")) == [1]
