"""Where the copies of each slot live: what is exclusive has one at most, at any instant (S1, S10).

A newcomer's mistake: going by records. A record says what is meant; here counts which
processes live, from the moment that one starts to the moment that it is gone.
"""

from homeport.spec import MountKind
from scheduler.cluster import keys

UNDO_SECONDS = 2.0
"""As long before the lease's end an agent that is at work begins to undo a start."""
FENCED_SECONDS = 0.2
"""How long a guard takes at most to look, be its clock as slow as it may."""


class Copies:
    """All processes of ours that live, by slot."""

    def __init__(self, checks):
        self.checks = checks
        self.moves = 0
        """How often an exclusive movable slot was given to another node than before."""
        self._tasks = {}  # every task that there ever was
        self._homes = {}  # slot -> the node of its last task
        self._alive = {}  # slot -> {(machine, task): since}
        self.ended_at = {}  # (machine, task) -> when its last process was gone

    def made(self, task):
        """A task was recorded."""
        self._tasks[task.id] = task
        slot = (task.service, task.slot)
        before = self._homes.get(slot)
        self._homes[slot] = task.node
        if task.exclusive and not task.pinned and before not in (None, task.node):
            self.moves += 1
        if task.exclusive and not task.pinned:
            self._is_given_up(task)

    def _is_given_up(self, task):
        """S1: what is moved from a silent node is moved when that node's lease is over."""
        checks = self.checks
        for old in checks.tasks():
            if (old.service, old.slot) != (task.service, task.slot) or old.n >= task.n:
                continue
            if not self.may_stop_for_a_lease(old.id) or old.outcome is not None:
                continue
            node = checks.records.get(keys.node(old.node))
            machine = checks.world.machine_of(old.node)
            if node is None or node.lost_ms or machine is None:
                continue
            until = machine.board.lease_until_ns / 1e9
            if machine.clock.boottime() < until and machine.engine.has(old.id):
                left = until - machine.clock.boottime()
                checks.violate(
                    "S1: an exclusive task moves before its node's lease is over",
                    (task.id, machine.name, f"{left:.2f} s"),
                )

    def may_stop_for_a_lease(self, task_id):
        """Whether the end of its node's lease ends this task."""
        task = self._tasks.get(task_id)
        return task is not None and task.exclusive and not task.pinned

    def begin(self, machine, container, *, is_late=False):
        """A process starts."""
        task = self._tasks.get(container.task)
        if task is None:
            return
        self._is_home(task)
        alive = self._alive.setdefault((task.service, task.slot), {})
        others = [(name, other) for name, other in alive if name != machine.name]
        alive[machine.name, container.task] = now = self.checks.world.loop.now
        if not ((task.exclusive or task.pinned) and others):
            return
        if is_late and task.exclusive and not task.pinned and _was_away(machine):
            # docs/fencing.md, "What it does not do": only the guard is left to end it.
            self.checks.world.loop.later(FENCED_SECONDS, self._is_fenced, machine, container, now)
        else:
            self.checks.violate(
                "S1: an exclusive task lives twice", (machine.name, container.task, others)
            )

    def _is_fenced(self, machine, container, begun):
        """What was started late lives no longer than a guard needs to look, if there is one."""
        task = self._tasks[container.task]
        alive = self._alive.get((task.service, task.slot), {})
        since = self.checks.world.loop.now - FENCED_SECONDS
        guards = [each for each in machine.guards.all if each.has_worked_since(since)]
        if guards and alive.get((machine.name, container.task)) == begun:
            self.checks.violate("S1: a guard leaves what was started late", container.task)

    def end(self, machine, container):
        """A process is gone."""
        task = self._tasks.get(container.task)
        if task is not None:
            alive = self._alive.get((task.service, task.slot), {})
            alive.pop((machine.name, container.task), None)
            self.ended_at[machine.name, container.task] = self.checks.world.loop.now

    def _is_home(self, task):
        """S10: what has data on a node runs there and nowhere else."""
        if not task.pinned:
            return
        checks = self.checks
        head = checks.records.get(keys.service(task.service))
        spec = checks.records.get(keys.spec(task.service, task.generation))
        if head is None or spec is None:
            return
        for mount in spec.spec.container.mounts:
            if mount.kind is MountKind.VOLUME:
                made = [
                    record.node
                    for key, record in checks.records.items()
                    if key.startswith(f"volumes/{head.stack}/{mount.source}/")
                ]
                if made and task.node not in made:
                    checks.violate("S10: a task runs away from its data", (task.id, made))


def _was_away(machine):
    """Whether the agent could not undo the start before the lease ended: it was not at work then,
    or not for long enough."""
    ended = machine.clock.boottime() - machine.board.lease_until_ns / 1e9
    return not machine.has_worked_since(machine.world.loop.now - ended - UNDO_SECONDS)
