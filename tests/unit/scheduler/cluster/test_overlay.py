"""Proposed changes laid over tables give what the tables would give if they were made."""

from dataclasses import replace

from hypothesis import given, strategies as st

from homeport.lifecycle import Desired
from homeport.model import NodeId, ServiceId, Task, Volume
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Delete, Put
from scheduler.cluster.overlay import overlay
from scheduler.cluster.tables import Tables
from tests.builders import node

SERVICES = tuple(ServiceId(name) for name in "ab")
NODES = tuple(NodeId(f"node-{name}") for name in "xyz")

tasks = st.builds(
    Task,
    service=st.sampled_from(SERVICES),
    slot=st.integers(1, 2),
    n=st.integers(1, 2),
    node=st.sampled_from(NODES),
    generation=st.just(1),
    desired=st.sampled_from(Desired),
)
volumes = st.builds(
    Volume, stack=st.just("s"), name=st.sampled_from("vw"), node=st.sampled_from(NODES)
)
nodes = st.builds(node, st.sampled_from("xyz"), st.integers(1, 3))
values = st.one_of(tasks, volumes, nodes)


def change(value, deletes):
    key = keys.key_of(value)
    return Delete(key, 1, "t") if deletes else Put(value, 1, "t")


def tables_of(changes: list[Change]) -> Tables:
    tables = Tables()
    for revision, each in enumerate(changes, start=1):
        if isinstance(each, Put):
            tables.put(each.value, revision)
        elif isinstance(each, Delete):
            tables.drop(each.key)
    return tables


def answers(view):
    """Every answer about tasks, volumes and nodes."""
    yield sorted(view.tasks(), key=lambda task: task.id)
    yield view.nodes()
    for service in SERVICES:
        yield view.tasks_of_service(service)
        for slot in (1, 2):
            yield view.tasks_of_slot(service, slot)
    for each in NODES:
        yield view.node(each)
        yield view.node_named(each.removeprefix("node-"))
        yield view.tasks_of_node(each)
        yield view.volumes_of_node(each)
    for name in "vw":
        yield view.volumes_of("s", name)
    for task in sorted(task.id for task in view.tasks()):
        yield view.task(task)


@given(st.lists(values, max_size=8), st.lists(st.tuples(values, st.booleans()), max_size=6))
def test_an_overlay_is_what_the_tables_would_be(given_values, proposed):
    before: list[Change] = [Put(value, 0, "t") for value in given_values]
    changes = [change(*each) for each in proposed]
    base = tables_of(before)
    untouched = list(answers(base))
    over = overlay(base, changes)
    assert list(answers(over)) == list(answers(tables_of([*before, *changes])))
    assert list(answers(base)) == untouched


def test_a_change_of_a_task_is_seen_among_those_of_its_service_and_slot():
    old = Task(service=SERVICES[0], slot=1, n=1, node=NODES[0], generation=1)
    other = replace(old, slot=2)
    base = tables_of([Put(old, 0, "t"), Put(other, 0, "t")])
    over = overlay(base, [Delete(keys.task(old.id), 1, "t")])
    assert over.tasks_of_service(old.service) == [other]
    assert over.tasks_of_slot(old.service, 1) == []
