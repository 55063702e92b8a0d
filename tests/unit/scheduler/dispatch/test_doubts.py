"""When an agent's journal speaks of a past that the store has lost."""

import pytest

from homeport.model import OrderId
from scheduler.dispatch import doubts

PRESENT = OrderId(cluster="c", incarnation=2, epoch=90, revision=100)


@pytest.mark.parametrize(
    ("seen", "is_ahead"),
    [
        pytest.param((2, 90, 100), False, id="the last order of all"),
        pytest.param((2, 50, 80), False, id="an older leader's"),
        pytest.param((2, 90, 101), True, id="a revision that the store has not come to"),
        pytest.param((2, 101, 1), True, id="an epoch that the store has not come to"),
        pytest.param((2, 40, 101), True, id="an older leader's revision above all that there is"),
        pytest.param((3, 1, 1), True, id="a later incarnation"),
        pytest.param((1, 900, 9000), False, id="an earlier incarnation, however far it came"),
        pytest.param((0, 0, 0), False, id="nothing yet"),
    ],
)
def test_judging(seen, is_ahead):
    incarnation, epoch, revision = seen
    order = OrderId(cluster="c", incarnation=incarnation, epoch=epoch, revision=revision)
    assert doubts.is_ahead(order, PRESENT) is is_ahead


def test_the_sentence_says_what_to_do_and_that_nothing_stops():
    seen = OrderId(cluster="c", incarnation=2, epoch=90, revision=300)
    doubt = doubts.raised("pi4", seen, PRESENT, now=1.0)
    assert "node pi4 has seen revision 300, and the store is at 100" in doubt.why
    assert "all containers run on" in doubt.why
    assert "homeport store accept-restore" in doubt.why


def test_the_highest_incarnation_that_was_shown_counts():
    low = doubts.raised("a", OrderId(incarnation=2, revision=300), PRESENT, now=1.0)
    high = doubts.raised("b", OrderId(incarnation=7), PRESENT, now=2.0)
    assert doubts.of_both(None, low) is low
    assert doubts.of_both(low, high) is doubts.of_both(high, low) is high
