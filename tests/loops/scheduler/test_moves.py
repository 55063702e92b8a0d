"""What the control loop does when nodes fall silent: who moves, when, and under which lease.

The real controller and dispatcher's liveness rules over a store in memory, in virtual time.
"""

import asyncio
from dataclasses import replace

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import NodeState
from scheduler.cluster.observed import Liveness
from scheduler.dispatch.leases import Leases
from scheduler.reconcile import revoking
from scheduler.store.base import Ambiguous, Unavailable
from tests.builders import spec, volume_mount
from tests.loops.scheduler.ring import Ring

pytestmark = pytest.mark.looptime

YOUNG_SECONDS = 16
"""After so long a leader is as old as a node's lease."""


class Cluster(Ring):
    """Nodes that are heard of until they are cut off."""

    def see(self, name, state, *, silent=0.0):
        now = self.clock.boottime()
        self.observed.put_liveness(
            f"node-{name}",
            Liveness(
                state=state,
                reported=state is NodeState.READY,
                last_seen=now - silent,
                last_seen_ms=1,
                since=now,
            ),
        )
        self.dirt.node(f"node-{name}")
        if self.controller is not None:
            self.controller.wake()

    async def go_on(self, seconds=0.5):
        """Let time pass, in which the nodes that are READY are heard of."""
        end = self.clock.boottime() + seconds
        while (left := end - self.clock.boottime()) > 0:
            for node, seen in list(self.observed.liveness.items()):
                if seen.state is NodeState.READY:
                    alive = replace(seen, last_seen=self.clock.boottime())
                    self.observed.touch(node, alive)
            await asyncio.sleep(min(0.5, left))

    def suspect(self, *names):
        for name in names:
            self.see(name, NodeState.SUSPECT, silent=5.0)

    def down(self, *names):
        for name in names:
            self.see(name, NodeState.DOWN, silent=17.0)

    def run_all(self):
        """All tasks on nodes that are READY run."""
        for task in list(self.mirror.tables.tasks()):
            known = self.observed.status(task.id)
            if self.observed.node(task.node).state is not NodeState.READY or known is not None:
                continue
            self.report(task.id, TaskState.RUNNING, running_since_ms=task.created_ms + 1)

    def where(self, service):
        """The nodes of the tasks that are wanted, by slot."""
        return [
            task.node.removeprefix("node-")
            for task in self.tasks(service)
            if task.desired is Desired.RUNNING and task.outcome is None
        ]

    def is_withheld(self, name):
        superseded = Leases(self.mirror.tables).superseded
        return bool(revoking.withheld(self.observed, superseded, f"node-{name}", ()))


async def running_on(cluster, given, *names, **fields):
    """A service whose tasks were placed on these nodes, in a cluster whose leader is not young."""
    await cluster.add_nodes(*names)
    service = await cluster.apply(given, **fields)
    await cluster.go_on()
    cluster.run_all()
    await cluster.go_on(YOUNG_SECONDS)
    return service


async def test_replicas_of_a_suspected_node_run_elsewhere_three_starting_at_once():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("web", replicas=5), "a")
        await cluster.add_nodes("a", "b", "c", "d")
        cluster.suspect("a")
        await cluster.go_on(0.1)
        assert sorted(cluster.where(service)) == ["a"] * 5 + ["b", "c", "d"]
        cluster.run_all()
        await cluster.go_on(1)
        assert len(cluster.where(service)) == 10


async def test_a_replica_that_has_moved_stays_once_when_its_node_is_back():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("web", replicas=1), "a")
        await cluster.add_nodes("a", "b", "c", "d")
        cluster.suspect("a")
        await cluster.go_on()
        cluster.run_all()
        assert sorted(cluster.where(service)) == ["a", "b"]
        cluster.see("a", NodeState.READY)
        await cluster.go_on(15)  # the pace of surplus stops counts the leader's first seconds too
        assert cluster.where(service) == ["a"]


async def test_s21_nothing_moves_while_most_nodes_fell_silent_and_all_does_when_they_are_back():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("web", replicas=1), "a")
        await cluster.add_nodes("a", "b", "c", "d")
        cluster.suspect("a", "b")
        await cluster.go_on(20)
        cluster.down("a", "b")
        await cluster.go_on(20)
        assert cluster.where(service) == ["a"]
        assert cluster.observed.brake is not None
        assert "is held by the brake" in cluster.observed.waiting[service][1].reason
        assert "BrakeOn" in cluster.reasons()
        cluster.see("b", NodeState.READY)
        await cluster.go_on(2)
        assert cluster.observed.brake is None
        assert "BrakeOff" in cluster.reasons()
        assert sorted(cluster.where(service)) == ["a", "b"]


