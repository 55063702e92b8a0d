"""Moves that were told, and moves that nobody asked for, by the whole loop in virtual time."""

import asyncio
import hashlib

import pytest

from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Cause,
    Cluster,
    Health,
    NodeState,
    Rebalancing,
    Rollout,
    RolloutState,
    Task,
)
from homeport.v1 import control_pb2
from scheduler.api.errors import Invalid, NotFound, NotNow
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Brake, Liveness
from scheduler.config import Timers
from scheduler.reconcile.automatic import SETTLE_SECONDS
from scheduler.store.base import Ambiguous
from tests.builders import World, node, spec
from tests.loops.scheduler.ring import Ring, settled
from tests.loops.scheduler.test_requests import Api

pytestmark = pytest.mark.looptime

LEASE_SECONDS = Timers().node_lease_seconds


class Home(Ring):
    """A ring whose agents do at once what they are told, and all goes well."""

    def obey(self):
        for task in sorted(self.mirror.tables.tasks(), key=lambda each: each.id):
            status = self.observed.status(task.id)
            if self.observed.node(task.node).state is not NodeState.READY:
                continue
            if task.desired is Desired.REMOVED:
                wanted = TaskState.REMOVED
            elif task.desired is Desired.SHUTDOWN:
                wanted = TaskState.SHUTDOWN
            else:
                wanted = TaskState.RUNNING
            if status is None or status.state is not wanted:
                self.report(task.id, wanted)

    async def live(self, seconds):
        """Time passes, and agents obey."""
        for _ in range(int(seconds)):
            self.obey()
            await asyncio.sleep(1)

    async def automatic(self, moves_per_hour=4):
        await self.put(
            Cluster(id="c", rebalancing=Rebalancing.AUTOMATIC, moves_per_hour=moves_per_hour)
        )

    def on(self, name):
        """The tasks that are wanted on a node."""
        return [
            task
            for task in self.mirror.tables.tasks_of_node(f"node-{name}")
            if task.desired is Desired.RUNNING
        ]

    async def join(self, name):
        await self.put(node(name, ord(name)))
        self.see(name, NodeState.READY)

    async def deploy(self, count=8):
        """So many tasks on node a, that have run for long."""
        await self.add_nodes("a")
        service = await self.apply(spec("web", replicas=count))
        await self.live(60)
        assert len(self.on("a")) == count
        return service

    def count(self, reason):
        return self.reasons().count(reason)


async def test_a_node_that_joins_gets_its_share_by_itself_and_no_more_than_so_many_an_hour():
    ring = Home()
    async with ring.running():
        await ring.automatic(moves_per_hour=3)
        await ring.deploy(8)
        await ring.join("b")
        await ring.live(SETTLE_SECONDS - 2)
        assert ring.on("b") == []
        await ring.live(40)
        assert len(ring.on("b")) == 3
        assert len(ring.on("a")) == 5
        assert ring.count("Moving") == 3
        assert ring.controller.stats.moves == {"automatic": 3, "rebalance": 0, "silent": 0}
        await ring.live(3400)
        assert len(ring.on("b")) == 3
        await ring.live(300)
        assert len(ring.on("b")) == 4  # it is even then
        commits, cycles = ring.store.commits, ring.controller.cycles
        await settled(3000)
        assert (ring.store.commits, ring.controller.cycles) == (commits, cycles)


async def test_a_new_leader_knows_how_many_were_moved_within_the_hour():
    ring = Home()
    async with ring.running():
        await ring.automatic(moves_per_hour=3)
        await ring.deploy(8)
        await ring.join("b")
        await ring.live(60)
        assert len(ring.on("b")) == 3
    async with ring.running():
        ring.dirt.node("node-b")
        ring.controller.wake()
        await ring.live(600)
        assert len(ring.on("b")) == 3


async def test_at_no_moment_is_a_slot_without_a_running_task():
    ring = Home()
    async with ring.running():
        await ring.automatic(moves_per_hour=60)
        service = await ring.deploy(8)
        await ring.join("b")
        for _ in range(60):
            await ring.live(1)
            running = {
                task.slot
                for task in ring.tasks(service)
                if (status := ring.observed.status(task.id)) is not None
                and status.state is TaskState.RUNNING
            }
            assert running == set(range(1, 9))
        assert len(ring.on("b")) == 4


