"""Leases of nodes, the moves of what needs them, and machines that are not what they seem."""

from dataclasses import replace

from agent import guard, holds, lease as agents_leases, runner, steps
from agent.heartbeat import HeartbeatLane
from agent.lease import Lease
from homeport.model import NodeState
from scheduler.api import losing
from scheduler.dispatch import clocks, leases, liveness
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.placement import filters
from scheduler.reconcile import nodes, outcomes, revoking
from tests.simulation.mutations.table import mutation

HOLDERS = {"templates": ("only", "share"), "users": "calm"}
LATE = "an engine starts an exclusive task late, when it runs elsewhere"


@mutation(
    "a node's lease counts from the sending of its heartbeat",
    "an agent sleeps between a heartbeat and its answer",
    **HOLDERS,
)
def _counts_leases_from_the_answer(patch):
    take = HeartbeatLane._take

    def taking(self, answer):
        late = type(answer)()
        late.CopyFrom(answer)
        late.echoed_boottime_ns = int(self._clock.boottime() * 1e9)
        take(self, late)

    patch.setattr(HeartbeatLane, "_take", taking)


# Of these four each two lines of defence that are left are enough for all that is simulated.


def _grants_unbriefed(patch):
    patch.setattr(leases, "knows_its_orders", lambda session: True)


def _withholds_nothing(patch):
    patch.setattr(revoking, "withheld", lambda observed, superseded, node, ended: "")


def _begins_without_a_word(patch):
    patch.setattr(agents_leases, "begins_anew", lambda told_seconds, until_seconds: True)


AWAY = {
    **HOLDERS,
    "seconds": 75.0,
    "mean_seconds": 8.0,
}
SLEEPS = "the holder of a task sleeps for longer than its lease"
IS_AWAY = "the holder of a task is away for longer than its lease"


@mutation(
    "a node gets its lease when its agent knows its orders",
    SLEEPS,
    IS_AWAY,
    **AWAY,
    covered_by=(_withholds_nothing, _begins_without_a_word),
)
def _grants_before_orders_are_known(patch):
    _grants_unbriefed(patch)


@mutation(
    "the lease is withheld until the old holder has given the task up",
    SLEEPS,
    IS_AWAY,
    **AWAY,
    covered_by=(_grants_unbriefed, _begins_without_a_word),
)
def _renews_after_a_move(patch):
    _withholds_nothing(patch)


@mutation(
    "a lease that has ended begins anew only with a scheduler's word",
    SLEEPS,
    IS_AWAY,
    **AWAY,
    covered_by=(_grants_unbriefed, _withholds_nothing),
)
def _begins_leases_anew(patch):
    _begins_without_a_word(patch)


@mutation(
    "a lease that has ended is not renewed",
    SLEEPS,
    IS_AWAY,
    **AWAY,
    covered_by=(_grants_unbriefed, _withholds_nothing),
)
def _renews_what_has_ended(patch):
    patch.setattr(agents_leases, "goes_on", lambda sent_seconds, until_seconds: True)


@mutation("an agent stops what needs a lease before that ends", "cut a node off", **HOLDERS)
def _agent_ignores_the_end_of_its_lease(patch):
    patch.setattr(Lease, "stop_begins", lambda self, grace_seconds: 1e18)


@mutation(
    "a guard kills what needs a lease when that is over",
    "the holder of a task sleeps for longer than its lease",
    **HOLDERS,
)
def _guards_do_nothing(patch):
    patch.setattr(guard, "is_due", lambda now_ns, lease_until_ns, marks: False)
    patch.setattr(guard, "pause_ns", lambda now_ns, lease_until_ns, marks: guard.LOOK_NS)


@mutation(
    "the lease is withheld from before a move is written",
    "a node returns while its tasks move",
    **HOLDERS,
    seconds=90.0,
)
def _renews_while_a_move_is_written(patch):
    patch.setattr(revoking, "begin", lambda view, observed, changes: None)


@mutation(
    "an exclusive task moves only when its node is DOWN",
    "cut a node off",
    "pause an agent",
    **HOLDERS,
)
def _moves_exclusive_tasks_of_suspects(patch):
    silent = (NodeState.SUSPECT, NodeState.DOWN)
    patch.setattr(nodes, "lease_is_over", lambda state: state in silent)


@mutation("a silent node is DOWN only when its lease is over", "cut a node off", **HOLDERS)
def _takes_silent_nodes_for_down_at_once(patch):
    patch.setattr(liveness, "down_after", lambda old, timers: timers.suspect_seconds + 1.0)


@mutation(
    "the lease is looked at again before each call that starts a task",
    "an agent sleeps while it makes a task anew",
    templates=("made",),
    users="calm",
)
def _looks_at_the_lease_once(patch):
    bring_up, wish = runner.Runner._bring_up, runner.Runner._wish

    async def bringing_up(self):
        self.may_anyway = True
        try:
            await bring_up(self)
        finally:
            self.may_anyway = False

    def wishing(self):
        found = wish(self)
        if not getattr(self, "may_anyway", False):
            return found
        return replace(found, may_start=True, waits_for="", may_run=True)

    patch.setattr(runner.Runner, "_bring_up", bringing_up)
    patch.setattr(runner.Runner, "_wish", wishing)


