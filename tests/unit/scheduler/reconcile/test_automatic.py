"""The scheduler moves by itself when a node came and nothing else goes on; to wait costs little."""

from dataclasses import replace

import pytest

from homeport.model import (
    Availability,
    Cluster,
    NodeState,
    Rebalancing,
    Rollout,
    RolloutState,
    Task,
)
from scheduler.cluster.observed import Brake
from scheduler.reconcile.automatic import AGAIN_SECONDS, SETTLE_SECONDS, Automatic
from tests.builders import World, node, spec

AUTOMATIC = Cluster(id="c", rebalancing=Rebalancing.AUTOMATIC, moves_per_hour=10)


class Counted:
    """A view that counts the records that are looked at."""

    def __init__(self, tables):
        self._tables = tables
        self.count = 0

    def __getattr__(self, name):
        found = getattr(self._tables, name)
        if not callable(found):
            return found

        def counted(*given):
            answer = found(*given)
            if hasattr(answer, "__iter__"):
                return self._each(answer)
            self.count += 1
            return answer

        return counted

    def _each(self, records):
        for record in records:
            self.count += 1
            yield record


class Waiting:
    """A cluster in which a node came, and the scheduler may move tasks by itself."""

    def __init__(self, nodes=4, services=4):
        self.world = World()
        self.world.put(AUTOMATIC)
        self.nodes = [self.world.add_node(f"n{number}", number) for number in range(nodes)]
        self.services = [self.world.apply(spec(f"s{number}")) for number in range(services)]
        self.automatic = Automatic(0.0)
        self.automatic.noticed(AUTOMATIC, self.world.now)
        self.world.pass_time(SETTLE_SECONDS)
        self.plans = 0

    def ask(self):
        """Whether it goes to work, and how many records it looks at until it knows."""
        counted = Counted(self.world.tables)
        snapshot = replace(self.world.snapshot(), stored=counted)
        plans = self.plans
        seen = None

        def fleet():
            nonlocal seen
            seen = counted.count
            self.plans += 1
            return self.world.fleet.copy()

        self.automatic.decide(snapshot, fleet, is_moving=False, lease_seconds=15.0)
        looked = counted.count if seen is None else seen
        self.world.pass_time(AGAIN_SECONDS)
        return self.plans > plans, looked

    def roll_out(self, service, state=RolloutState.UPDATING):
        self.world.put(Rollout(service=service, generation=1, state=state))


def test_it_goes_to_work_when_nothing_goes_on():
    waiting = Waiting()
    assert waiting.ask()[0]
    assert not waiting.ask()[0], "once for a node that came"


@pytest.mark.parametrize("state", [NodeState.SUSPECT, NodeState.UNKNOWN])
def test_it_waits_for_a_silent_node_unless_that_is_lost(state):
    waiting = Waiting()
    silent = waiting.nodes[-1]
    waiting.world.set_state(silent, state)
    assert [waiting.ask()[0] for _ in range(3)] == [False] * 3
    waiting.world.put(replace(waiting.world.tables.node(silent), lost_ms=5))
    assert waiting.ask()[0]


def test_it_waits_for_the_brake_and_for_rollouts_one_after_the_other():
    waiting = Waiting()
    waiting.world.observed.brake = Brake(since=0, since_ms=0, silent=(), counted=(), cause="")
    assert not waiting.ask()[0]
    waiting.world.observed.brake = None
    for service in waiting.services[:2]:
        waiting.roll_out(service)
    assert not waiting.ask()[0]
    waiting.roll_out(waiting.services[0], RolloutState.COMPLETED)
    assert not waiting.ask()[0]
    waiting.roll_out(waiting.services[1], RolloutState.PAUSED)
    assert waiting.ask()[0]


def test_what_kept_it_waiting_and_is_gone_keeps_it_no_longer():
    waiting = Waiting()
    waiting.roll_out(waiting.services[0])
    waiting.world.set_state(waiting.nodes[0], NodeState.SUSPECT)
    assert not waiting.ask()[0]
    waiting.world.drop(f"nodes/{waiting.nodes[0]}")
    assert not waiting.ask()[0]
    waiting.world.drop(f"services/{waiting.services[0]}")
    assert waiting.ask()[0], "the rollout of a service that is gone is none"


def kept_waiting(size):
    """The records that are looked at, each time that it is asked, in a cluster of this size."""
    waiting = Waiting(nodes=size, services=size)
    waiting.world.set_state(waiting.nodes[-1], NodeState.SUSPECT)
    by_a_node = [waiting.ask()[1] for _ in range(4)]
    waiting.roll_out(waiting.services[-1])
    waiting.world.set_state(waiting.nodes[-1], NodeState.READY)
    by_a_rollout = [waiting.ask()[1] for _ in range(4)]
    assert waiting.plans == 0
    return by_a_node, by_a_rollout


def test_the_whole_cluster_is_looked_at_once_for_each_thing_that_goes_on():
    for few, many in zip(kept_waiting(5), kept_waiting(200), strict=True):
        assert many[0] > few[0], "to find out what it is"
        assert many[1:] == few[1:], "and no more of it, while that goes on"
        assert max(many[1:]) <= 3


@pytest.mark.parametrize(
    ("key", "old", "new", "due"),
    [
        pytest.param("nodes/node-a", None, node("a"), True, id="a node came"),
        pytest.param("nodes/node-a", node("a"), None, False, id="a node went"),
        pytest.param("nodes/node-a", node("a"), node("a", cpu=1), False, id="it is another"),
        pytest.param(
            "nodes/node-a",
            node("a", availability=Availability.PAUSE),
            node("a"),
            True,
            id="it may take tasks again",
        ),
        pytest.param("cluster", None, AUTOMATIC, True, id="the cluster's record"),
        pytest.param("services/web", None, None, False, id="anything else"),
    ],
)
def test_only_what_may_make_another_node_better_is_a_reason_to_look(key, old, new, due):
    automatic = Automatic(0.0)
    automatic.changed(key, old, new, AUTOMATIC, 100.0)
    assert automatic.due_at == (100.0 + SETTLE_SECONDS if due else 0.0)
    automatic = Automatic(0.0)
    automatic.changed(key, old, new, replace(AUTOMATIC, rebalancing=Rebalancing.MANUAL), 100.0)
    assert automatic.due_at == 0.0, "nobody asked for it"


def test_what_an_earlier_leader_moved_counts():
    waiting = Waiting()
    now_ms = waiting.world.now_ms
    task = Task(service="s", slot=1, n=1, node="node-n0", generation=1, moved_ms=now_ms)
    for _ in range(AUTOMATIC.moves_per_hour):
        waiting.automatic.remember(task, waiting.world.now, now_ms)
    assert not waiting.ask()[0], "as many as may be in an hour"
