"""Values for tests, every field defaulted, and a cluster made of values to try deciders on.

A `World` is what the scheduler would see and write, without a store, a clock or an event
loop: tables, what is observed, and agents that are dictionaries. `look` is one cycle of
the controller's loop over everything.
"""

from dataclasses import replace

from homeport.lifecycle import TERMINAL, Desired, TaskState, Writer, is_legal
from homeport.model import (
    Availability,
    Health,
    Inventory,
    Node,
    NodeId,
    NodeState,
    Service,
    ServiceGeneration,
    ServiceId,
    Stack,
    Task,
    TaskStatus,
)
from homeport.spec import (
    ContainerSpec,
    Mode,
    Mount,
    MountKind,
    Port,
    Resources,
    ServiceSpec,
    VolumeSpec,
    pairs,
)
from scheduler.cluster import keys
from scheduler.cluster.changes import Delete, Put
from scheduler.cluster.observed import Liveness, Observed
from scheduler.cluster.snapshot import Snapshot
from scheduler.cluster.tables import Tables
from scheduler.placement import engine
from scheduler.placement.fleet import Fleet
from scheduler.placement.following import follow
from scheduler.reconcile import reaper, scheduling, services as reconcile
from scheduler.reconcile.nominations import Nominations
from scheduler.reconcile.turns import Turns

GIB = 1 << 30


def node(name, number=0, *, cpu=4000, memory=8 * GIB, labels=(), engine_labels=(), **fields):
    """A node called `name` whose id is `node-<name>`."""
    inventory = fields.pop("inventory", None) or Inventory(
        hostname=name,
        os="linux",
        architecture="x86_64",
        capacity=Resources(cpu_millis=cpu, memory_bytes=memory),
        drivers=("DOCKER", "SIMULATED"),
        engine_labels=pairs(engine_labels),
    )
    return Node(
        id=NodeId(f"node-{name}"),
        name=name,
        number=number,
        labels=pairs(labels),
        inventory=inventory,
        **fields,
    )


def volume_mount(name, target="/data"):
    """A named volume of the stack."""
    return Mount(kind=MountKind.VOLUME, source=name, target=target)


def spec(name, *, cpu=0, memory=0, ports=(), mounts=(), container=None, **fields):
    """A spec with what placement looks at; `ports` are published ones."""
    container = container or ContainerSpec(
        image="example",
        ports=tuple(Port(target=port, published=port) for port in ports),
        mounts=tuple(mounts),
    )
    return ServiceSpec(
        name=name,
        container=container,
        reservations=Resources(cpu_millis=cpu, memory_bytes=memory),
        **fields,
    )


