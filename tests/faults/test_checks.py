"""Each checker passes a history that keeps its promise, and is seen to fail where it is broken."""

import dataclasses

import pytest

from tests.faults.checks import (
    canaries,
    capacity,
    durability,
    exclusive,
    fencing,
    inertness,
    orphans,
    watches,
)
from tests.faults.checks.capacity import Booking, Room
from tests.faults.checks.recovery import recoveries
from tests.faults.history import (
    SECOND,
    EngineEvent,
    Life,
    Operation,
    StoreEvent,
    Told,
    Window,
    WitnessLine,
)

SLOT = "app/mover/1"
EXCLUSIVE = frozenset({SLOT})


def life(node: str, first: float, last: float, *, ended: bool = True, **more: str) -> Life:
    values = {"slot": SLOT, "task": f"app-mover-1/1/{node}", "container": f"c-{node}"} | more
    return Life(
        node=node, first_ns=int(first * SECOND), last_ns=int(last * SECOND), ended=ended, **values
    )


def window(begin: float, end: float, settled: float = 0, *, scope: str = "agent") -> Window:
    return Window(
        fault="F01", title="an agent is killed", scope=scope, begin_ns=int(begin * SECOND),
        end_ns=int(end * SECOND), settled_ns=int(settled * SECOND),
    )  # fmt: skip


def event(revision: int, key: str, value: bytes | None = b"x", created: int = 0) -> StoreEvent:
    return StoreEvent(
        t_ns=revision * SECOND, revision=revision, key=key, value=value,
        created=created or (revision if value is not None else 0),
    )  # fmt: skip


# --------------------------------------------------------------------------- exclusive intervals


def test_one_copy_after_the_other_is_exclusive() -> None:
    assert exclusive.overlaps([life("h1", 0, 10), life("h2", 10.02, 20)], EXCLUSIVE) == []


def test_a_restart_in_the_same_container_is_exclusive() -> None:
    assert exclusive.overlaps([life("h1", 0, 10), life("h1", 10, 20)], EXCLUSIVE) == []


def test_two_copies_at_once_are_found() -> None:
    (found,) = exclusive.overlaps([life("h1", 0, 10), life("h2", 9.5, 20)], EXCLUSIVE)
    assert "on h1" in found.message
    assert "on h2" in found.message
    assert "0.500 s" in found.message


def test_two_copies_on_one_node_are_found() -> None:
    lives = [life("h1", 0, 10), life("h1", 5, 20, container="another")]
    assert len(exclusive.overlaps(lives, EXCLUSIVE)) == 1


def test_a_long_life_that_spans_others_is_found_each_time() -> None:
    lives = [life("h1", 0, 100), life("h2", 10, 20), life("h3", 30, 40)]
    assert len(exclusive.overlaps(lives, EXCLUSIVE)) == 2


def test_replicas_may_overlap() -> None:
    lives = [life("h1", 0, 10, slot="app/web/1"), life("h2", 5, 10, slot="app/web/1")]
    assert exclusive.overlaps(lives, EXCLUSIVE) == []


def line(second: float, kind: str = "beat", token: int = 1, node: str = "h1") -> WitnessLine:
    return WitnessLine(t_ns=int(second * SECOND), slot=SLOT, node=node, token=token, kind=kind)


def test_a_witness_that_only_beats_complains_of_nothing() -> None:
    assert exclusive.rivals([line(1), line(2)]) == []


@pytest.mark.parametrize("kind", ["VIOLATION", "REFUSED", "BROKEN"])
def test_a_witness_that_complains_is_heard_once_a_second(kind: str) -> None:
    lines = [line(1, kind), line(1.05, kind), line(2.5, kind)]
    assert len(exclusive.rivals(lines)) == 2


def test_a_token_that_rises_is_right_and_one_that_falls_is_found() -> None:
    assert exclusive.tokens([line(1), line(2, token=5, node="h2"), line(3, token=5)]) == []
    (found,) = exclusive.tokens([line(1, token=5), line(2, token=4, node="h2")])
    assert "token 4 after h1 had written with 5" in found.message


# ------------------------------------------------------------------------------- fenced writers


MARK = "meta/write-id/s1/1"
ELECTED = event(5, "leader", b"s1")


def test_a_write_in_the_leaders_epoch_is_fenced() -> None:
    history = [ELECTED, event(6, "tasks/a/1/1"), event(6, MARK, b"1 epoch 5")]
    assert fencing.writers(history) == []


def test_a_write_in_an_older_epoch_is_found() -> None:
    history = [
        ELECTED, event(7, "leader", None), event(8, "leader", b"s2"),
        event(9, "tasks/a/1/1"), event(9, MARK, b"2 epoch 5"),
    ]  # fmt: skip
    (found,) = fencing.writers(history)
    assert "in epoch 5, and the leader's was 8" in found.message


