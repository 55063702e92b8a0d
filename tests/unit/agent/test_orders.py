"""Which orders are obeyed, and which removals are held."""

from dataclasses import replace

import pytest

from agent import orders
from agent.orders import Orders, Verdict
from homeport.model import Cause, OrderId, TaskId, Tombstone

SEEN = OrderId(cluster="c", incarnation=2, epoch=5, revision=100)


@pytest.mark.parametrize(
    ("change", "applies_to", "verdict"),
    [
        pytest.param({"revision": 101}, None, Verdict.OBEY, id="a complete one that is newer"),
        pytest.param({}, None, Verdict.OBEY, id="a complete one again"),
        pytest.param({"revision": 99}, None, Verdict.LOWER, id="an older one"),
        pytest.param({"epoch": 4, "revision": 900}, None, Verdict.LOWER, id="an older leader's"),
        pytest.param({"epoch": 6, "revision": 1}, None, Verdict.OBEY, id="a newer leader's"),
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
    here = {f"t{task}" for task in range(running)}
    found = orders.held(tombstones(*range(stops)), here, stopped_lately=lately)
    assert len(found) == held


def test_what_does_not_run_is_no_stop_and_an_operators_word_is_obeyed() -> None:
    here = {f"t{task}" for task in range(4)}
    assert not orders.held(tombstones(*range(50, 90)), here, stopped_lately=0)
    assert not orders.held(tombstones(0, 1, 2, 3, cause=Cause.OPERATOR), here, stopped_lately=0)
