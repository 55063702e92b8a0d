"""An agent speaks for its own node only."""

from homeport.lifecycle import TaskState
from homeport.model import Event, NodeId, ServiceId, Task, TaskId, TaskStatus, Volume
from scheduler.cluster.tables import Tables
from scheduler.dispatch import reports

MINE, OTHER = NodeId("n1"), NodeId("n2")


def tables():
    found = Tables()
    for slot, node in ((1, MINE), (2, MINE), (3, OTHER)):
        found.put(Task(service=ServiceId("s"), slot=slot, n=1, node=node, generation=1), slot)
    return found


def status(slot, **fields):
    return TaskStatus(task=TaskId(f"s/{slot}/1"), state=TaskState.RUNNING, **fields)


def test_tasks_of_other_nodes_and_of_no_record_are_not_taken_in():
    heard = reports.hear(tables(), MINE, [status(1), status(3), status(9)], is_complete=False)
    assert [each.task for each in heard.statuses] == ["s/1/1"]
    assert heard.foreign == ("s/3/1", "s/9/1")
    assert heard.missing == ()


def test_a_complete_report_tells_what_the_node_does_not_have():
    heard = reports.hear(tables(), MINE, [status(1)], is_complete=True)
    assert heard.missing == ("s/2/1",)


def test_an_endless_message_is_cut():
    heard = reports.hear(tables(), MINE, [status(1, message="x" * 10**6)], is_complete=False)
    assert len(heard.statuses[0].message) == reports.MESSAGE_MAX


def test_volumes_are_remembered_once_under_the_node_that_reported_them():
    found = tables()
    said = [Volume(stack="s", name="data", node=OTHER), Volume(stack="s", name="a/b", node=MINE)]
    (change,) = reports.volume_changes(found, MINE, said)
    assert change.value == Volume(stack="s", name="data", node=MINE)
    found.put(change.value, 9)
    assert reports.volume_changes(found, MINE, said) == []


def test_events_carry_the_node_that_they_come_from():
    (event,) = reports.events("pi4", [Event(node="forged", sequence=99, message="m" * 9_999)])
    assert (event.node, event.sequence, len(event.message)) == ("pi4", 0, reports.MESSAGE_MAX)
