"""S1: the lease of a node is withheld from before a move of its exclusive task is written."""

from dataclasses import replace

import pytest

from homeport.lifecycle import TaskState
from homeport.model import Outcome, ServiceId, Task
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Observed
from scheduler.cluster.tables import Tables
from scheduler.reconcile import revoking
from scheduler.reconcile.revoking import Superseded

DB = ServiceId("s-db-1")
OLD = Task(service=DB, slot=1, n=1, node="a", generation=1, exclusive=True)
NEW = replace(OLD, n=2, node="b")
ENDED = Outcome(state=TaskState.SHUTDOWN)


def tables(*tasks):
    found = Tables()
    for revision, task in enumerate(tasks, start=2):
        found.put(task, revision)
    return found


def withheld(view, observed=None, node="a", given_up=()):
    return bool(
        revoking.withheld(observed or Observed(), Superseded(view), node, given_up),
    )


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (OLD, True),
        (replace(OLD, exclusive=False), False),
        (replace(OLD, pinned=True), False),
        (replace(OLD, outcome=ENDED), False),
    ],
)
def test_only_a_live_task_that_needs_a_lease_withholds_it(old, expected):
    observed = Observed()
    revoking.begin(tables(old), observed, [Put(NEW, ABSENT, "its node is down")])
    assert withheld(tables(old), observed) is expected
    assert withheld(tables(old, NEW)) is expected
    assert not withheld(tables(old), observed, node="b")


def test_a_move_that_failed_gives_the_lease_back_and_one_of_unknown_fate_does_not():
    observed = Observed()
    change = Put(NEW, ABSENT, "its node is down")
    revoking.begin(tables(OLD), observed, [change])
    revoking.end(observed, frozenset({change.key}))
    assert withheld(tables(OLD), observed)
    revoking.end(observed, frozenset())
    assert not withheld(tables(OLD), observed)


def test_an_update_of_a_task_that_is_there_is_no_move():
    observed = Observed()
    revoking.begin(tables(OLD, NEW), observed, [Put(replace(NEW, reason="x"), 3, "x")])
    assert not observed.revoking


def test_the_lease_comes_back_when_the_old_holder_has_given_up_or_its_record_is_gone():
    view = tables(OLD, NEW)
    assert not withheld(view, given_up=[OLD.id])
    superseded = Superseded(view)
    view.drop(f"tasks/{OLD.id}")
    superseded.changed(view, OLD, None)
    assert not superseded.on("a")


def test_commits_keep_the_index_as_a_new_leader_would_make_it():
    view = tables(OLD)
    superseded = Superseded(view)
    assert not superseded.on("a")
    view.put(NEW, 9)
    superseded.changed(view, None, NEW)
    assert list(superseded.on("a")) == list(Superseded(view).on("a")) == [OLD.id]
    ended = replace(OLD, outcome=ENDED)
    view.put(ended, 10)
    superseded.changed(view, OLD, ended)
    assert not superseded.on("a")
    assert not Superseded(view).on("a")
