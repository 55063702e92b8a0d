"""The indexes of the stored objects, as records come, change and go."""

from homeport.model import NodeId, ServiceId, Task, TaskId
from scheduler.cluster import keys
from scheduler.cluster.tables import Tables

WEB = ServiceId("shop-web-1")


def task(slot: int, n: int, node: str = "a", generation: int = 1) -> Task:
    return Task(service=WEB, slot=slot, n=n, node=NodeId(node), generation=generation)


def with_tasks(*tasks: Task) -> Tables:
    tables = Tables()
    for revision, each in enumerate(tasks, 2):
        tables.put(each, revision)
    return tables


def test_a_slot_holds_a_task_and_its_successor_the_oldest_first() -> None:
    old, new, other = task(1, 1), task(1, 2, "b"), task(2, 1)
    tables = with_tasks(new, other, old)
    assert tables.tasks_of_slot(WEB, 1) == [old, new]
    assert tables.tasks_of_slot(WEB, 2) == [other]
    assert tables.tasks_of_slot(WEB, 3) == []
    assert tables.tasks_of_service(WEB) == [old, new, other]
    assert tables.tasks_of_node(NodeId("a")) == [old, other]


def test_what_goes_leaves_the_others_of_its_slot() -> None:
    old, new = task(1, 1), task(1, 2)
    tables = with_tasks(old, new)
    assert tables.drop(keys.key_of(old)) == old
    assert tables.tasks_of_slot(WEB, 1) == [new]
    assert tables.drop(keys.key_of(old)) is None
    assert tables.drop(keys.key_of(new)) == new
    assert tables.tasks_of_slot(WEB, 1) == tables.tasks_of_service(WEB) == []
    assert tables.stored_keys() == []


def test_a_task_that_changes_is_there_once_at_its_new_version() -> None:
    before, after = task(1, 1), task(1, 1, generation=2)
    tables = with_tasks(before)
    assert tables.put(after, 9) == before
    assert tables.tasks_of_slot(WEB, 1) == tables.tasks_of_node(NodeId("a")) == [after]
    assert tables.version(keys.key_of(after)) == 9
    assert tables.created(keys.key_of(after)) == 2
    assert tables.stored_keys() == [keys.key_of(after)]


def test_a_task_that_cannot_be_read_keeps_its_version_and_is_no_task() -> None:
    tables = with_tasks(task(1, 1))
    key = keys.task(TaskId(f"{WEB}/1/1"))
    tables.put_unreadable(key, 5, "of a newer version")
    assert (tables.version(key), tables.stored_keys()) == (5, [key])
    assert tables.tasks_of_slot(WEB, 1) == []
    assert tables.drop(key) is None
    assert tables.version(key) == 0