class World:
    """A cluster as values."""

    def __init__(self):
        self.tables = Tables()
        self.observed = Observed()
        self.now = 1000.0
        self.now_ms = 1_000_000
        self.revision = 0
        self.fleet = Fleet()
        self.task_ids = set()
        self.room = scheduling.WaitingRoom()
        self.turns = Turns(self.observed, began=0.0)
        self.nominations = Nominations()
        self.log = []

    # ------------------------------------------------------------ what users and nodes do

    def put(self, value):
        """Store a value, whatever was there."""
        self.revision += 1
        key = keys.key_of(value)
        old = self.tables.put(value, self.revision)
        follow(self.fleet, self.snapshot(), key, old, value)
        if isinstance(value, Task):
            self.turns.changed(value.id, value)

    def drop(self, key):
        """Delete a record."""
        self.revision += 1
        old = self.tables.drop(key)
        follow(self.fleet, self.snapshot(), key, old, None)
        if isinstance(old, Task):
            self.turns.changed(old.id, None)

    def add_node(self, name, number=0, *, state=NodeState.READY, **fields):
        """A node that is connected and has reported."""
        value = node(name, number, **fields)
        self.put(value)
        self.set_state(value.id, state)
        return value.id

    def set_state(self, node_id, state, *, reported=True):
        """What dispatch thinks of a node."""
        self.observed.put_liveness(
            node_id, Liveness(state=state, reported=reported, since=self.now, last_seen=self.now)
        )
        record = self.tables.node(node_id)
        if record is not None:
            self.fleet.node_changed(record, ready=state is NodeState.READY)

    def set_availability(self, node_id, availability: Availability):
        """The operator's wish."""
        self.put(replace(self.tables.node(node_id), availability=availability))

    def apply(self, spec, *, replicas=None, stack="shop", volumes=(), same_template=False):
        """Deploy a service or its next generation; returns its id."""
        known = self.tables.stack(stack) or Stack(name=stack)
        names = {each.name: each for each in known.volumes}
        names |= {each.name: each for each in volumes}
        for mount in spec.container.mounts:
            if mount.kind is MountKind.VOLUME:
                names.setdefault(mount.source, VolumeSpec(name=mount.source))
        self.put(replace(known, volumes=tuple(names[each] for each in sorted(names))))
        old = self.tables.service_named(stack, spec.name)
        if old is not None and old.removing:
            old = None
        service_id = old.id if old else ServiceId(f"{stack}-{spec.name}-{self.revision:x}")
        generation = old.generation + 1 if old else 1
        replicas = spec.replicas if replicas is None else replicas
        self.put(ServiceGeneration(service=service_id, generation=generation, spec=spec))
        self.put(
            replace(
                old or Service(id=service_id, stack=stack, name=spec.name, created_ms=self.now_ms),
                generation=generation,
                template_generation=old.template_generation
                if old and same_template
                else generation,
                mode=spec.mode,
                replicas=replicas,
            )
        )
        return service_id

    def scale(self, service_id, replicas):
        """Change the number of replicas alone."""
        self.put(replace(self.tables.service(service_id), replicas=replicas))

    def remove(self, service_id):
        """The user removes a service."""
        self.put(replace(self.tables.service(service_id), removing=True))

    def report(self, task, state, *, attempt=1, **fields):
        """The task's agent reports."""
        status = TaskStatus(task=task, state=state, attempt=attempt, **fields)
        old = self.observed.status(task)
        if old is not None:
            assert is_legal(
                Writer.AGENT,
                old.state,
                state,
                old_attempt=old.attempt,
                new_attempt=attempt,
            ), f"the test lets an agent go from {old} to {status}"
        self.observed.put_status(status)

    def run_all(self):
        """Every agent does at once what it is told, and all goes well."""
        for task in sorted(self.tables.tasks(), key=lambda task: task.id):
            if self.observed.node(task.node).state is not NodeState.READY:
                continue
            status = self.observed.status(task.id)
            if status is not None and status.state is TaskState.REMOVED:
                continue
            over = status is not None and status.state in TERMINAL
            if task.desired is Desired.REMOVED:
                self.report(task.id, TaskState.REMOVED, attempt=status.attempt if status else 1)
            elif over:
                continue
            elif task.desired is Desired.SHUTDOWN:
                self.report(task.id, TaskState.SHUTDOWN, attempt=status.attempt if status else 1)
            elif status is None or status.state is not TaskState.RUNNING:
                attempt = status.attempt if status else 1
                if status is not None and status.state is TaskState.BACKOFF:
                    attempt += 1
                self.report(task.id, TaskState.RUNNING, attempt=attempt, health=Health.NONE)

    def pass_time(self, seconds):
        """Both clocks go on."""
        self.now += seconds
        self.now_ms += int(seconds * 1000)

    # ------------------------------------------------------------ what the scheduler does

    def snapshot(self):
        """What deciders see."""
        return Snapshot(self.tables, self.observed, self.now, self.now_ms)

    def decide(self, services=None):
        """What one look at these services (default: all) proposes, and what it placed."""
        snapshot = self.snapshot()
        self.turns.begin(snapshot, self.fleet, 15.0)
        changes, vacancies = {}, []
        looked = services or sorted(each.id for each in self.tables.services())
        for service_id in looked:
            decision = reconcile.decide(snapshot, self.fleet, service_id)
            for change in decision.changes:
                changes.setdefault(change.key, change)
            vacancies += decision.vacancies
            self.observed.put_proofs(decision.running, decision.proven, self.now)
        standing = self.nominations.standing(looked, vacancies)
        result = scheduling.decide(snapshot, self.fleet, vacancies, standing)
        self.nominations.replace(looked, result.nominated)
        for proposed in result.changes.values():
            for change in proposed:
                changes.setdefault(change.key, change)
        if services is None:
            for stack in self.tables.stacks():
                for change in reaper.stack(snapshot, stack.name):
                    changes.setdefault(change.key, change)
        for service_id in services or [each.id for each in self.tables.services()]:
            self.observed.put_waiting(service_id, result.waiting.get(service_id, {}))
        return list(changes.values()), result.placed

    def commit(self, changes):
        """Make changes, refusing what the store would refuse."""
        for change in changes:
            assert self.tables.version(change.key) == change.expect, f"conflict: {change}"
            self.log.append(change)
            if isinstance(change, Put):
                if change.expect == 0 and change.key.startswith("tasks/"):
                    assert change.key not in self.task_ids, f"{change.key} is used twice"
                    self.task_ids.add(change.key)
                self.put(change.value)
            elif isinstance(change, Delete):
                self.drop(change.key)
                if change.key.startswith("tasks/"):
                    self.observed.forget(change.key.removeprefix("tasks/"))

    def look(self, services=None):
        """One cycle; returns the changes that it made."""
        changes, _ = self.decide(services)
        self.commit(changes)
        return changes

    def undo(self, placed):
        """The store refused these placements."""
        for each in placed:
            if self.tables.task(each.ask.task) is None:
                engine.undo(self.fleet, each)

    def rest(self, looks=50):
        """Look until nothing is proposed any more. Fails if that does not come."""
        for _ in range(looks):
            if not self.look():
                return
        raise AssertionError(f"the deciders do not settle: {self.log[-8:]}")

    def settle(self, seconds=400.0, step=20.0):
        """Let the agents and the scheduler work for a while."""
        for _ in range(int(seconds / step)):
            self.rest()
            self.run_all()
            self.rest()
            self.pass_time(step)

    # ------------------------------------------------------------ questions

    def live(self, service_id, slot=None):
        """Tasks without an outcome that are meant to run."""
        return [
            task
            for task in self.tables.tasks_of_service(service_id)
            if task.outcome is None
            and task.desired is Desired.RUNNING
            and (slot is None or task.slot == slot)
        ]

    def nodes_of(self, service_id):
        """The names of the nodes of the live tasks, by slot."""
        return [self.tables.node(task.node).name for task in self.live(service_id)]


def world_of(*names, **fields):
    """A cluster of nodes with these names, numbered from 1 and ready."""
    world = World()
    for number, name in enumerate(names, start=1):
        world.add_node(name, number, **fields)
    return world


def simple_global(name, **fields):
    """A global service's spec."""
    return spec(name, mode=Mode.GLOBAL, **fields)
