"""A cluster of values, with everything that can happen to it drawn by Hypothesis.

No event loop, no store: the reconcilers and placement decide, agents are dictionaries that
hold what really runs. After every step what must never be is checked; in the end the
trouble stops and what was wanted must be there (S7, S10, S11, S20; L1).
"""

from dataclasses import replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import (
    Availability,
    Health,
    NodeState,
    RolloutState,
    TaskStatus,
)
from homeport.spec import HealthCheck, Mode, RestartPolicy, VolumeSpec, pairs
from scheduler.cluster.changes import Put
from scheduler.placement.fleet import Fleet, requirements_of
from tests.builders import GIB, World, spec, volume_mount

S = TaskState
NODES = ("a", "b", "c")
SHARED = VolumeSpec(name="share", driver_opts=pairs({"type": "nfs"}))

SPECS = {
    "plain": spec("plain", replicas=2),
    "port": spec("port", replicas=2, ports=(80,)),
    "heavy": spec("heavy", replicas=2, memory=5 * GIB),
    "data": spec("data", mounts=(volume_mount("data"),)),
    "twin": spec("twin", mounts=(volume_mount("data"),)),
    "share": spec("share", mounts=(volume_mount("share"),)),
    "each": spec("each", mode=Mode.GLOBAL),
    "brittle": spec("brittle", restart=RestartPolicy(max_attempts=2)),
    "checked": replace(
        spec("checked", replicas=2),
        container=replace(
            spec("checked").container, health_check=HealthCheck(test=("CMD", "true"))
        ),
    ),
    "job": spec("job", mode=Mode.REPLICATED_JOB, replicas=3, max_concurrent=1),
}
NEXT = {
    S.PREPARING: (S.STARTING, S.REJECTED),
    S.STARTING: (S.RUNNING, S.REJECTED),
    S.RUNNING: (S.BACKOFF,),
    S.BACKOFF: (S.RUNNING, S.FAILED),
}


