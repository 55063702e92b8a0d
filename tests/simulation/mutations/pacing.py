"""How many moves begin at once, how soon after each other, and what is stopped before."""

from scheduler.reconcile import moves, relocating, turns
from tests.simulation.mutations.table import mutation
from tests.simulation.workload import SINGLES


@mutation(
    "one lost node's tasks begin to move in ten seconds",
    "two nodes are silent for longer than replicas are held",
    templates=("web", "many"),
    users="calm",
    seconds=100.0,
    mean_seconds=3.0,
)
def _moves_all_lost_nodes_at_once(patch):
    patch.setattr(moves, "NODE_SECONDS", 0.0)


@mutation(
    "three replacements of suspected nodes' tasks start at once",
    "cut a node off",
    templates=("many",),
    users="calm",
)
def _starts_all_replacements_at_once(patch):
    patch.setattr(moves, "STARTING_MAX", 1_000)


AGAIN = "nodes take tasks again, and some are to move there"


@mutation(
    "three moves to better nodes are under way at once",
    AGAIN,
    templates=("many", "web"),
    users="calm",
)
def _begins_all_moves_at_once(patch):
    patch.setattr(turns, "AT_ONCE_MAX", 1_000)


@mutation(
    "no move to a better node begins while the leader is young",
    AGAIN,
    "kill the leader",
    templates=("many", "web"),
    users="calm",
)
def _begins_moves_when_young(patch):
    init = turns.Turns.__init__
    patch.setattr(
        turns.Turns, "__init__", lambda self, observed, began: init(self, observed, began - 100)
    )


@mutation(
    "an exclusive task that moves to a better node is stopped before its successor is placed",
    AGAIN,
    templates=SINGLES,
    users="calm",
)
def _places_the_successor_beside(patch):
    def beside(snapshot, service, slot):
        old = relocating.marked(slot)
        if old is None or len(slot.wanted) > 1 or not relocating.is_begun(snapshot, old):
            return None
        return old

    patch.setattr(relocating, "awaits_successor", beside)
