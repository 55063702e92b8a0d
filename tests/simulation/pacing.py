"""How many moves begin at once, and how soon after each other (S21), by what engines started.

Counted are moves as the store has them. A newcomer's mistake: taking for a breach what has
waited for something else. Decisions are on their way for some seconds; so of two nodes' moves
only such are held against their leader as could have been made whenever it wanted to.
"""

from homeport.lifecycle import TERMINAL, Desired, TaskState
from homeport.model import NodeState
from scheduler.cluster import keys
from scheduler.reconcile.moves import NODE_SECONDS, STARTING_MAX
from scheduler.reconcile.turns import AT_ONCE_MAX
from tests.simulation.moving import ON_ITS_WAY_SECONDS, SILENT

NODE_TURN_SECONDS = NODE_SECONDS - ON_ITS_WAY_SECONDS
AT_EASE_SECONDS = 20.0
"""What has been so for so long has held nothing up for as long as a turn takes."""
STARTING = STARTING_MAX
MOVING = AT_ONCE_MAX
"""As they are before any test changes them."""


class Pacing:
    """Keeps count of the moves that begin."""

    def __init__(self, checks):
        self._checks = checks
        self._turns = {}  # (epoch, node, its silence) -> when the first of its tasks moved
        self._starting = {}  # replacement of a suspected node's task -> the epoch of who made it
        self._started = set()  # tasks that have run once
        self._moving = {}  # task that is to give way to a better node -> its successor's number

    def started(self, task_id):
        """Its process has started."""
        self._started.add(task_id)

    def made(self, task, epoch):
        """A task was recorded by the leader of this epoch: what speaks against that."""
        checks = self._checks
        machine = checks.world.leader_of(epoch)
        old = self._stands_in_for(task)
        if machine is None or old is None:
            return
        liveness = machine.core.control.lead.authority.observed.node(old.node)
        node = checks.records.get(keys.node(old.node))
        if node is None or node.lost_ms:
            return  # an operator's word is waited for by nobody
        if liveness.state in SILENT:
            self._takes_turns(task, old, machine, epoch, liveness.last_seen)
        if liveness.state is NodeState.SUSPECT:
            self._starting[task.id] = epoch
            if len(found := self._are_starting(epoch)) > STARTING:
                checks.violate("S21: too many replacements start at once", found)
        if liveness.state is NodeState.READY and old.move is not None and old.move.n == task.n:
            self._moving[old.id] = task.n
            if len(found := self._are_moving()) > MOVING:
                checks.violate("S21: too many moves to better nodes are under way", found)

    def _stands_in_for(self, task):
        found = [
            each
            for each in self._checks.tasks()
            if (each.service, each.slot) == (task.service, task.slot)
            and each.n < task.n
            and each.outcome is None
            and each.desired is Desired.RUNNING
        ]
        return max(found, key=lambda each: each.n, default=None)

    # ------------------------------------------------------------ one lost node after the other

    def _takes_turns(self, task, old, machine, epoch, last_seen):
        key = (epoch, old.node, last_seen)
        if key in self._turns or not self._is_at_ease(task, machine):
            self._turns.setdefault(key, None)
            return
        now = self._checks.world.loop.now
        self._turns[key] = now
        for (other_epoch, node, _), when in self._turns.items():
            is_other = other_epoch == epoch and node != old.node and when is not None
            if is_other and now - when < NODE_TURN_SECONDS:
                self._checks.violate(
                    "S21: two lost nodes' tasks begin to move at once",
                    (task.id, old.node, node, f"{now - when:.2f} s"),
                )

    def _is_at_ease(self, task, machine):
        """Whether the leader could have moved it at any time lately, and have that written."""
        checks = self._checks
        now, own_now = checks.world.loop.now, machine.clock.boottime()
        to = machine.core.control.lead.authority.observed.node(task.node)
        spec = checks.records.get(keys.spec(task.service, task.generation))
        if spec is None or checks.changed_at(task.node) > now - AT_EASE_SECONDS:
            return False
        container = spec.spec.container
        return (
            not (container.ports or container.mounts or spec.spec.reservations.memory_bytes)
            and to.state is NodeState.READY
            and own_now - to.since > AT_EASE_SECONDS
            and now - machine.store.refused_at > AT_EASE_SECONDS
        )

    # ------------------------------------------------------------ a few at a time

    def _are_starting(self, epoch):
        return sorted(
            task_id
            for task_id, made_by in self._starting.items()
            if made_by == epoch and self._is_starting(task_id)
        )

    def _is_starting(self, task_id):
        task = self._checks.records.get(keys.task(task_id))
        if task is None or task.outcome is not None or task_id in self._started:
            return False
        status = self._checks.last_told(task_id)
        return status is None or not (status.state in TERMINAL or status.state is TaskState.BACKOFF)

    def _are_moving(self):
        for task_id, n in list(self._moving.items()):
            task = self._checks.records.get(keys.task(task_id))
            is_over = task is None or task.outcome is not None or task.move is None
            # Or it stays, and is marked for another move by now.
            if is_over or task.desired is not Desired.RUNNING or task.move.n != n:
                del self._moving[task_id]
        return sorted(self._moving)