class Cluster(RuleBasedStateMachine):
    """Three nodes, a few services, one scheduler that may be replaced."""

    @initialize()
    def begin(self):
        self.world = World()
        self.nodes = [
            self.world.add_node(name, number) for number, name in enumerate(NODES, start=1)
        ]
        self.truth = {node: {} for node in self.nodes}  # task -> status
        self.cut = set()
        self.homes = {}  # volume -> the node where a task with it ever ran
        self.services = {}
        self.outcomes = {}

    # ------------------------------------------------------------ users

    @rule(name=st.sampled_from(sorted(SPECS)))
    def apply(self, name):
        self.services[name] = self.world.apply(SPECS[name], volumes=(SHARED,))

    @precondition(lambda self: self.services)
    @rule(data=st.data(), replicas=st.integers(0, 3))
    def scale(self, data, replicas):
        name = data.draw(st.sampled_from(sorted(self.services)))
        if name in ("plain", "port", "heavy", "job", "checked"):
            self.world.scale(self.services[name], replicas)

    @precondition(lambda self: self.services)
    @rule(data=st.data())
    def remove(self, data):
        name = data.draw(st.sampled_from(sorted(self.services)))
        self.world.remove(self.services.pop(name))

    @rule(node=st.sampled_from(NODES), wish=st.sampled_from(Availability))
    def availability(self, node, wish):
        self.world.set_availability(f"node-{node}", wish)

    # ------------------------------------------------------------ nodes

    @rule(node=st.sampled_from(NODES))
    def cut_off(self, node):
        node = f"node-{node}"
        self.cut.add(node)
        # The lease ends: exclusive movable tasks stop before the node is judged DOWN.
        for task_id in list(self.truth[node]):
            task = self.world.tables.task(task_id)
            if task is not None and task.exclusive and not task.pinned:
                self._set(node, task_id, state=S.SHUTDOWN)
        self.world.set_state(node, NodeState.DOWN)

    @rule(node=st.sampled_from(NODES))
    def come_back(self, node):
        node = f"node-{node}"
        self.cut.discard(node)
        self.world.set_state(node, NodeState.READY)
        self._report_all(node)

    @rule()
    def new_leader(self):
        observed = self.world.observed
        observed.statuses.clear()
        observed.running.clear()
        observed.proven.clear()
        observed.waiting.clear()
        for node in self.nodes:
            self.world.set_state(node, NodeState.UNKNOWN, reported=False)
        for node in self.nodes:
            if node not in self.cut:
                self.world.set_state(node, NodeState.READY, reported=False)

    @rule(node=st.sampled_from(NODES))
    def report(self, node):
        node = f"node-{node}"
        if node not in self.cut:
            self.world.set_state(node, NodeState.READY)
            self._report_all(node)

    @rule(node=st.sampled_from(NODES), data=st.data())
    def agent_works(self, node, data):
        node = f"node-{node}"
        orders = [task for task in self.world.tables.tasks_of_node(node) if node not in self.cut]
        for task in orders:
            self._obey(node, task)
        going = sorted(task for task, status in self.truth[node].items() if status.state in NEXT)
        if going:
            task = data.draw(st.sampled_from(going))
            status = self.truth[node][task]
            state = data.draw(st.sampled_from(NEXT[status.state]))
            again = status.state is S.BACKOFF and state is S.RUNNING
            self._set(
                node,
                task,
                state=state,
                attempt=status.attempt + again,
                health=data.draw(st.sampled_from(list(Health)))
                if state is S.RUNNING and "checked" in task
                else Health.NONE,
                node_is_cause=state is S.FAILED and "brittle" not in task,
            )
        if node not in self.cut:
            self._report_all(node)

    # ------------------------------------------------------------ scheduler

    @rule(looks=st.integers(1, 3))
    def look(self, looks):
        for _ in range(looks):
            self._commit(self.world.decide()[0])

    @rule(data=st.data())
    def look_and_crash(self, data):
        """Any part of what was decided is written, in any order."""
        changes, placed = self.world.decide()
        if changes:
            changes = data.draw(st.permutations(changes))
            changes = changes[: data.draw(st.integers(0, len(changes)))]
        self._commit(changes)
        self.world.undo(placed)

    @rule()
    def decisions_are_repeatable(self):
        """The same cluster, built in another order, gets the same decisions."""
        other = World()
        other.observed, other.now, other.now_ms = (
            self.world.observed,
            self.world.now,
            self.world.now_ms,
        )
        waiting = dict(self.world.observed.waiting)
        for key in sorted(self.world.tables.stored_keys(), reverse=True):
            other.tables.put(self.world.tables.value(key), self.world.tables.version(key))
        other.fleet = Fleet.from_snapshot(other.snapshot())
        first, placed = self.world.decide()
        self.world.undo(placed)
        second, _ = other.decide()
        self.world.observed.waiting = waiting
        assert first == second

    @rule(seconds=st.sampled_from((1, 6, 30, 301)))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    # ------------------------------------------------------------ what must never be

    @invariant()
    def slots_hold_an_old_task_and_one_successor_at_most(self):
        for service in self.world.tables.services():
            slots = {}
            for task in self.world.live(service.id):
                slots.setdefault(task.slot, []).append(task)
            for tasks in slots.values():
                assert len(tasks) <= 2, tasks
                if len(tasks) == 2:
                    assert not any(task.pinned for task in tasks), tasks

    @invariant()
    def nodes_are_not_overcommitted(self):
        for node in self.nodes:
            needs = [
                requirements_of(self.world.tables, task.service, task.generation)
                for task in self.world.tables.tasks_of_node(node)
                if task.outcome is None
            ]
            assert sum(each.memory_bytes for each in needs) <= 8 * GIB
            ports = [port for each in needs for port in each.ports]
            assert len(ports) == len(set(ports)), ports

    @invariant()
    def exclusive_tasks_run_once(self):
        running = {}
        for node, tasks in self.truth.items():
            for task_id, status in tasks.items():
                if "-share-" in task_id and status.state in (S.STARTING, S.RUNNING, S.BACKOFF):
                    running.setdefault(task_id.rsplit("/", 1)[0], set()).add(node)
        assert all(len(nodes) == 1 for nodes in running.values()), running

    @invariant()
    def the_fleet_is_what_it_would_be_if_built_anew(self):
        assert self.world.fleet == Fleet.from_snapshot(self.world.snapshot())

    def teardown(self):
        if not hasattr(self, "world"):
            return
        world = self.world
        self.cut.clear()
        for node in self.nodes:
            world.set_availability(node, Availability.ACTIVE)
            world.set_state(node, NodeState.READY)
        for _ in range(60):
            for node in self.nodes:
                for task in world.tables.tasks_of_node(node):
                    self._obey(node, task)
                for task, status in self.truth[node].items():
                    if status.state in NEXT:
                        self._set(
                            node,
                            task,
                            state=S.COMPLETE
                            if "-job-" in task and status.state is S.RUNNING
                            else S.RUNNING,
                            attempt=status.attempt + (status.state is S.BACKOFF),
                            health=Health.HEALTHY if "checked" in task else Health.NONE,
                        )
                self._report_all(node)
            for _ in range(50):
                changes = world.decide()[0]
                if not changes:
                    break
                self._commit(changes)
            else:
                pytest.fail(f"the deciders do not settle: {changes}")
            world.pass_time(20)
        self._is_as_desired()

    def _is_as_desired(self):
        world = self.world
        services = {service.id for service in world.tables.services()}
        assert services == set(self.services.values())
        for name, service_id in self.services.items():
            service = world.tables.service(service_id)
            tasks = world.tables.tasks_of_service(service_id)
            waiting = world.observed.waiting.get(service_id, {})
            paused = (rollout := world.tables.rollout(service_id)) is not None and (
                rollout.state is RolloutState.PAUSED
            )
            slots = {task.slot for task in tasks}
            assert len(tasks) == len(slots), "one record is left in each slot"
            if service.mode.is_global:
                assert slots == {1, 2, 3}
            else:
                assert slots | set(waiting) == set(range(1, service.replicas + 1))
            for task in tasks:
                assert task.desired is Desired.RUNNING or task.slot in waiting, task
                if name == "job":
                    assert task.outcome.state is S.COMPLETE
                elif task.outcome is None:
                    assert self.truth[task.node][task.id].state is S.RUNNING
                    assert paused or task.generation >= service.template_generation
                else:
                    assert name == "brittle" or task.slot in waiting, (task, waiting)
            for each in waiting.values():
                assert each.refusals, f"only a node without room is a reason now: {each}"
        for node, tasks in self.truth.items():
            for task_id, status in tasks.items():
                if world.tables.task(task_id) is None:
                    assert status.state is S.REMOVED, f"{task_id} runs on {node}, unknown to us"

    # ------------------------------------------------------------ inside

    def _set(self, node, task_id, **fields):
        status = replace(self.truth[node][task_id], **fields)
        self.truth[node][task_id] = status
        task = self.world.tables.task(task_id)
        if status.state in (S.STARTING, S.RUNNING) and task is not None:
            for volume in requirements_of(self.world.tables, task.service, task.generation).volumes:
                home = self.homes.setdefault(volume, node)
                assert home == node, f"{task_id} starts on {node}, its data is on {home}"

    def _obey(self, node, task):
        known = self.truth[node].get(task.id)
        if known is not None and known.state is S.REMOVED:
            return
        if task.desired is Desired.REMOVED:
            self.truth[node][task.id] = replace(known or TaskStatus(task=task.id), state=S.REMOVED)
        elif known is None:
            state = S.PREPARING if task.desired is Desired.RUNNING else S.SHUTDOWN
            self.truth[node][task.id] = TaskStatus(task=task.id, state=state)
        elif task.desired is Desired.SHUTDOWN and known.state not in TERMINAL:
            self.truth[node][task.id] = replace(known, state=S.SHUTDOWN)

    def _report_all(self, node):
        for task_id, status in self.truth[node].items():
            if self.world.tables.task(task_id) is not None:
                self.world.observed.put_status(status)

    def _commit(self, changes):
        for change in changes:
            if isinstance(change, Put) and change.key.startswith("tasks/"):
                old = self.world.tables.task(change.value.id)
                if old is not None:
                    assert old.outcome in (None, change.value.outcome), "an outcome is final"
                    assert old.node == change.value.node, "a task stays on its node"
                    assert change.value.desired.value >= old.desired.value, "no way back"
        self.world.commit(changes)


Cluster.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
TestCluster = Cluster.TestCase