async def test_by_hand_is_the_default():
    ring = Home()
    async with ring.running():
        await ring.deploy(8)
        await ring.join("b")
        await ring.live(60)
        assert ring.on("b") == []
        # From then on the scheduler does it.
        await ring.automatic(moves_per_hour=60)
        await ring.live(60)
        assert len(ring.on("b")) == 4


async def test_exclusive_tasks_do_not_move_by_themselves():
    ring = Home()
    async with ring.running():
        await ring.automatic()
        await ring.add_nodes("a")
        for name in ("one", "two", "three", "four"):
            await ring.apply(spec(name, exclusive=True))
        await ring.live(60)
        await ring.join("b")
        await ring.live(60)
        assert ring.on("b") == []


async def test_a_node_that_comes_back_gets_its_share():
    ring = Home()
    async with ring.running():
        await ring.automatic(moves_per_hour=60)
        await ring.add_nodes("a", "b")
        await ring.apply(spec("web", replicas=8))
        await ring.live(30)
        ring.see("b", NodeState.DOWN)
        await ring.live(60)
        assert len(ring.on("a")) == 8
        assert ring.controller.stats.moves["silent"] == 4
        ring.see("b", NodeState.READY)
        await ring.live(120)
        assert len(ring.on("b")) == 4


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.SUSPECT])
async def test_nothing_begins_by_itself_while_a_node_is_silent(state):
    ring = Home()
    async with ring.running():
        await ring.automatic()
        await ring.deploy(8)
        await ring.put(node("c", 9))
        ring.see("c", state)
        await ring.join("b")
        await ring.live(120)
        assert ring.on("b") == []
        ring.see("c", NodeState.DOWN)
        await ring.live(60)
        assert ring.on("b") != []


async def test_nothing_begins_by_itself_while_a_service_is_rolled_out():
    ring = Home()
    async with ring.running():
        await ring.automatic()
        service = await ring.deploy(8)
        other = await ring.apply(spec("db"))
        await ring.live(30)
        await ring.put(Rollout(service=other, generation=1, state=RolloutState.UPDATING))
        (new,) = ring.tasks(other)
        ring.report(new.id, TaskState.RUNNING, health=Health.STARTING)
        await ring.join("b")
        await ring.live(60)
        assert {task.node for task in ring.tasks(service)} == {"node-a"}
        ring.report(new.id, TaskState.RUNNING, health=Health.HEALTHY)
        await ring.live(60)
        assert {task.node for task in ring.tasks(service)} == {"node-a", "node-b"}


# ---------------------------------------------------------------- told


class Answers(Api):
    """The API of a leader that sees eight tasks on one of two nodes."""

    async def start(self):
        await super().start()
        world = World()
        service = world.apply(spec("web"), replicas=8, stack="s")
        for number, name in enumerate("ab", 1):
            world.add_node(name, number)
        values = [*world.tables.nodes(), *world.tables.stacks(), *world.tables.services()]
        for value in (*values, *world.tables.specs()):
            await self.authority.commit([Put(value, ABSENT, "t")])
        for name in "ab":
            liveness = Liveness(state=NodeState.READY, reported=True)
            self.authority.observed.put_liveness(f"node-{name}", liveness)
        for slot in range(1, 9):
            task = self.task_of(service, slot)
            await self.authority.commit([Put(task, ABSENT, "t")])
            world.report(task.id, TaskState.RUNNING)
            self.authority.observed.put_status(world.observed.status(task.id))
        return self

    @staticmethod
    def task_of(service, slot):
        return Task(service=service, slot=slot, n=1, node="node-a", generation=1)

    def marked(self):
        tasks = sorted(self.authority.mirror.tables.tasks(), key=lambda each: each.slot)
        return [task for task in tasks if task.move is not None]

    async def rebalance(self, **fields):
        return await self.control.Rebalance(control_pb2.RebalanceRequest(**fields))


