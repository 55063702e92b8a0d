"""What an operator's word writes about a node and about a restored store."""

from dataclasses import replace

from homeport.model import (
    Availability,
    Cluster,
    Node,
    NodeId,
    Overcommit,
    Rebalancing,
    Service,
    ServiceId,
    Taint,
    Task,
    Volume,
)
from homeport.spec import Mode, Strategy, TaintEffect, pairs
from scheduler.api import wishes
from scheduler.api.wishes import NodeWish
from scheduler.cluster import keys
from scheduler.cluster.changes import Delete
from scheduler.cluster.observed import Doubt
from scheduler.cluster.tables import Tables


def test_a_node_is_cordoned_and_labelled_by_its_operator_only():
    tables = Tables()
    node = Node(id=NodeId("n1"), name="pi", number=1, labels=pairs({"a": "1", "b": "2"}))
    tables.put(node, 3)
    wish = NodeWish(
        availability=Availability.PAUSE, set_labels=pairs({"c": "3"}), remove_labels=["a"]
    )
    (change,) = wishes.node(tables, node, wish)
    assert change.expect == 3
    assert change.value == replace(
        node, availability=Availability.PAUSE, labels=pairs({"b": "2", "c": "3"})
    )
    assert wishes.node(tables, node, NodeWish(remove_labels=["nope"])) == []


def test_the_first_word_that_a_node_is_off_counts():
    tables = Tables()
    node = Node(id=NodeId("n1"), name="pi", number=1)
    tables.put(node, 3)
    (change,) = wishes.node(tables, node, NodeWish(lost_ms=7))
    assert change.value.lost_ms == 7
    assert wishes.node(tables, change.value, NodeWish(lost_ms=9)) == []


def test_a_taint_takes_the_place_of_one_with_its_key():
    tables = Tables()
    node = Node(id=NodeId("n1"), name="pi", number=1, taints=(Taint(key="gpu"), Taint(key="old")))
    tables.put(node, 3)
    evicting = Taint(key="gpu", value="yes", effect=TaintEffect.EVICT)
    fresh = Taint(key="a")
    wish = NodeWish(set_taints=[evicting, fresh], remove_taints=["old", "nope"])
    (change,) = wishes.node(tables, node, wish)
    assert change.value.taints == (fresh, evicting)
    assert wishes.node(tables, change.value, wish) == []


def test_overcommit_and_resources_change_by_what_is_said_of_them():
    tables = Tables()
    node = Node(
        id=NodeId("n1"),
        name="pi",
        number=1,
        overcommit=Overcommit(memory_percent=150),
        generic=pairs({"tuner": "2", "licence": "1"}),
    )
    tables.put(node, 3)
    wish = NodeWish(
        cpu_percent=200, set_resources=pairs({"tuner": "4"}), remove_resources=["licence"]
    )
    (change,) = wishes.node(tables, node, wish)
    assert change.value.overcommit == Overcommit(cpu_percent=200, memory_percent=150)
    assert change.value.generic == (("tuner", "4"),)


def test_the_strategy_of_the_cluster():
    tables = Tables()
    cluster = Cluster(id="c")
    tables.put(cluster, 5)
    (change,) = wishes.cluster(tables, cluster, Strategy.BINPACK)
    assert (change.value, change.expect) == (replace(cluster, strategy=Strategy.BINPACK), 5)
    assert wishes.cluster(tables, cluster, None) == []
    assert wishes.cluster(tables, cluster, Strategy.SPREAD) == []


def test_who_begins_moves_and_how_many_is_said_apart():
    tables = Tables()
    cluster = Cluster(id="c", strategy=Strategy.BINPACK)
    tables.put(cluster, 5)
    automatic = Rebalancing.AUTOMATIC
    (change,) = wishes.cluster(tables, cluster, None, automatic)
    assert change.value == replace(cluster, rebalancing=automatic)
    (change,) = wishes.cluster(tables, cluster, None, None, 9)
    assert change.value == replace(cluster, moves_per_hour=9)
    assert wishes.cluster(tables, cluster, None, Rebalancing.MANUAL, 4) == []


def test_forgetting_a_node_takes_its_tasks_and_volumes_first():
    tables = Tables()
    node = Node(id=NodeId("n"), name="pi", number=1)
    task = Task(service=ServiceId("s-web-1"), slot=1, n=1, node=node.id, generation=1)
    elsewhere = replace(task, slot=2, node=NodeId("other"))
    volume = Volume(stack="s", name="data", node=node.id)
    for revision, value in enumerate((node, task, elsewhere, volume), 1):
        tables.put(value, revision)
    belongings, heads, tasks = wishes.forget(tables, node)
    assert tasks == [task]
    gone = [(type(change), change.key, change.expect) for change in belongings]
    assert gone == [(Delete, keys.task(task.id), 2), (Delete, keys.key_of(volume), 4)]
    assert [(change.key, change.expect) for change in heads] == [(keys.node(node.id), 1)]


def test_an_accepted_restore_begins_an_incarnation_that_no_agent_has_seen():
    tables = Tables()
    cluster = Cluster(id="c", incarnation=2)
    tables.put(cluster, 1)
    service = Service(id=ServiceId("s-web-1"), stack="s", name="web", mode=Mode.REPLICATED)
    tables.put(service, 2)
    tables.put(Task(service=service.id, slot=1, n=5, node=NodeId("n"), generation=1), 3)
    (skipped,), record = wishes.accept_restore(tables, cluster, doubt=None)
    assert record.value == replace(cluster, incarnation=3)
    assert skipped.key == keys.service(service.id)
    assert skipped.value != service  # the numbers of its next tasks jump
    doubt = Doubt(incarnation=8, since=0.0, why="an agent has seen more")
    _, record = wishes.accept_restore(tables, cluster, doubt=doubt)
    assert record.value.incarnation == 9