def test_a_write_while_nobody_leads_is_found() -> None:
    history = [
        ELECTED, event(7, "leader", None), event(8, "tasks/a/1/1"), event(8, MARK, b"2 epoch 5"),
    ]  # fmt: skip
    assert len(fencing.writers(history)) == 1


def test_a_write_without_a_mark_is_found_unless_the_test_made_it() -> None:
    history = [ELECTED, event(6, "tasks/a/1/1")]
    assert "without a mark" in fencing.writers(history)[0].message
    assert fencing.writers([ELECTED, event(6, "/junk/1")], allowed=("/junk/",)) == []


# ----------------------------------------------------------------------------------- durability


def operation(number: int, outcome: str, revision: int = 0) -> Operation:
    return Operation(
        mark=f"mark-{number:06}", invoked_ns=number * SECOND, ended_ns=(number + 1) * SECOND,
        outcome=outcome, revision=revision,
    )  # fmt: skip


def written(number: int, revision: int, key: str = "") -> StoreEvent:
    return event(revision, key or f"specs/ledger/{number}", b"..mark-%06d.." % number)


def test_what_was_acknowledged_is_there_and_what_was_refused_is_not() -> None:
    operations = [operation(1, "ok", 10), operation(2, "fail"), operation(3, "info")]
    assert durability.acknowledged(operations, [written(1, 10)]) == []
    assert durability.acknowledged(operations, [written(1, 10), written(3, 12)]) == []


def test_an_acknowledged_change_that_is_lost_is_found() -> None:
    (found,) = durability.acknowledged([operation(1, "ok", 10)], [written(2, 10)])
    assert found.promise == "S5"
    assert "nowhere" in found.message


def test_a_change_that_came_after_its_acknowledgement_is_found() -> None:
    (found,) = durability.acknowledged([operation(1, "ok", 10)], [written(1, 12)])
    assert "written at 12" in found.message


def test_a_refused_change_that_was_made_is_found() -> None:
    (found,) = durability.acknowledged([operation(1, "fail")], [written(1, 10)])
    assert found.promise == "S6"


def test_a_change_that_was_made_twice_is_found() -> None:
    history = [written(1, 10), written(1, 12, "specs/ledger/99")]
    found = durability.acknowledged([operation(1, "ok", 10)], history)
    assert [each.promise for each in found] == ["S6"]


def test_an_older_change_that_comes_last_is_found() -> None:
    operations = [operation(1, "info"), operation(2, "ok", 10)]
    (found,) = durability.acknowledged(operations, [written(2, 10), written(1, 12)])
    assert "mark-000001 is what stands" in found.message


# -------------------------------------------------------------------------------------- watches


KINDS = ("tasks/", "stacks/")
HISTORY = [event(2, "stacks/a"), event(3, "tasks/a/1/1"), event(5, "tasks/a/1/1", None)]


def told(revision: int, *objects: str) -> Told:
    return Told(t_ns=revision * SECOND, revision=revision, objects=frozenset(objects))


def test_a_watch_that_tells_all_is_gap_free() -> None:
    words = [told(2, "stacks/a"), told(3, "stacks/a", "tasks/a/1/1"), told(5, "stacks/a")]
    assert watches.gap_free(words, HISTORY, KINDS) == []


def test_a_watch_that_leaves_out_an_object_is_found() -> None:
    (found,) = watches.gap_free([told(3, "stacks/a"), told(4, "stacks/a")], HISTORY, KINDS)[:1]
    assert "left out tasks/a/1/1" in found.message


def test_a_watch_that_keeps_what_is_gone_is_found() -> None:
    words = [told(5, "stacks/a", "tasks/a/1/1"), told(6, "stacks/a", "tasks/a/1/1")]
    assert any("still had" in each.message for each in watches.gap_free(words, HISTORY, KINDS))


def test_a_watch_that_goes_back_is_found() -> None:
    words = [told(5, "stacks/a"), told(3, "stacks/a", "tasks/a/1/1")]
    (found,) = watches.gap_free(words, HISTORY, KINDS)
    assert "went back" in found.message


# ------------------------------------------------------------------------- inertness and churn


def test_a_process_that_outlives_an_agents_fault_is_inert() -> None:
    assert inertness.inert([life("h1", 0, 100)], [window(10, 20, 25)]) == []


@pytest.mark.parametrize("at", [12, 23])
def test_a_process_that_ends_in_an_agents_fault_or_its_aftermath_is_found(at: int) -> None:
    (found,) = inertness.inert([life("h1", 0, at)], [window(10, 20, 25)])
    assert found.promise == "S8"


