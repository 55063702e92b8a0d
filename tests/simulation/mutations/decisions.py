"""What is decided about tasks: when they move, when they are replaced, and what is recorded."""

from dataclasses import replace

from scheduler.dispatch import dispatcher, liveness
from scheduler.placement import engine, filters
from scheduler.reconcile import brake, exemptions, moves, nodes, outcomes, slots
from tests.simulation.mutations.leading import led_for_long
from tests.simulation.mutations.table import mutation
from tests.simulation.workload import LARGE


def _moves_when_all_are_silent(patch):
    patch.setattr(brake, "is_most", lambda silent, counted: False)


@mutation(
    "nothing moves while most of the cluster is silent", "cut all nodes off", "cut a node off"
)
def _has_no_brake(patch):
    _moves_when_all_are_silent(patch)


@mutation(
    "a leader moves nothing before it has led for a node's lease",
    "a node falls silent under a young leader",
    templates=("web", "only"),
)
def _moves_when_young(patch):
    patch.setattr(moves.Moves, "__init__", led_for_long(moves.Moves.__init__))


@mutation(
    "nothing is surplus before both nodes have reported",
    "a copy breaks while its node is away",
    templates=("web",),
    users="calm",
    seconds=90.0,
)
def _ends_surplus_before_reports(patch):
    patch.setattr(nodes, "has_reported", lambda snapshot, task: True)


@mutation(
    "an exclusive task stops, its node says so, then the next one starts",
    templates=("only", "share"),
)
def _starts_before_the_stop(patch):
    patch.setattr(slots.Slot, "stopping", property(lambda self: []))


@mutation(
    "an empty slot waits for the node of its last task to report",
    "the leader goes with the node of a task that has ended",
    templates=("refused", "web"),
    users="calm",
)
def _fills_slots_at_once(patch):
    patch.setattr(nodes, "awaits_node", lambda snapshot, slot: "")


@mutation("a task's number is never given twice", "cut a node off", "kill a container")
def _numbers_tasks_anew(patch):
    def next_n(service, slot):
        return max((task.n for task in slot.tasks), default=0) + 1

    patch.setattr(slots, "next_n", next_n)


@mutation(
    "how a task ended is recorded before anything follows from it",
    "kill a container",
    has_peace=True,
    seconds=30.0,
)
def _forgets_ends(patch):
    patch.setattr(outcomes, "decide", lambda snapshot, service: [])


@mutation(
    "a pinned task waits for its node, and its volume is on no other",
    "cut a node off",
    templates=("data",),
    users="calm",
)
def _moves_pinned_tasks(patch):
    patch.setattr(nodes, "is_movable", lambda service, task: not service.mode.is_global)
    few = engine._few
    patch.setattr(engine, "_few", lambda fleet, ask: few(fleet, ask) if ask.only else None)
    patch.setitem(filters.ALL, "volume", lambda fleet, ask, node: None)


@mutation(
    "what is not reported in this epoch is unknown",
    "a copy breaks while its node is away",
    templates=("web",),
    users="calm",
    seconds=90.0,
)
def _believes_before_a_report(patch):
    seen = liveness.seen
    patch.setattr(
        liveness, "seen", lambda *args, **kwargs: replace(seen(*args, **kwargs), reported=True)
    )


@mutation(
    "a leader that was held up judges nobody by a silence that was its own",
    "a leader is held up while a node is silent",
    templates=("web",),
    users="calm",
    covered_by=(_moves_when_all_are_silent,),
)
def _judges_when_held_up(patch):
    patch.setattr(dispatcher, "may_judge", lambda authority, late_seconds, timers: True)


@mutation(
    "the old copy of what has moved is not wanted any more",
    "the holder of a task is away for longer than its lease",
    templates=("only",),
    users="calm",
    has_peace=True,
    seconds=50.0,
)
def _wants_both_copies(patch):
    patch.setattr(nodes, "settle", lambda snapshot, slots: nodes.Settled())


@mutation(
    "a stack of which a large change is being written out is left alone",
    "kill the leader",
    "slow store",
    templates=LARGE,
    seconds=40.0,
)
def _decides_about_drafts(patch):
    patch.setattr(exemptions, "is_drafted", lambda view, service: False)
