"""Which orders are obeyed, and which removals are held."""

from dataclasses import replace

import pytest

from agent import orders
from agent.orders import Orders, Verdict, Wanted
from homeport.lifecycle import Desired
from homeport.model import Assignment, Cause, OrderId, TaskId, Tombstone

SEEN = OrderId(cluster="c", incarnation=2, epoch=5, revision=100)


@pytest.mark.parametrize(
    ("change", "applies_to", "verdict"),
    [
        pytest.param({"revision": 101}, None, Verdict.OBEY, id="a complete one that is newer"),
        pytest.param({}, None, Verdict.OBEY, id="a complete one again"),
        pytest.param({"revision": 99}, None, Verdict.LOWER, id="an older one"),
        pytest.param({"epoch": 4, "revision": 900}, None, Verdict.LOWER, id="an older leader's"),
        pytest.param({"epoch": 101, "revision": 102}, None, Verdict.OBEY, id="a newer leader's"),
        pytest.param(
            {"epoch": 60, "revision": 61}, None, Verdict.LOWER, id="of a store restored behind us"
        ),
        pytest.param(
            {"incarnation": 3, "epoch": 2, "revision": 3}, None, Verdict.OBEY, id="of a new life"
        ),
        pytest.param({"incarnation": 1, "epoch": 9}, None, Verdict.LOWER, id="of an old backup"),
        pytest.param({"cluster": "x", "epoch": 9}, None, Verdict.FOREIGN, id="another cluster's"),
        pytest.param({"revision": 101}, {}, Verdict.OBEY, id="the next change"),
        pytest.param({"revision": 103}, {"revision": 101}, Verdict.GAP, id="one was lost"),
        pytest.param({}, {"revision": 98}, Verdict.REPEAT, id="the last change again"),
        pytest.param({}, {}, Verdict.OBEY, id="the second part of one order"),
    ],
)
def test_judging(
    change: dict[str, object], applies_to: dict[str, object] | None, verdict: Verdict
) -> None:
    message = Orders(
        order=replace(SEEN, **change),  # type: ignore[arg-type]
        is_complete=applies_to is None,
        applies_to=None if applies_to is None else replace(SEEN, **applies_to),  # type: ignore[arg-type]
    )
    assert orders.judge(message, seen=SEEN, floor=(2, 5)) is verdict


def test_an_older_leader_is_not_obeyed_after_a_newer_one_was_met() -> None:
    message = Orders(order=replace(SEEN, revision=101), is_complete=True)
    assert orders.judge(message, seen=SEEN, floor=(2, 6)) is Verdict.LOWER


def test_the_first_orders_of_all_are_obeyed() -> None:
    message = Orders(order=SEEN, is_complete=True)
    assert orders.judge(message, seen=OrderId(), floor=(0, 0)) is Verdict.OBEY


def tombstones(*tasks: int, cause: Cause = Cause.RECONCILER) -> list[Tombstone]:
    return [Tombstone(task=TaskId(f"t{task}"), cause=cause) for task in tasks]


def assignment(
    number: int, desired: Desired = Desired.SHUTDOWN, cause: Cause = Cause.RECONCILER
) -> Assignment:
    return Assignment(
        task=TaskId(f"t{number}"),
        stack="s",
        service_name="web",
        generation=1,
        desired=desired,
        cause=cause,
    )


TASKS = [(number, TaskId(f"t{number}")) for number in range(5)]


def settle(
    *tasks: int, running: int, lately: int = 0, cause: Cause = Cause.RECONCILER
) -> orders.Settled:
    """Orders that bury these tasks of a node with so many running ones."""
    here = [TaskId(f"t{task}") for task in range(running)]
    return orders.settle(
        Orders(order=SEEN, tombstones=tuple(tombstones(*tasks, cause=cause))),
        wanted={},
        leaving={},
        running=here,
        stopped_lately=lately,
    )


@pytest.mark.parametrize(
    ("running", "stops", "lately", "held"),
    [
        pytest.param(3, 3, 0, 0, id="three of three are few"),
        pytest.param(10, 4, 0, 4, id="four of ten are many"),
        pytest.param(16, 4, 0, 0, id="a quarter of many is allowed"),
        pytest.param(16, 5, 0, 5, id="more than a quarter is not"),
        pytest.param(10, 1, 3, 1, id="portions are added up"),
    ],
)
def test_holding(running: int, stops: int, lately: int, held: int) -> None:
    found = settle(*range(stops), running=running, lately=lately)
    assert len(found.held) == held
    assert found.stops == stops - held
    assert [leave.is_held for leave in found.leaving] == [bool(held)] * stops


def test_what_does_not_run_is_no_stop_and_an_operators_word_is_obeyed() -> None:
    assert not settle(*range(50, 90), running=4).held
    assert not settle(0, 1, 2, 3, running=4, cause=Cause.OPERATOR).held


def test_stops_that_keep_the_container_and_removals_are_counted_together() -> None:
    message = Orders(
        order=SEEN,
        tasks=(assignment(0), assignment(1)),
        tombstones=tuple(tombstones(2, 3)),
    )
    wanted = {task: Wanted(assignment=assignment(n, Desired.RUNNING)) for n, task in TASKS}
    found = orders.settle(message, wanted=wanted, leaving={}, running=wanted, stopped_lately=0)
    assert found.held == {"t0", "t1", "t2", "t3"}
    assert [want.desired for want in found.wanted] == [Desired.RUNNING] * 2


def test_a_held_stop_is_held_for_whoever_repeats_it_and_freed_by_an_operator() -> None:
    wanted = {TaskId("t0"): Wanted(assignment=assignment(0), is_held=True)}

    def told(*tasks: Assignment, stones: tuple[Tombstone, ...] = ()) -> orders.Settled:
        message = Orders(order=SEEN, tasks=tasks, tombstones=stones)
        return orders.settle(message, wanted=wanted, leaving={}, running=wanted, stopped_lately=0)

    assert told(assignment(0)).wanted == (), "nothing new is journalled"
    assert told(stones=tuple(tombstones(0))).leaving[0].is_held
    (freed,) = told(assignment(0, cause=Cause.OPERATOR)).wanted
    assert freed.desired is Desired.SHUTDOWN
    (again,) = told(assignment(0, Desired.RUNNING)).wanted
    assert not again.is_held


def test_the_removal_of_what_is_being_stopped_is_no_second_stop() -> None:
    wanted = {task: Wanted(assignment=assignment(n)) for n, task in TASKS}
    message = Orders(order=SEEN, tombstones=tuple(tombstones(0, 1, 2, 3, 4)))
    found = orders.settle(message, wanted=wanted, leaving={}, running=wanted, stopped_lately=0)
    assert (found.held, found.stops) == (frozenset(), 0)


@pytest.mark.parametrize(
    ("unrecorded", "rival"),
    [
        ([], None),
        (["s-web-5/1/7"], "s-web-5/1/7"),
        (["s-web-5/1/4"], None),
        (["s-web-5/11/7", "s-web-5/2/7", "s-we-5/1/7"], None),
    ],
    ids=["nothing", "a newer task of the slot", "the task itself", "tasks of other slots"],
)
def test_a_slot_is_taken_by_what_runs_without_a_record(
    unrecorded: list[str], rival: str | None
) -> None:
    assert orders.rival(TaskId("s-web-5/1/4"), map(TaskId, unrecorded)) == rival
