"""What is said to make a task fit makes it fit, and saying it changes nothing."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings, strategies as st

from homeport.model import Availability, Inventory, MachineDevice, Node, NodeId, TaskId
from homeport.spec import Constraint, ConstraintOperator, DeviceNeed, Neighbour, Resources, pairs
from scheduler.placement import filters, fixes, reference, remedies
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet
from scheduler.placement.remedy import Kind, Leave, Occupant, Renode, Respec, Surroundings
from scheduler.placement.requirements import HostPort, Requirements
from tests.unit.scheduler.placement.test_equal import (
    VOLUMES,
    batches,
    classes,
    maybe,
    nodes,
    number,
    states,
)

CASES = 60
MIB = 1 << 20


def occupants_of(fleet, asks):
    """The last slot of each service, as its operator could have it leave."""
    last = {}
    for ask in asks:
        if ask.task in fleet.held and ask.only is None:
            known = last.get(ask.service)
            last[ask.service] = ask if known is None or ask.slot > known.slot else known

    where = {ask.task: fleet.held[ask.task].node for ask in last.values()}

    def on(node):
        return [
            Occupant(
                task=ask.task,
                name=f"{ask.name}.{ask.slot}",
                service=ask.name,
                replicas=ask.slot,
                priority=ask.priority,
                again=None if ask.needs.volumes else replace(ask, n=ask.n + 1),
            )
            for ask in last.values()
            if where[ask.task] == node
        ]

    return on


def applied(fleet, ask, steps):
    """The steps on a copy, the plain way: (the copy, the ask, what is placed anew)."""
    copy, again = fleet.copy(), []
    for step in steps:
        match step:
            case Respec(changed):
                ask = changed
            case Renode(node=node, ready=ready, unfit=unfit, unfenced=unfenced):
                copy.node_changed(node, ready=ready, unfit=unfit, unfenced=unfenced)
            case Leave(task, back):
                copy.task_removed(task)
                again += [back] if back is not None else []
    return copy, ask, again


@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_every_remedy_makes_the_task_fit_and_leaves_the_fleet_alone(data):
    draw = data.draw
    fleet, records = Fleet(), {}
    for which in range(draw(number(0, 6))):
        record = records[NodeId(f"id-n{which}")] = draw(nodes(which))
        fleet.node_changed(record, **draw(states))
    kinds = [(f"shop-{name}-1", draw(classes)) for name in ("web", "db", "web2")]
    for volume in VOLUMES:
        if records and draw(maybe(st.booleans(), False)):
            fleet.volume_added(volume, draw(st.sampled_from(sorted(records))))
    tried(fleet, records, draw(batches(kinds)), draw(classes))


small = st.builds(
    Requirements,
    cpu_millis=st.sampled_from((0, 300, 700)),
    memory_bytes=st.sampled_from((100 * MIB, 250 * MIB, 400 * MIB)),
    ports=maybe(st.just((HostPort(published=80),)), ()),
    tasks_per_node_max=maybe(st.just(1), 0),
    neighbours=maybe(
        st.sampled_from(("shop/a", "shop/b")).map(
            lambda name: (Neighbour(service=name, apart=True),)
        ),
        (),
    ),
)


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.sampled_from((300, 500, 700)), min_size=1, max_size=4),
    wanted=st.lists(small, min_size=3, max_size=7),
    wants=small,
)
def test_every_remedy_of_a_full_cluster_makes_the_task_fit(sizes, wanted, wants):
    records = [node(f"n{which}", memory=size, cpu=1500) for which, size in enumerate(sizes)]
    fleet, known = cluster(*records)
    batch = [replace(ask_for("abcdefg"[which]), needs=needs) for which, needs in enumerate(wanted)]
    tried(fleet, known, batch, wants)


DEVICES = (
    MachineDevice(id="/dev/ttyUSB0", kind="serial", names=("/dev/ttyUSB0",)),
    MachineDevice(id="/dev/ttyUSB1", kind="serial", names=("/dev/ttyUSB1",)),
    MachineDevice(id="GPU-1", kind="gpu", vendor="nvidia", model="T4", names=("GPU-1",)),
    MachineDevice(id="GPU-2", kind="gpu", vendor="nvidia", model="A100", names=("GPU-2",)),
    MachineDevice(id="coral", kind="tpu", names=("coral",)),
)
device_needs = st.lists(
    st.sampled_from(
        (
            DeviceNeed(kind="serial"),
            DeviceNeed(kind="serial", count=2),
            DeviceNeed(name="/dev/ttyUSB0"),
            DeviceNeed(kind="gpu", share_millis=400),
            DeviceNeed(kind="gpu", models=("t*", "l4")),
            DeviceNeed(kind="gpu", vendor="nvidia", count=-1),
            DeviceNeed(kind="gpu", vendor="amd", count=2),
            DeviceNeed(kind="tpu", share_millis=0),
        )
    ),
    min_size=1,
    max_size=2,
).map(tuple)


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    there=st.lists(
        st.lists(st.sampled_from(DEVICES), unique=True, max_size=4).map(tuple), max_size=3
    ),
    wanted=st.lists(device_needs, max_size=5),
    wants=device_needs,
)
def test_every_remedy_of_what_needs_devices_makes_it_fit(there, wanted, wants):
    records = []
    for which, had in enumerate(there):
        plain = node(f"n{which}", memory=100)
        inventory = replace(plain.inventory, devices=had, device_patterns=("/dev/ttyUSB*",))
        records.append(replace(plain, inventory=inventory))
    fleet, known = cluster(*records)
    batch = [ask_for("abcde"[which], devices=needs) for which, needs in enumerate(wanted)]
    tried(fleet, known, batch, Requirements(devices=wants))


def tried(fleet, records, batch, wants):
    """Place the batch, and try each remedy of what finds no node on a copy, the plain way."""
    waiting = [each.ask for each in reference.place(fleet, batch) if not isinstance(each, Placed)]
    more = Ask(service="shop-x-1", slot=1, n=1, generation=1, needs=wants, name="shop/x")
    for ask in ({each.kind: each for each in waiting} | {more.kind: more}).values():
        fits = reference.is_placeable(fleet, ask)
        before = fleet.copy()
        around = Surroundings(
            nodes=records, occupants=occupants_of(fleet, batch), rivals=waiting[:10]
        )
        found = remedies.find(fleet, ask, around)
        assert fleet == before
        if ask.only is None:
            assert not (fits and found), "what fits needs no remedy"
        assert len(found) <= remedies.REMEDIES_MAX
        for remedy in found:
            event(f"{remedy.kind.name}, steps: {len(remedy.steps)}")
            assert remedy.message
            copy, changed, again = applied(fleet, ask, remedy.steps)
            first = [
                each
                for each in waiting[:10]
                if each.service != ask.service and each.order < changed.order
            ]
            answers = reference.place(copy, [*first, changed])
            (answer,) = (each for each in answers if each.ask is changed)
            assert isinstance(answer, Placed), remedy
            assert copy.candidates[answer.node].name == remedy.node
            for each in again:
                (moved,) = reference.place(copy, [each])
                assert isinstance(moved, Placed), remedy


def node(name, *, memory=0, cpu=4000, **fields):
    inventory = Inventory(
        hostname=name,
        os="linux",
        architecture="x86_64",
        capacity=Resources(cpu_millis=cpu, memory_bytes=memory * MIB),
        drivers=("DOCKER",),
    )
    return Node(id=NodeId(name), name=name, number=1, inventory=inventory, **fields)


def cluster(*records):
    fleet = Fleet()
    for each in records:
        fleet.node_changed(each, ready=True)
    return fleet, {each.id: each for each in records}


def ask_for(service="web", *, n=1, **needs):
    return Ask(
        service=f"shop-{service}-1",
        slot=1,
        n=n,
        generation=1,
        needs=Requirements(**needs),
        name=f"shop/{service}",
    )


def found(fleet, records, ask, *others):
    """What is found; `others` are in the fleet, and may leave."""
    around = Surroundings(nodes=records, occupants=occupants_of(fleet, others))
    return remedies.find(fleet, ask, around)


def test_the_smallest_change_comes_first_and_each_sort_once():
    fleet, records = cluster(
        node("a", memory=100),
        node("b", memory=400),
        node("c", memory=500, availability=Availability.PAUSE),
        node("d", memory=480),
    )
    holder = ask_for("db", memory_bytes=200 * MIB)
    fleet.task_added(holder.task, holder.on(NodeId("d")))
    answer = found(fleet, records, ask_for(memory_bytes=450 * MIB), holder)
    assert [(each.kind, each.node, each.message) for each in answer] == [
        (
            Kind.RESERVE_LESS,
            "b",
            "reserve at most 400 MiB of memory, 50 MiB less"
            " (deploy.resources.reservations.memory: 400M); then it fits b",
        ),
        (Kind.CHANGE_NODE, "c", "let c, which is paused, take new tasks again"),
        (Kind.MOVE, "d", "move shop/db.1 from d to b"),
        (Kind.CHANGE_NODE, "b", "let 1.13 times the memory of b be reserved"),
        (Kind.STOP, "d", "stop shop/db.1 on d"),
    ]
    assert answer[2].commands == (
        "homeport scale shop/db=0",
        "homeport wait shop/web --timeout 60",
        "homeport scale shop/db=1",
    )


def test_a_task_that_could_go_nowhere_else_is_not_said_to_move():
    fleet, records = cluster(node("a", memory=500), node("b", memory=100))
    holder = ask_for("db", memory_bytes=200 * MIB)
    fleet.task_added(holder.task, holder.on(NodeId("a")))
    answer = found(fleet, records, ask_for(memory_bytes=450 * MIB), holder)
    assert Kind.MOVE not in [each.kind for each in answer]
    assert Kind.STOP in [each.kind for each in answer]


def test_the_task_whose_loss_harms_least_is_stopped():
    fleet, records = cluster(node("a", memory=500))
    needs = {"memory_bytes": 240 * MIB}
    dear = replace(ask_for("db", **needs), priority=5)
    cheap = ask_for("cache", **needs)
    for each in (dear, cheap):
        fleet.task_added(each.task, each.on(NodeId("a")))
    answer = found(fleet, records, ask_for(memory_bytes=200 * MIB), dear, cheap)
    stopped = [each.message for each in answer if each.kind is Kind.STOP]
    assert stopped == ["stop shop/cache.1 on a"]


def test_two_changes_are_joined_where_one_does_not_suffice():
    paused = node("a", memory=100, availability=Availability.PAUSE)
    fleet, records = cluster(paused)
    answer = found(fleet, records, ask_for(memory_bytes=150 * MIB))
    assert answer[0].message == (
        "let a, which is paused, take new tasks again (homeport uncordon a), and reserve at most"
        " 100 MiB of memory, 50 MiB less (deploy.resources.reservations.memory: 100M)"
    )
    assert answer[0].commands == (), "the file has to change too"
    assert answer[1].commands == (
        "homeport uncordon a",
        "homeport node update a --overcommit memory=1.5",
    )


def test_where_nothing_helps_a_node_is_asked_for_with_what_it_would_have():
    fleet, records = cluster(node("a", memory=100))
    ask = ask_for(memory_bytes=2048 * MIB, cpu_millis=1000, architecture="arm64", os="linux")
    assert found(fleet, records, replace(ask, excluded=(NodeId("a"),)))[-1].message == (
        "add a node with the platform linux/arm64, a container engine, 1 CPU and 2 GiB of memory"
    )
    assert found(Fleet(), {}, ask)[0].kind is Kind.ADD


def test_what_belongs_to_a_node_that_is_full_looks_at_that_one_alone():
    fleet, records = cluster(node("a", memory=100), node("b", memory=140))
    ask = replace(ask_for(memory_bytes=150 * MIB), only=NodeId("a"))
    answer = found(fleet, records, ask)
    assert {each.node for each in answer} == {"a"}
    assert Kind.ADD not in [each.kind for each in answer]


@pytest.mark.parametrize(
    ("operator", "value", "label"),
    [
        ("EQ", "ssd", "disk=ssd"),
        ("EXISTS", "", "disk=yes"),
        ("LESS", "15.5", "disk=14.5"),
        ("GREATER", "4", "disk=5"),
    ],
)
def test_a_node_that_is_missing_has_the_label_that_is_asked_for(operator, value, label):
    constraint = Constraint(
        key="node.labels.disk", operator=ConstraintOperator[operator], value=value
    )
    (add,) = found(Fleet(), {}, ask_for(constraints=(constraint,)))
    assert add.message == f"add a node with a container engine and the label {label}"


def test_no_node_is_made_up_for_a_constraint_by_pattern():
    matches = Constraint(
        key="node.labels.disk", operator=ConstraintOperator.MATCHES, value="[a-f]+"
    )
    assert found(Fleet(), {}, ask_for(constraints=(matches,))) == ()


def test_names_that_a_shell_would_split_are_quoted():
    odd = node("my node", memory=100, availability=Availability.PAUSE)
    (remedy, *_) = found(*cluster(odd), ask_for())
    assert remedy.commands == ("homeport uncordon 'my node'",)


@pytest.mark.parametrize("count", [40])
def test_in_a_large_cluster_the_nodes_that_fail_least_are_tried(count):
    paused = [
        node(f"n{which:02}", memory=10, availability=Availability.PAUSE) for which in range(count)
    ]
    fleet, records = cluster(*paused, node("z", memory=499))
    answer = found(fleet, records, ask_for(memory_bytes=500 * MIB))
    assert answer[0].node == "z"


def test_a_rule_without_a_fix_is_one_of_those_that_no_change_is_known_for():
    known = {name for name in filters.ALL if fixes.has_any(name)}
    assert set(filters.ALL) - known == {"node", "bind-source", "driver", "volume", "excluded"}


def test_what_another_waiting_task_would_take_first_is_not_said_to_help():
    fleet, records = cluster(
        node("a", memory=500, availability=Availability.PAUSE), node("b", memory=250)
    )
    ask, rival = ask_for(memory_bytes=300 * MIB), ask_for("big", memory_bytes=400 * MIB)

    def said(*rivals):
        around = Surroundings(nodes=records, occupants=lambda _: (), rivals=rivals)
        return remedies.find(fleet, ask, around)

    assert [each.node for each in said()[:2]] == ["b", "a"]
    assert said()[1].commands == ("homeport uncordon a",)
    assert all(each.node != "a" for each in said(rival))
    later = ask_for("small", memory_bytes=290 * MIB)
    assert said(later) == said(), "what is decided later takes nothing away"


def test_occupants_that_are_gone_meanwhile_are_left_out():
    fleet, records = cluster(node("a", memory=100))
    gone = Occupant(task=TaskId("shop-db-1/1/1"), name="shop/db.1", service="shop/db", replicas=1)
    around = Surroundings(nodes=records, occupants=lambda _: [gone])
    ask = ask_for(memory_bytes=150 * MIB)
    assert Kind.STOP not in [each.kind for each in remedies.find(fleet, ask, around)]


def test_a_label_that_is_missing_is_named_with_its_command():
    constraint = Constraint(key="node.labels.disk", operator=ConstraintOperator.EQ, value="ssd")
    labelled = node("b", memory=100, labels=pairs({"disk": "hdd"}))
    answer = found(*cluster(node("a"), labelled), ask_for(constraints=(constraint,)))
    assert answer[0].commands == ("homeport node update a --label disk=ssd",)
    assert all("--label" not in " ".join(each.commands) for each in answer[1:])
