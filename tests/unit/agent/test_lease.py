"""The rules of the node's lease."""

import pytest

from agent import lease
from agent.lease import Lease
from homeport.lifecycle import Desired
from homeport.model import Assignment, TaskId


@pytest.mark.parametrize(
    ("exclusive", "pinned", "needs"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_only_what_is_exclusive_and_movable_needs_a_lease(
    exclusive: bool, pinned: bool, needs: bool
) -> None:
    assignment = Assignment(
        task=TaskId("a/1/1"), stack="s", service_name="a", generation=1, desired=Desired.RUNNING,
        exclusive=exclusive, pinned=pinned,
    )  # fmt: skip
    assert lease.needs_lease(assignment) is needs


def test_a_lease_counts_from_the_sending_less_a_margin() -> None:
    assert lease.lease_end(100.0, 15.0, 1.0) == 114.0


@pytest.mark.parametrize(
    ("grace", "length", "begins"),
    [
        pytest.param(10.0, 15.0, 112.0, id="two seconds before the end at most"),
        pytest.param(0.5, 15.0, 113.5, id="no longer than the task takes"),
        pytest.param(10.0, 7.0, 113.0, id="a seventh of a short lease"),
    ],
)
def test_when_a_task_is_told_to_stop(grace: float, length: float, begins: float) -> None:
    assert lease.stop_begins(114.0, length, grace) == begins


def test_a_lease_is_never_shortened() -> None:
    made = Lease()
    made.hear(1.0)
    assert made.renew(sent_seconds=10.0, heard_seconds=10.0, lease_seconds=15.0)
    assert made.renew(sent_seconds=9.0, heard_seconds=9.0, lease_seconds=15.0)
    assert made.until_seconds == 24.0


def test_a_lease_that_is_withheld_neither_ends_nor_begins_one() -> None:
    made = Lease()
    made.hear(1.0)
    assert made.renew(sent_seconds=10.0, heard_seconds=10.0, lease_seconds=0.0)
    assert (made.until_seconds, made.lacks_word(1.0)) == (0.0, False)
    assert made.renew(sent_seconds=11.0, heard_seconds=11.0, lease_seconds=15.0)
    assert made.renew(sent_seconds=12.0, heard_seconds=12.0, lease_seconds=0.0)
    assert made.until_seconds == 25.0
    assert made.renew(sent_seconds=26.0, heard_seconds=26.0, lease_seconds=0.0)
    assert not made.lacks_word(1.0)


def test_an_answer_that_is_heard_after_the_end_begins_one_that_there_was_not_for_a_moment() -> None:
    made = Lease()
    made.hear(1.0)
    made.renew(sent_seconds=10.0, heard_seconds=10.0, lease_seconds=15.0)
    begun: list[float] = []
    made.on_begin = lambda: begun.append(made.until_seconds)
    made.renew(sent_seconds=20.0, heard_seconds=23.9, lease_seconds=15.0)
    assert begun == []
    made.renew(sent_seconds=33.0, heard_seconds=34.0, lease_seconds=15.0)
    assert begun == [47.0]


def test_the_first_lease_waits_for_a_word_too() -> None:
    made = Lease()
    begun: list[float] = []
    made.on_begin = lambda: begun.append(made.until_seconds)
    assert not made.renew(sent_seconds=10.0, heard_seconds=10.0, lease_seconds=15.0)
    assert made.until_seconds == 0.0
    made.hear(9.5)
    assert begun == [24.0], "what was granted meanwhile counts"


def test_a_session_older_than_the_leases_end_can_give_no_word() -> None:
    made = Lease()
    made.hear(1.0)
    made.renew(sent_seconds=10.0, heard_seconds=10.0, lease_seconds=15.0)
    assert not made.lacks_word(1.0)
    assert not made.renew(sent_seconds=30.0, heard_seconds=30.0, lease_seconds=15.0)
    assert made.lacks_word(1.0)
    assert not made.lacks_word(30.5)