@mutation(
    "a container whose start was not answered goes, where its task needs the lease",
    LATE,
    **HOLDERS,
    seconds=80.0,
)
def _starts_again_what_may_still_start(patch):
    patch.setattr(steps, "_is_made_anew", lambda wish, seen: False)


@mutation(
    "a start is waited for no longer than the lease lasts",
    "an engine is asked for a start at the end of a lease, and is late",
    **HOLDERS,
    seconds=80.0,
)
def _waits_for_starts_beyond_the_lease(patch):
    async def while_leased(self, start):
        return await start

    patch.setattr(runner.Runner, "_while_leased", while_leased)


@mutation(
    "a start that was not answered may still take place until its container is gone",
    LATE,
    **HOLDERS,
    seconds=80.0,
)
def _takes_an_unanswered_start_for_none(patch):
    patch.setattr(steps, "may_still_start", lambda seen, record: False)


@mutation(
    "what the lease's end or the guard ended is no failure of the task",
    "cut a node off",
    "the holder of a task sleeps for longer than its lease",
    **HOLDERS,
)
def _blames_tasks_for_the_end_of_leases(patch):
    patch.setattr(steps, "is_leases_doing", lambda wish, seen, record: False)


@mutation(
    "a guard knows the processes of a task without the engine",
    SLEEPS,
    **HOLDERS,
)
def _guards_know_no_processes(patch):
    patch.setattr(guard, "is_named", lambda cgroups, marks: False)


@mutation(
    "only what is exclusive and movable needs a lease",
    "cut a node off",
    templates=("web", "data", "each"),
    users="calm",
)
def _needs_leases_for_all(patch):
    for module in (agents_leases, holds, runner):
        patch.setattr(module, "needs_lease", lambda assignment: True)


@mutation(
    "a node that may run an exclusive task is not forgotten",
    "an operator forgets a node that has just fallen silent",
    **HOLDERS,
)
def _forgets_what_may_run(patch):
    patch.setattr(losing, "leases_held", lambda snapshot, node: "")


@mutation(
    "a node that is heard of is not taken for lost",
    "an operator takes a node that is up for lost",
    **HOLDERS,
)
def _takes_for_lost_what_is_up(patch):
    patch.setattr(losing, "may_be_on", lambda snapshot, node: "")


# ---------------------------------------------------------------- machines


@mutation(
    "a second machine of the same identity gets no lease while the first may live on its own",
    "a copied machine comes up while the first one is cut off",
    **HOLDERS,
)
def _grants_to_a_second_machine(patch):
    patch.setattr(leases, "is_held_by_another", lambda granted_boot, until, boot, now: False)


@mutation(
    "what a second machine says of an exclusive task is not believed before the first one's"
    " lease is over",
    "a copied machine comes up while the first one is cut off",
    templates=("only", "share"),
)
def _believes_a_second_machine(patch):
    patch.setattr(outcomes, "speaks_for_another", lambda snapshot, task: False)


CLOCK = {
    **HOLDERS,
    "rates": (("n1", 0.7), ("n2", 0.7), ("n3", 0.7)),
    "seconds": 150.0,
    "mean_seconds": 4.0,
}
IS_KNOWN = "a node is cut off when its clock is known"


@mutation(
    "a node whose clock is off gets no lease and no exclusive task",
    IS_KNOWN,
    **CLOCK,
)
def _trusts_any_clock(patch):
    patch.setattr(clocks, "objection", lambda found: "")


def _places_anywhere(patch):
    must_leave = nodes.must_leave

    def staying(snapshot, task):
        return must_leave(snapshot, task) if nodes.is_drained(snapshot, task) else ""

    patch.setattr(nodes, "must_leave", staying)
    patch.setattr(filters, "fencing", lambda fleet, ask, node: None)
    patch.setitem(filters.ALL, "fencing", filters.fencing)


@mutation(
    "a node that cannot be trusted gets no lease for what it has",
    IS_KNOWN,
    **CLOCK,
    covered_by=(_places_anywhere,),
)
def _grants_to_the_untrusted(patch):
    patch.setattr(leases, "is_trusted", lambda liveness: True)


@mutation(
    "a boot counts once its session's first heartbeat has come",
    "an old hello comes late",
    users="calm",
    templates=("only",),
    mean_seconds=4.0,
    seconds=80.0,
)
def _counts_a_boot_by_its_hello(patch):
    refusal = Dispatcher._refusal

    def refusing(self, hello):
        why = refusal(self, hello)
        if why is None:
            boots = self._boots.setdefault(hello.node_id, liveness.Boots())
            liveness.booted(boots, hello.boot_id, self._authority.clock.boottime())
        return why

    patch.setattr(Dispatcher, "_refusal", refusing)
