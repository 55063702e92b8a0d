"""What silence means, and when: by boot time, and only of nodes that this leader has heard."""

import pytest

from homeport.model import NodeState
from scheduler.cluster.observed import Liveness
from scheduler.config import Timers
from scheduler.dispatch import liveness
from scheduler.dispatch.liveness import Boots, Identity

TIMERS = Timers()


def ready(last_seen=100.0, **fields):
    return Liveness(state=NodeState.READY, last_seen=last_seen, **fields)


def states_over_time(node, *, lenient=False, until=140.0):
    """[(time, state)] of each change while the node is silent."""
    found, now = [], node.last_seen
    while now < until:
        now = round(now + 0.5, 1)
        changed = liveness.overdue(node, now, TIMERS, lenient=lenient)
        if changed is not None:
            node = changed
            found.append((now, node.state))
    return found


@pytest.mark.parametrize(
    ("node", "lenient", "expected"),
    [
        pytest.param(
            ready(),
            False,
            [(105.0, NodeState.SUSPECT), (117.0, NodeState.DOWN)],
            id="a silent node is suspected after 5 s and down after 17 s",
        ),
        pytest.param(
            ready(),
            True,
            [(110.0, NodeState.SUSPECT), (117.0, NodeState.DOWN)],
            id="one that was suspected falsely is given twice the time",
        ),
        pytest.param(
            ready(restarting=True),
            False,
            [(115.0, NodeState.SUSPECT), (117.0, NodeState.DOWN)],
            id="one whose agent restarts is excused for a node lease",
        ),
        pytest.param(
            liveness.unheard(100.0),
            False,
            [(115.0, NodeState.SUSPECT), (122.0, NodeState.DOWN)],
            id="one that this leader never heard is suspected after 15 s, and down after 22 s",
        ),
        pytest.param(
            liveness.going_down(ready(), 100.0),
            False,
            [(117.0, NodeState.DOWN)],
            id="one that said it goes down is suspect at once, and down no earlier",
        ),
    ],
)
def test_silence(node, lenient, expected):
    assert states_over_time(node, lenient=lenient) == expected


def test_a_sign_of_life_makes_a_node_ready_and_ends_every_excuse():
    node = liveness.seen(Liveness(state=NodeState.DOWN, restarting=True), 50.0, 5)
    assert (node.state, node.since, node.last_seen, node.restarting) == (
        NodeState.READY,
        50.0,
        50.0,
        False,
    )


def test_a_reboot_forgets_what_was_reported():
    node = liveness.reported(liveness.opened(Liveness(), 1.0, 1, session="a", boot_id="b1"))
    assert liveness.opened(node, 2.0, 2, session="b", boot_id="b1").reported
    assert not liveness.opened(node, 2.0, 2, session="b", boot_id="b2").reported


def test_an_older_session_that_ends_does_not_close_the_newer_one():
    node = ready(session="new")
    assert liveness.closed(node, "old").session == "new"
    assert liveness.closed(node, "new").session == ""


def test_the_next_check_is_never_after_the_next_change():
    nodes = {
        "a": ready(100.0),
        "b": ready(98.0, restarting=True),
        "c": liveness.unheard(90.0),
        "d": Liveness(state=NodeState.DOWN, last_seen=1.0),
    }
    due = liveness.next_check(nodes, TIMERS, {}, 101.0)
    assert due == 105.0
    assert all(liveness.overdue(each, 104.9, TIMERS) is None for each in nodes.values())


def test_two_machines_with_one_identity_are_told_apart_by_alternating_boots():
    boots = Boots()
    assert liveness.identity(boots, "b1", 0.0, session="1") is Identity.FIRST
    liveness.booted(boots, "b1", 0.0)
    assert liveness.identity(boots, "b1", 1.0, session="2") is Identity.REPLACES
    assert liveness.identity(boots, "b2", 2.0, session="3") is Identity.REPLACES  # a reboot
    liveness.booted(boots, "b2", 2.0)
    # Nobody boots backwards, but an old hello may be late, and come twice.
    assert liveness.identity(boots, "b1", 3.0, session="4") is Identity.RETURNS
    boots.returned = "4"
    assert liveness.identity(boots, "b1", 3.5, session="4") is Identity.RETURNS
    assert liveness.identity(boots, "b1", 4.0, session="5") is Identity.DUPLICATE
    assert liveness.identity(boots, "b3", 4.0, session="6") is Identity.REPLACES
    late = 3.0 + liveness.ALTERNATION_SECONDS
    assert liveness.identity(boots, "b1", late, session="7") is Identity.REPLACES


def test_a_further_boot_begins_the_count_of_old_hellos_anew():
    boots = Boots()
    for boot in ("b1", "b2"):
        liveness.booted(boots, boot, 0.0)
    boots.returned = "4"
    liveness.booted(boots, "b2", 1.0)
    assert boots.returned == "4"  # the same boot, beating on
    liveness.booted(boots, "b3", 2.0)
    assert liveness.identity(boots, "b1", 3.0, session="5") is Identity.RETURNS


def suspect(**fields):
    return Liveness(
        state=NodeState.SUSPECT, last_seen=100.0, reported=True, boot_id="b1", session="s", **fields
    )


def test_after_a_silence_nothing_is_known_of_a_nodes_tasks_until_it_has_reported():
    assert not liveness.seen(suspect(), 106.0, 0).reported
    back = liveness.opened(suspect(), 106.0, 0, session="t", boot_id="b1")
    assert not back.reported
    assert liveness.seen(ready(reported=True), 101.0, 0).reported


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(suspect(), {}, True, id="it was silent, and there all the time"),
        pytest.param(suspect(), {"session": "t"}, True, id="also when it had to dial again"),
        pytest.param(suspect(), {"boot_id": "b2"}, False, id="its machine was restarted"),
        pytest.param(suspect(leaving=True), {}, False, id="it had said that it goes down"),
        pytest.param(
            Liveness(state=NodeState.DOWN, boot_id="b1"), {}, False, id="it was down by then"
        ),
    ],
)
def test_a_suspicion_was_false_when_nothing_was_wrong_but_the_silence(old, new, expected):
    back = liveness.opened(
        old, 106.0, 0, session=new.get("session", "s"), boot_id=new.get("boot_id", "b1")
    )
    assert liveness.was_false(old, back) is expected


def test_a_node_that_is_lost_by_the_operators_word_is_down_at_once():
    assert liveness.lost(suspect(), 101.0).state is NodeState.DOWN
    down = Liveness(state=NodeState.DOWN, since=3.0)
    assert liveness.lost(down, 101.0) is down
