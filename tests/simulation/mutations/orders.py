"""Orders: which are obeyed, what they may stop, and when they are acted on."""

from dataclasses import replace

from agent import orders as rules
from agent.keylog import KeyLog
from agent.orders import Verdict
from agent.session import Sessions
from agent.worker import Worker
from homeport.model import Cause, Tombstone
from scheduler.dispatch import assignments
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.reconcile.pace import Pace
from tests.simulation.mutations.table import mutation


@mutation(
    "orders are compared by cluster, incarnation, epoch and revision",
    "messages come twice",
    "kill an agent",
    "kill the leader",
    templates=("web", "job", "each"),
    mean_seconds=5.0,
)
def _obeys_lower_orders(patch):
    def judge(orders, *, seen, floor):
        if orders.is_complete or orders.applies_to == seen:
            return Verdict.OBEY
        return Verdict.REPEAT if orders.order == seen else Verdict.GAP

    patch.setattr(rules, "judge", judge)
    patch.setattr(Sessions, "_floor", lambda self, order: None)
    refusal = Dispatcher._refusal

    def refusing(self, hello):
        why = refusal(self, hello)
        return None if why is not None and "behind" in why else why

    patch.setattr(Dispatcher, "_refusal", refusing)


@mutation("absence is no command", "kill the leader")
def _takes_absence_for_a_stop(patch):
    obey = Worker.obey
    plan = assignments.plan

    async def obeying(self, orders):
        if orders.is_complete:
            told = {each.task for each in (*orders.tasks, *orders.tombstones)}
            left = [task for task in self._journal.wanted if task not in told]
            graves = tuple(Tombstone(task=task, cause=Cause.OPERATOR) for task in left)
            orders = replace(orders, tombstones=(*orders.tombstones, *graves))
        return await obey(self, orders)

    def forgetful(told, view, node_tasks, *args, **kwargs):
        return plan(told, view, list(node_tasks)[1:], *args, **kwargs)

    patch.setattr(Worker, "obey", obeying)
    patch.setattr(assignments, "plan", forgetful)


@mutation(
    "a mass stop is paced by the scheduler and held by the agent",
    "cut a node off",
    "pause an agent",
    templates=("many",),
    users="calm",
    seconds=90.0,
)
def _stops_masses(patch):
    patch.setattr(Pace, "postpone", lambda self, snapshot, changes, preempted: (changes, [], 0.0))
    patch.setattr(rules, "held", lambda stops, running, *, stopped_lately: frozenset())


@mutation(
    "orders are synced to the disk before they are acted on",
    "the power of a node blinks",
    templates=("web",),
    users="fickle",
    mean_seconds=5.0,
)
def _acts_before_it_syncs(patch):
    async def commit(self, changes):
        await self._write(dict(changes), sync=False)

    patch.setattr(KeyLog, "commit", commit)
