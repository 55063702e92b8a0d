"""Whether a cluster has become what its users asked for, once all trouble is over (L1, L5).

A newcomer's mistake: comparing with what the product believes alone. The store's records, the
engines' containers and what the leader believes must all three say the same.
"""

from agent.runtime.base import Phase
from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import Health, NodeState, RolloutState, Service
from homeport.spec import Mode
from scheduler.cluster import keys
from tests.simulation.checks import is_wanted


class Converged:
    """The comparison; `checks` has the records."""

    def __init__(self, world):
        self.world = world
        self.checks = world.checks

    @property
    def records(self):
        return self.checks.records

    def differences(self, stacks):
        """What is not as it was asked for, in words. `stacks`: name -> {service: _Wanted}."""
        found = list(self._store_differences(stacks))
        leader = self.world.leading()
        if leader is None:
            return [*found, "nobody leads"]
        observed = leader.core.control.lead.authority.observed
        for machine in self.world.agents:
            node = machine.identities.node_id
            if observed.node(node).state is not NodeState.READY:
                found.append(f"{machine.name} is {observed.node(node).state.name}")
            if not observed.knows(node):
                found.append(f"{machine.name} has not reported")
            if machine.worker is not None and machine.worker.unknown_containers:
                found.append(f"unknown on {machine.name}: {machine.worker.unknown_containers}")
            for container in machine.engine.ours():
                task = self.records.get(keys.task(container.task))
                if task is None or task.node != node:
                    found.append(f"orphan on {machine.name}: {container.task}")
        for task in self.checks.tasks():
            found += self._task_differences(task, observed, stacks)
        return found

    def _store_differences(self, stacks):
        heads = self.heads()
        wanted = {(stack, name) for stack, services in stacks.items() for name in services}
        for head in heads:
            if (head.stack, head.name) not in wanted:
                yield f"service {head.id} is not wanted"
        nodes = sum(key.startswith("nodes/") for key in self.records)
        for stack, services in stacks.items():
            for name, want in services.items():
                head = next(
                    (h for h in heads if (h.stack, h.name, h.removing) == (stack, name, False)),
                    None,
                )
                if head is None:
                    yield f"service {stack}/{name} is not there"
                    continue
                live = [task for task in self.checks.tasks() if task.service == head.id]
                slots = [task.slot for task in live if is_wanted(task) or want.may_end]
                number = nodes if head.mode is Mode.GLOBAL else head.replicas
                # Before the next try, or for a service of which no task is wanted.
                after = services.get(want.after)
                waits = want.crashes or (after is not None and not after.replicas)
                waits = waits and len(slots) < number
                if len(slots) != len(set(slots)) or (len(slots) != number and not waits):
                    yield f"{stack}/{name} has slots {sorted(slots)} and wants {number}"
                rollout = self.records.get(keys.rollout(head.id))
                if rollout is not None and rollout.state is RolloutState.UPDATING:
                    yield f"{stack}/{name} is being rolled out"
                if self.is_paused(head) or want.crashes:
                    continue
                for task in live:
                    if is_wanted(task) and task.generation < head.template_generation:
                        yield f"{task.id} is of generation {task.generation}"

    def heads(self):
        """All services."""
        return [each for each in self.records.values() if isinstance(each, Service)]

    def is_paused(self, head):
        """Whether the service's rollout has stopped before its end."""
        rollout = self.records.get(keys.rollout(head.id))
        return (
            rollout is not None
            and rollout.state is RolloutState.PAUSED
            and rollout.generation == head.template_generation
        )

    def paused_stacks(self):
        """The stacks that have a service whose rollout stopped."""
        heads = self.heads()
        return {head.stack for head in heads if not head.removing and self.is_paused(head)}

    def _task_differences(self, task, observed, stacks):
        head = self.records.get(keys.service(task.service))
        want = stacks.get(head.stack, {}).get(head.name) if head is not None else None
        container = self.checks.container(task)
        status = observed.status(task.id)
        if task.desired is Desired.REMOVED:
            return [f"{task.id} is not removed"]
        if want is None:
            return []  # said before
        if not is_wanted(task) or (want.may_end and status and status.state in TERMINAL):
            is_alive = container is not None and container.phase is Phase.RUNNING
            return [f"{task.id} has ended and runs"] if is_alive else []
        if want.crashes or want.may_end:
            return []
        if container is None or container.phase is not Phase.RUNNING:
            return [f"{task.id} does not run on its node"]
        if status is None or status.state is not TaskState.RUNNING:
            return [f"{task.id} runs and is taken for {status.state.name if status else None}"]
        found = []
        if (status.container_id, status.pid) != (container.container_id, container.pid):
            found.append(f"{task.id} is taken for another container or process")
        if status.health not in (Health.NONE, Health.HEALTHY):
            found.append(f"{task.id} is not healthy")
        return found
