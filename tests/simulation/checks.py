"""What must hold at every commit, every start and stop of a container, and every order.

The checks see what no part of the product sees: the store's whole history, all engines, and
what agents told. Each names the promise that it holds up (`reliability.md` §1). A
newcomer's mistake: asking the product whether it did right; here only values are compared.
"""

import traceback
from dataclasses import replace

from agent.orders import Verdict
from agent.runtime.base import Phase
from homeport import codec
from homeport.lifecycle import TERMINAL, Desired, TaskState, Writer, is_legal
from homeport.model import (
    Cause,
    Node,
    RequestRecord,
    Service,
    Stack,
    StackDraft,
    Task,
    TaskStatus,
)
from homeport.v1 import dispatcher_pb2
from scheduler.cluster import keys
from scheduler.store.base import LEADER_KEY
from tests.simulation import moving
from tests.simulation.copies import Copies
from tests.simulation.pacing import Pacing

MASS_SECONDS = 9.0
"""A little less than the ten within which stops count as one."""
AGENT_STOPS_SECONDS = 13.0
"""An agent and an engine that have been well for so long have stopped a task in time: calls of
before have had their deadline by then."""


class Checks:
    """The safety promises, held up against what happens."""

    def __init__(self, world):
        self.world = world
        self.violations = []
        self.story = ()  # the trace's last lines at the first violation
        self.records = {}  # key -> value
        self.last_keys = ()  # of the last commit
        self.starts_at = []  # (time, task) of each start of a container of ours
        self._numbers = {}  # (service, slot) -> the highest n that it has had
        self._deleted = set()
        self._requests = {}  # request id -> revision
        self._expected = {}  # stack -> {service: (replicas, version)} while nobody changes it
        self._obeyed = {}  # node -> the highest order that its agent obeyed
        self._told = {}  # task -> (epoch, node's lapses, status) as some leader was last told
        self._sessions = {}  # agent -> its newest session's end, as a scheduler has read its hello
        self._nodes_changed = {}  # node -> when its record was written last
        self._unwell = set()  # (container, start) whose health check failed
        self._stops = {}  # machine -> task -> when it was stopped by a reconciler's word
        self._failed = set()  # tasks of which a container has ended by other than us
        self.copies = Copies(self)
        self.pacing = Pacing(self)

    def violate(self, what, why=""):
        """Note that a promise was broken."""
        if isinstance(why, BaseException):
            why = "".join(traceback.format_exception(why))
        self.violations.append(f"{self.world.loop.now:.3f} s: {what}: {why}")
        self.world.trace.note(f"!!!!!! {what}: {why}")
        if not self.story:
            self.story = tuple(self.world.trace.lines)

    # ------------------------------------------------------------ the store

    def committed(self, revision, changed, fence):
        """Called with each commit: (key, record or None) of all that it wrote."""
        values = {}
        for key, record in changed:
            kind = keys.kind_of(key)
            if kind is None:
                continue
            values[key] = codec.decode_record(kind, record.value) if record else None
        self.last_keys = tuple(key for key, _ in changed)
        said = " ".join(_said(key, value) for key, value in values.items() if key != LEADER_KEY)
        self.world.trace.note(f"commit {revision}: {said}")
        if any(key != LEADER_KEY for key in values) and fence is None:
            self.violate("S2: a write without a fence", sorted(values))
        if fence is not None and fence.epoch != self.world.store.epoch:
            self.violate("S2: a write of one who leads no more", (fence, self.world.store.epoch))
        old = {key: self.records.get(key) for key in values}
        for key, value in values.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        for key, value in values.items():
            if key.startswith("tasks/"):
                self._task_changed(old[key], value)
                is_new = old[key] is None and fence is not None
                if is_new and (why := moving.objection(self, value, fence.epoch)):
                    self.violate(f"S21: {value.id} moved too soon", why)
                elif is_new and (why := moving.too_early(self, value, fence.epoch)):
                    self.violate(f"L10: {value.id} does not wait", why)
                if is_new:
                    self.pacing.made(value, fence.epoch)
            elif key.startswith("nodes/"):
                self._nodes_changed[key.partition("/")[2]] = self.world.loop.now
        if any(key.startswith("tasks/") for key in values):
            self._room()
        self._requested(revision, old, values)
        self.one_leader()

    def one_leader(self):
        """S3: at most one scheduler takes itself for the proven leader."""
        if self.world.store.revoked_lately:
            return  # the store has taken a leader's key from under it, and it finds out in time
        found = self.world.proven()
        if len(found) > 1:
            self.violate("S3: two proven leaders", [machine.name for machine in found])

    def _task_changed(self, old, new):
        task = new or old
        slot = (task.service, task.slot)
        if old is None:
            if task.id in self._deleted or task.n <= self._numbers.get(slot, 0):
                self.violate("a task's name is used twice", task.id)
            self._numbers[slot] = task.n
            self.copies.made(task)
            if keys.node(task.node) not in self.records:
                self.violate("a task on a node that is not there", task)
            wanted = [
                each
                for each in self.tasks()
                if (each.service, each.slot) == slot and is_wanted(each)
            ]
            if len(wanted) > 2:
                self.violate("a slot with three live tasks", wanted)
        elif new is None:
            self._deleted.add(task.id)
            container = self.container(task)
            if container is not None and task.node not in self.world.twinned:
                self.violate("S7: a record is deleted and its container is there", task)
            if old.desired is not Desired.REMOVED:
                self.violate("a record is deleted that was not to be removed", task)
        else:
            same = ("service", "slot", "n", "node", "generation", "pinned", "exclusive")
            if any(getattr(old, name) != getattr(new, name) for name in same):
                self.violate("what never changes of a task has changed", (old, new))
            if new.desired.value < old.desired.value:
                self.violate("a task is wanted again", (old, new))
            if old.outcome is not None and new.outcome != old.outcome:
                self.violate("an outcome has changed", (old, new))
            if old.outcome is None and new.outcome is not None:
                self._ended(new)
            is_surplus = new.desired is Desired.REMOVED and new.cause is Cause.RECONCILER
            if is_surplus and is_wanted(old) and moving.is_lost_for_nothing(self, new):
                self.violate("S9: a copy that runs is ended for one that does not", new)

    def _ended(self, task):
        container = self.container(task)
        if container is not None and container.phase is Phase.RUNNING:
            self.violate("a task is recorded as ended whose container runs", task)
        if task.outcome.state not in TERMINAL:
            self.violate("an outcome that is no end", task)

    def _room(self):
        """S11: no port is given twice on a node, and no more memory and cpu than there is."""
        ports, reserved = {}, {}
        for task in self.tasks():
            if task.outcome is not None:
                continue
            spec = self.records.get(keys.spec(task.service, task.generation))
            node = self.records.get(keys.node(task.node))
            if spec is None or node is None:
                continue
            for port in spec.spec.container.ports:
                key = (task.node, port.published, port.protocol)
                if port.published and key in ports:
                    self.violate("S11: a port is given twice", (key, ports[key], task.id))
                ports[key] = task.id
            cpu, memory = reserved.get(task.node, (0, 0))
            wants = spec.spec.reservations
            cpu, memory = cpu + wants.cpu_millis, memory + wants.memory_bytes
            reserved[task.node] = (cpu, memory)
            has = node.inventory.capacity
            if cpu > has.cpu_millis or memory > has.memory_bytes:
                self.violate("S11: more is reserved than there is", (task.node, cpu, memory))

    def _requested(self, revision, old, values):
        """S6: each request once; and users' objects change by requests only."""
        made = [value for value in values.values() if isinstance(value, RequestRecord)]
        for record in made:
            if record.request_id in self._requests:
                self.violate("S6: a request was carried out twice", record.request_id)
            self._requests[record.request_id] = revision
        stacks = set()
        for key, value in values.items():
            before = old[key]
            each = value or before
            if isinstance(each, Service):
                stacks.add(each.stack)
                is_drafted = value is not None and _head(value) == _head(self._drafted(each))
                if _head(before) != _head(value) and value is not None and not (made or is_drafted):
                    self.violate("a service's head changes without a request", (before, value))
                if value is None and not before.removing:
                    self.violate("a service is deleted that was not removed", before)
            elif isinstance(each, Stack):
                stacks.add(each.name)
                is_written_out = None not in (value, before) and before == replace(
                    value, draft=before.draft
                )
                if value is not None and value != before and not (made or is_written_out):
                    self.violate("a stack changes without a request", (before, value))
        for stack in sorted(stacks):
            self._as_acknowledged(stack)

    def in_flight(self, stack):
        """A user is about to change the stack."""
        self._expected.pop(stack, None)

    def acknowledged(self, stack, expected, request_id):
        """S5: a user heard OK: from now on the store says so, until somebody changes it."""
        if request_id not in self._requests:
            self.violate("S5: a request was acknowledged and is not recorded", request_id)
        self._expected[stack] = dict(expected)
        self._as_acknowledged(stack)

    def _as_acknowledged(self, stack):
        expected = self._expected.get(stack)
        if expected is None:
            return
        heads = {
            head.id: self._drafted(head) or head
            for head in [*self.records.values(), *self._draft(stack)]
            if isinstance(head, Service) and head.stack == stack
        }
        found = {
            head.name: (head.replicas, self._version(head))
            for head in heads.values()
            if not head.removing
        }
        if found != expected:
            self.violate("S5: an acknowledged change is not there", (stack, expected, found))

    def _draft(self, name):
        """The services of a large apply that counts and is being written out."""
        stack = self.records.get(keys.stack(name))
        return [
            head
            for part in self.records.values()
            if isinstance(part, StackDraft) and stack is not None and part.stack == name
            if part.id == stack.draft
            for head in part.services
        ]

    def _drafted(self, service):
        """The service as such an apply has it; None: there is none, or it leaves it alone."""
        return next((head for head in self._draft(service.stack) if head.id == service.id), None)

    def _version(self, head):
        spec = self.records.get(keys.spec(head.id, head.generation))
        return dict(spec.spec.container.env).get("VERSION") if spec is not None else None

    def changed_lately(self, node):
        """Whether the node's record was written while a decision may have been on its way."""
        return self.world.loop.now - self.changed_at(node) < moving.ON_ITS_WAY_SECONDS

    def changed_at(self, node):
        """When the node's record was written last."""
        return self._nodes_changed.get(node, -1e9)

    def last_told(self, task_id):
        """What some leader was last told of the task; None: nothing."""
        return self._told.get(task_id, (0, 0, None))[2]

    def nodes(self):
        """The records of all nodes."""
        return [each for each in self.records.values() if isinstance(each, Node)]

    def tasks(self):
        return [each for each in self.records.values() if isinstance(each, Task)]

    def container(self, task):
        engine = self.world.engine_of(task.node)
        found = engine.find(task.id) if engine is not None else None
        return found if found is not None and found.cluster == engine.cluster else None

    # ------------------------------------------------------------ the engines

    def starts(self, machine, container, *, is_late=False):
        """A container is about to be started; `is_late`: by its engine, and nobody waits for it."""
        if self._is_foreign(machine, container, "started"):
            return
        self.starts_at.append((self.world.loop.now, container.task))
        self.world.trace.note(f"------ {machine.name} starts {container.task}")
        task = self.records.get(keys.task(container.task))
        if task is None:
            self.violate("S7: a container is started that has no record", container.task)
        elif task.node != machine.identities.node_id:
            self.violate("S12: a task is started on another node than its own", task)
        self.copies.begin(machine, container, is_late=is_late)
        self.pacing.started(container.task)
        self.one_leader()

    def ended(self, machine, container, *, is_ours):
        """A container's process is gone; `is_ours`: agent or guard ended it."""
        is_unwell = (container.container_id, container.started_at) in self._unwell
        if not is_ours or is_unwell:
            self._failed.add(container.task)
        self.copies.end(machine, container)

    def _is_innocent(self, machine, task_id):
        """Whether only its lease's end has ended the task, as its agent ought to remember."""
        started = machine.engine.started.get(task_id)
        return (
            task_id not in self._failed
            and self.copies.may_stop_for_a_lease(task_id)
            and started is not None
            and machine.lapses(started) == machine.lapses(self.world.loop.now)
        )

    def removed_by_hand(self, container):
        """Somebody has removed a container, whether it ran or not."""
        self._failed.add(container.task)

    def guarded(self, machine, container):
        """A guard is about to kill a container's processes."""
        if self._is_foreign(machine, container, "killed by a guard"):
            return
        self.world.trace.note(f"------ the guard of {machine.name} kills {container.task}")
        if not self.copies.may_stop_for_a_lease(container.task):
            self.violate("S9: a guard kills what is not exclusive and movable", container.task)
        if self._was_able_to_stop(machine, container):
            self.violate("an agent at work leaves a task to its guard", container.task)

    def _was_able_to_stop(self, machine, container):
        """Whether the agent had all that it needs to stop the container before its guard does."""
        now, engine = self.world.loop.now, machine.engine
        return (
            machine.process is not None
            and now - max(machine.started_at, machine.paused_until) > AGENT_STOPS_SECONDS
            and engine.is_well
            and now - engine.well_since > AGENT_STOPS_SECONDS
            and container.task not in engine.hanging
            and now - engine.started[container.task] > AGENT_STOPS_SECONDS
            and container.script.stop_ms < 1_000
        )

    def stops(self, machine, container):
        """An agent is about to stop or remove a container."""
        if self._is_foreign(machine, container, "stopped or removed"):
            return
        if container.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        self.world.trace.note(f"------ {machine.name} stops {container.task}")
        self._is_mass(machine, container)
        task = self.records.get(keys.task(container.task))
        if task is None:
            self.violate("S7: a container is stopped that has no record", container.task)
        elif (
            task.desired is Desired.RUNNING
            and task.outcome is None
            and (container.container_id, container.started_at) not in self._unwell
            and not self.copies.may_stop_for_a_lease(container.task)
        ):
            self.violate("S7/S9: a container is stopped without a word", task)

    def _is_mass(self, machine, container):
        """S7: by no operator's word never more than three of a node's tasks, or a quarter."""
        task = self.records.get(keys.task(container.task))
        if task is None or task.desired is not Desired.REMOVED or task.outcome is not None:
            return
        if task.cause is not Cause.RECONCILER:
            return
        now = self.world.loop.now
        running = sum(each.phase is Phase.RUNNING for each in machine.engine.ours())
        stops = self._stops.setdefault(machine.name, {})
        others = sum(
            when > now - MASS_SECONDS for each, when in stops.items() if each != container.task
        )
        stops[container.task] = now  # once, also when its health check stops it a moment before
        if others + 1 > max(3, (running + others) // 4):
            self.violate(f"S7: a mass stop on {machine.name}", others + 1)

    def unwell(self, container):
        """A container's health check fails, so its agent may stop it."""
        self._unwell.add((container.container_id, container.started_at))

    def _is_foreign(self, machine, container, what):
        if machine.engine.cluster and container.cluster == machine.engine.cluster:
            return False
        self.violate(f"S13: a foreign container is {what}", container.task)
        return True

    # ------------------------------------------------------------ orders and reports

    def obeyed(self, machine, orders, verdict):
        """S4: what an agent obeys is never lower than what it obeyed before."""
        if verdict is not Verdict.OBEY:
            return
        highest = self._obeyed.get(machine.name)
        if highest is not None and (
            orders.order.cluster != highest.cluster or orders.order.order < highest.order
        ):
            self.violate(f"S4: {machine.name} obeyed a lower order", (highest, orders.order))
        self._obeyed[machine.name] = orders.order

    def says(self, machine, message):
        """S3: leases and orders come from a scheduler that certainly leads."""
        is_lease = isinstance(message, dispatcher_pb2.HeartbeatResponse)
        if not is_lease and message.WhichOneof("body") != "assignments":
            return
        lead = machine.core.control.lead
        if lead is None or not lead.authority.is_proven:
            what = "a lease" if is_lease else "orders"
            self.violate(f"S3: {what} of {machine.name}, which may lead no more", message)

    def told(self, machine, end, message):
        """S20: what leaders are told of a task never goes backwards, over all leaders."""
        node = next((each for each in self.world.agents if each.name == end.client), None)
        if node is None or node.identities.node_id in self.world.twinned:
            return  # two machines say what each of them knows
        if message.WhichOneof("body") == "hello":
            self._sessions[node.name] = end
        # A leader that was stopped reads what is old, and is none any more; and what comes of a
        # session when there is a newer one is not taken in.
        if message.WhichOneof("body") != "report" or machine not in self.world.proven():
            return
        if self._sessions[node.name] is not end:
            return
        if message.report.sequence <= end.reports_told:
            return  # a repetition, which no leader takes in
        end.reports_told = message.report.sequence
        epoch = machine.core.control.lead.authority.epoch
        lapses = node.lapses(end.dialled)  # of who sent it, who may be dead by now
        for each in message.report.statuses:
            status = codec.from_message(TaskStatus, each)
            known = self._told.get(status.task, (epoch, lapses, None))
            told_epoch, told_lapses, before = known
            # A removal is told again, by who has forgotten how often it had started.
            was_removed = before is not None and before.state is TaskState.REMOVED
            if was_removed and status.state is TaskState.REMOVED:
                continue
            # A power cut, or a full disk before its end, may take from the agent's memory what it
            # has told. Whoever was told reminds it, so only to another leader may it say less; in
            # the end what ended stays ended.
            has_forgotten = told_lapses != lapses
            if has_forgotten and before is not None and before.state in TERMINAL:
                continue
            if has_forgotten and told_epoch != epoch:
                before = None
            if before is not None and not is_legal(
                Writer.AGENT,
                before.state,
                status.state,
                old_attempt=before.attempt,
                new_attempt=status.attempt,
            ):
                self.violate("S20: a task's state went backwards", (before, status))
            is_blamed = status.state in (TaskState.BACKOFF, TaskState.FAILED)
            if is_blamed and self._is_innocent(node, status.task):
                self.violate("S20: a task is blamed for the end of its lease", status)
            self._told[status.task] = (epoch, lapses, status)


def _said(key, value):
    match value:
        case None:
            return f"-{key}"
        case Task():
            end = f" {value.outcome.state.name}" if value.outcome else ""
            return f"{key}({value.node[:2]} @{value.generation} {value.desired.name}{end})"
        case Service():
            return f"{key}(@{value.generation} x{value.replicas} last {value.last_n})"
        case _:
            return key


def is_wanted(task):
    return task.outcome is None and task.desired is Desired.RUNNING


def _head(service):
    return (
        (service.generation, service.template_generation, service.replicas, service.removing)
        if service is not None
        else None
    )