async def test_s21_a_minute_of_the_brake_later_replicas_move_and_exclusive_tasks_do_not():
    cluster = Cluster()
    async with cluster.running():
        replica = await running_on(cluster, spec("web", replicas=1), "a")
        exclusive = await cluster.apply(spec("db", exclusive=True))
        await cluster.go_on()
        cluster.run_all()
        await cluster.add_nodes("a", "b", "c", "d")
        cluster.down("a", "b")
        await cluster.go_on(59)
        assert (cluster.where(replica), cluster.where(exclusive)) == (["a"], ["a"])
        await cluster.go_on(3)
        assert max(cluster.where(replica)) in ("c", "d")
        await cluster.go_on(600)
        assert cluster.where(exclusive) == ["a"]
        assert "homeport node lost a" in cluster.observed.waiting[exclusive][1].reason


async def test_the_word_that_a_node_is_lost_moves_what_is_exclusive_under_the_brake():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", exclusive=True), "a")
        await cluster.add_nodes("a", "b", "c", "d")
        cluster.down("a", "b", "c")
        await cluster.go_on(100)
        assert cluster.where(service) == ["a"]
        await cluster.put(_lost(cluster, "a"))
        cluster.down("a")
        await cluster.go_on()
        assert cluster.where(service) == ["d"]


def _lost(cluster, name):
    return replace(cluster.mirror.tables.node(f"node-{name}"), lost_ms=5)


async def test_s1_an_exclusive_task_moves_when_its_node_is_down_and_not_before():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", exclusive=True), "a")
        await cluster.add_nodes("a", "b", "c")
        cluster.suspect("a")
        await cluster.go_on(11)
        assert cluster.where(service) == ["a"]
        cluster.down("a")
        await cluster.go_on()
        assert cluster.where(service) == ["b"]
        assert cluster.is_withheld("a")


async def test_s10_a_pinned_task_waits_for_its_node():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", mounts=(volume_mount("data"),)), "a")
        await cluster.add_nodes("a", "b", "c")
        cluster.down("a")
        await cluster.go_on(300)
        assert cluster.where(service) == ["a"]
        assert not cluster.is_withheld("a")


async def test_s1_the_lease_is_withheld_while_the_move_is_being_written():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", exclusive=True), "a")
        await cluster.add_nodes("a", "b", "c")
        written = asyncio.Event()
        cluster.store.late = [written]
        cluster.down("a")
        await cluster.go_on()
        assert cluster.where(service) == ["a"]  # on its way
        assert cluster.is_withheld("a")
        cluster.see("a", NodeState.READY)  # and now it is heard of
        await cluster.go_on()
        assert cluster.is_withheld("a")
        written.set()
        await cluster.go_on()
        assert cluster.where(service) == ["b"]
        assert cluster.is_withheld("a")


async def test_s1_a_move_that_was_not_written_gives_the_lease_back():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", exclusive=True), "a")
        await cluster.add_nodes("a", "b", "c")
        cluster.store.before = [Unavailable("off")]
        cluster.down("a")
        cluster.controller.wake()
        await cluster.go_on(0.1)
        cluster.see("a", NodeState.READY)
        await cluster.go_on()
        assert cluster.where(service) == ["a"]
        assert not cluster.is_withheld("a")


async def test_s1_the_lease_stays_withheld_while_nobody_knows_whether_the_move_was_written():
    cluster = Cluster()
    async with cluster.running():
        service = await running_on(cluster, spec("db", exclusive=True), "a")
        await cluster.add_nodes("a", "b", "c")
        cluster.store.after = [Ambiguous("no answer")]
        cluster.down("a")
        for _ in range(20):
            await asyncio.sleep(0.05)
            if len(cluster.tasks(service)) > 1 or cluster.committer.blocked:
                assert cluster.is_withheld("a")
        await cluster.go_on(5)
        assert [task.n for task in cluster.tasks(service)] == [1, 2]
        assert cluster.is_withheld("a")


async def test_s21_a_young_leader_moves_nothing():
    cluster = Cluster()
    async with cluster.running():
        await cluster.add_nodes("a")
        service = await cluster.apply(spec("web", replicas=1))
        await cluster.go_on()
        cluster.run_all()
        await cluster.add_nodes("a", "b", "c")
        cluster.down("a")
        await cluster.go_on(13)
        assert cluster.where(service) == ["a"]
        assert "waits until this scheduler has led" in cluster.observed.waiting[service][1].reason
        await cluster.go_on(3)
        assert sorted(cluster.where(service)) == ["a", "b"]