@pytest.fixture
async def answers(tmp_path):
    answers = await Answers(tmp_path).start()
    yield answers
    await answers.store.close()


async def test_a_plan_says_all_and_writes_nothing(answers):
    answers.store.fail_at = -1  # count commits
    answer = await answers.rebalance(validate_only=True)
    assert answers.store.commits == 0
    assert len(answer.moves) == 4
    move = answer.moves[0]
    assert (move.stack, move.service, move.from_node, move.to_node) == ("s", "web", "a", "b")
    assert (move.restarts, move.downtime_ms, move.volume_bytes) == (1, 0, 0)
    assert move.gain > 0
    assert move.reason == "node b has fewer tasks of its service"
    assert answer.unevenness_before > answer.unevenness_after
    assert any(
        "nobody here knows their size: the images example" in each for each in answer.notices
    )


async def test_what_is_told_is_marked_once_however_often_it_is_said(answers):
    first = await answers.rebalance(request_id="r")
    assert len(answers.marked()) == 4
    events = [event.reason for event in answers.authority.observed.events]
    assert events == ["Moving"] * 4
    assert await answers.rebalance(request_id="r") == first
    assert [event.reason for event in answers.authority.observed.events] == events
    assert {task.move.cause for task in answers.marked()} == {Cause.OPERATOR}
    # What is on its way counts as arrived.
    again = await answers.rebalance(request_id="r2")
    assert list(again.moves) == []
    assert len(answers.marked()) == 4


async def test_a_commit_of_unknown_fate_begins_nothing_twice(answers):
    answers.store.fail_at, answers.store.failure, answers.store.is_made = 1, Ambiguous, True
    with pytest.raises(Ambiguous):
        await answers.rebalance(request_id="r")
    answer = await answers.rebalance(request_id="r")
    assert len(answer.moves) == 4
    assert len(answers.marked()) == 4


async def test_so_many_at_most_and_of_one_stack(answers):
    assert len((await answers.rebalance(moves_max=1, validate_only=True)).moves) == 1
    with pytest.raises(NotFound):
        await answers.rebalance(stack="nowhere", validate_only=True)
    with pytest.raises(Invalid):
        await answers.rebalance(moves_max=-1)


async def test_under_the_brake_it_only_plans(answers):
    answers.authority.observed.brake = Brake(
        since=0, since_ms=0, silent=(), counted=(), cause="2 of 3 nodes fell silent"
    )
    assert len((await answers.rebalance(validate_only=True)).moves) == 4
    with pytest.raises(NotNow, match="2 of 3 nodes fell silent"):
        await answers.rebalance()
    assert answers.marked() == []


async def test_silent_nodes_are_named(answers):
    answers.authority.observed.put_liveness("node-b", Liveness(state=NodeState.DOWN))
    answer = await answers.rebalance(validate_only=True)
    assert list(answer.moves) == []
    assert list(answer.notices) == ["left out, because they are silent: b"]


async def test_the_size_of_an_image_that_was_handed_over_is_in_the_price(answers):
    image_id = f"sha256:{'a' * 64}"
    images = answers.control._images
    await images.append(image_id, 0, b"x" * 100)
    digest = hashlib.sha256(b"x" * 100).hexdigest()
    await images.finish(image_id, 100, digest)
    assert await images.sizes([image_id, "sha256:unknown", "example"]) == {image_id: 100}


async def test_what_holds_for_the_cluster_is_changed_by_what_is_said(answers):
    update = control_pb2.UpdateClusterRequest
    automatic = Rebalancing.AUTOMATIC.value
    answer = await answers.control.UpdateCluster(update(rebalancing=automatic))
    assert (answer.cluster.rebalancing, answer.cluster.moves_per_hour) == (automatic, 4)
    answer = await answers.control.UpdateCluster(update(moves_per_hour=2))
    assert (answer.cluster.rebalancing, answer.cluster.moves_per_hour) == (automatic, 2)
    for wrong in (update(rebalancing=9), update(moves_per_hour=0), update(moves_per_hour=61)):
        with pytest.raises(Invalid):
            await answers.control.UpdateCluster(wrong)