def test_a_process_that_ends_while_the_schedulers_are_away_is_found() -> None:
    (found,) = inertness.inert([life("h1", 0, 12)], [window(10, 20, scope="scheduler")])
    assert found.promise == "S9"


def test_what_the_rules_let_stop_may_stop() -> None:
    allowed = dataclasses.replace(window(10, 20), may_stop=(SLOT,))
    assert inertness.inert([life("h1", 0, 12)], [allowed]) == []
    assert inertness.inert([life("h1", 0, 12)], [window(10, 20, scope="node")]) == []


def test_an_end_without_a_cause_is_churn() -> None:
    assert len(inertness.churn([life("h1", 0, 30)], [window(10, 20, 21)], slack_ns=SECOND)) == 1
    assert inertness.churn([life("h1", 0, 15)], [window(10, 20, 21)], slack_ns=SECOND) == []


# -------------------------------------------------------------------------------------- orphans


TASK = "app-mover-1/1/1"
GONE = [event(2, f"tasks/{TASK}"), event(10, f"tasks/{TASK}", None)]


def test_what_ends_soon_after_its_record_is_no_orphan() -> None:
    assert orphans.lingering([life("h1", 0, 30, task=TASK)], GONE, [], 100 * SECOND) == []


def test_what_lives_on_without_a_record_is_found() -> None:
    (found,) = orphans.lingering([life("h1", 0, 60, task=TASK)], GONE, [], 100 * SECOND)
    assert found.promise == "L5"
    still = life("h1", 0, 20, task=TASK, ended=False)
    assert len(orphans.lingering([still], GONE, [], 100 * SECOND)) == 1


def test_an_orphan_has_its_grace_from_the_healing_on() -> None:
    cut = window(5, 40, scope="node")
    assert orphans.lingering([life("h1", 0, 60, task=TASK)], GONE, [cut], 100 * SECOND) == []


# --------------------------------------------------------------------------- capacity and ports


ROOMS = {"n1": Room(cpu_millis=1000, memory_bytes=1000)}


def booking(revision: int, task: str, node: str = "n1", **more: object) -> Booking:
    return Booking(t_ns=revision * SECOND, revision=revision, task=task, node=node, **more)


def test_what_fits_is_not_overbooked() -> None:
    booked = [
        booking(1, "a", cpu_millis=600), booking(2, "a", ""), booking(3, "b", cpu_millis=600),
    ]  # fmt: skip
    assert capacity.overbooked(booked, ROOMS) == []


@pytest.mark.parametrize("kind", ["cpu_millis", "memory_bytes"])
def test_a_node_with_too_much_on_it_is_found(kind: str) -> None:
    booked = [booking(1, "a", **{kind: 600}), booking(2, "b", **{kind: 600})]
    (found,) = capacity.overbooked(booked, ROOMS)
    assert "1200 of 1000" in found.message


def test_a_port_given_twice_is_found() -> None:
    booked = [booking(1, "a", ports=((80, "tcp"),)), booking(2, "b", ports=((80, "tcp"),))]
    (found,) = capacity.overbooked(booked, ROOMS)
    assert "port 80/tcp" in found.message
    other = [booking(1, "a", ports=((80, "tcp"),)), booking(2, "b", ports=((80, "udp"),))]
    assert capacity.overbooked(other, ROOMS) == []


# ----------------------------------------------------------------------------- foreign canaries


def touched(action: str, name: str = "canary-plain", node: str = "h1") -> EngineEvent:
    return EngineEvent(t_ns=SECOND, node=node, action=action, name=name)


def test_a_canary_that_nobody_touches_is_unharmed() -> None:
    events = [touched("create"), touched("start"), touched("die", "app-web-1.1.1")]
    assert canaries.harmed(events, [life("h1", 0, 9)], frozenset()) == []


@pytest.mark.parametrize("action", ["stop", "kill", "die", "exec_create: sh", "destroy"])
def test_a_canary_that_is_touched_is_found(action: str) -> None:
    assert len(canaries.harmed([touched(action)], [], frozenset())) == 1
    assert canaries.harmed([touched(action)], [], frozenset({"h1"})) == []


def test_a_canary_whose_process_ends_is_found() -> None:
    dead = life("h1", 0, 9, task="canary-plain", slot="canary-plain@h1")
    assert len(canaries.harmed([], [dead], frozenset())) == 1


# ------------------------------------------------------------------------------------ recoveries


def test_recoveries_are_counted_from_the_healing_and_the_worst_is_named() -> None:
    (found,) = recoveries([window(0, 10, 12), window(20, 30, 37), window(40, 50)])
    assert found.seconds == (2.0, 7.0)
    assert found.worst == 7.0
    assert found.unsettled == 1
