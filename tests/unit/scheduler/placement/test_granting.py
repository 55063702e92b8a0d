"""Devices: which of them a task gets, that the fleet counts them, and that the engine does as the
reference does with GPUs, whole and shared."""

from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from homeport import devices
from homeport.model import Grant, Inventory, MachineDevice, Node, NodeId, ServiceId
from homeport.spec import DeviceNeed, Resources, Strategy
from scheduler.placement import engine, filters, fragmentation, granting, reference
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.candidates import blank
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements

GIB = 1 << 30


def gpu(which, model="T4"):
    return MachineDevice(
        id=f"GPU-{which}",
        kind="gpu",
        names=(f"GPU-{which}", str(which)),
        vendor="nvidia",
        model=model,
    )


def stick(which):
    path = f"/dev/ttyUSB{which}"
    return MachineDevice(id=path, kind="serial", names=(path,), vendor="ftdi")


def node(name, *there, cpu=16_000, memory=64 * GIB, patterns=("/dev/ttyUSB*",)):
    return Node(
        id=NodeId(name),
        name=name,
        number=1,
        inventory=Inventory(
            hostname=name,
            os="linux",
            architecture="x86_64",
            capacity=Resources(cpu_millis=cpu, memory_bytes=memory),
            drivers=("DOCKER",),
            devices=there,
            device_patterns=patterns,
        ),
    )


def candidate(*there, taken=None, **fields):
    found = blank(NodeId("n"))
    found.describe(node("n", *there, **fields), ready=True, unfit="", unfenced="")
    found.granted = dict(taken or {})
    return found


def fleet(*nodes):
    result = Fleet()
    for each in nodes:
        result.node_changed(each, ready=True)
    return result


def asks(*needs, cpu=0, memory=0, **fields):
    return Requirements(cpu_millis=cpu, memory_bytes=memory, devices=needs, **fields)


def ask(service, needs):
    return Ask(service=ServiceId(service), slot=1, n=1, generation=1, needs=needs)


def need(**what):
    return DeviceNeed(kind="gpu", **what)


def given_to(needs, *there, taken=None, **fields):
    found = granting.grants(asks(*needs), candidate(*there, taken=taken, **fields))
    return None if found is None else [(each.device, each.need) for each in found]


STICK = DeviceNeed(name="/dev/ttyUSB0")


@pytest.mark.parametrize(
    ("needs", "taken", "expected"),
    [
        pytest.param([need()], {}, [("GPU-0", 0)], id="a GPU: the first"),
        pytest.param([need()], {"GPU-0": 10}, [("GPU-1", 0)], id="a whole one, and one is shared"),
        pytest.param([need(count=2)], {"GPU-0": 10}, None, id="two, and one is shared"),
        pytest.param([need(count=-1)], {}, [("GPU-0", 0), ("GPU-1", 0)], id="all of them"),
        pytest.param([need(count=-1)], {"GPU-1": 10}, None, id="all, and one is in use"),
        pytest.param([need(share_millis=500)], {"GPU-1": 500}, [("GPU-1", 0)], id="a part fits"),
        pytest.param(
            [need(share_millis=600)], {"GPU-0": 500, "GPU-1": 500}, None, id="parts do not add up"
        ),
        pytest.param([need(name="GPU-1")], {}, [("GPU-1", 0)], id="that one"),
        pytest.param([need(name="GPU-1")], {"GPU-1": 1}, None, id="that one, and it is in use"),
        pytest.param(
            [need(), need(name="GPU-0")],
            {},
            [("GPU-1", 0), ("GPU-0", 1)],
            id="who can choose leaves that one to who cannot",
        ),
        pytest.param([need(), need(count=2)], {}, None, id="three of two"),
        pytest.param([STICK], {}, [("/dev/ttyUSB0", 0)], id="a stick"),
        pytest.param([STICK], {"/dev/ttyUSB0": 1000}, None, id="a stick that is taken"),
        pytest.param(
            [DeviceNeed(name="/dev/ttyUSB0", share_millis=0)],
            {"/dev/ttyUSB0": 1000},
            [("/dev/ttyUSB0", 0)],
            id="beside others",
        ),
        pytest.param([DeviceNeed(name="/dev/ttyUSB7")], {}, None, id="it would be listed"),
        pytest.param([DeviceNeed(name="/dev/fuse")], {}, [], id="a path that is not listed"),
        pytest.param([need(models=("A*",))], {}, None, id="no such model"),
    ],
)
def test_a_task_gets(needs, taken, expected):
    assert given_to(needs, gpu(0), gpu(1), stick(0), taken=taken) == expected


def test_a_refusal_says_what_was_needed_and_had():
    one = candidate(gpu(0), gpu(1), taken={"GPU-0": 300})
    assert granting.lacking(asks(need(count=2, vendor="nvidia")), one) == ("2 nvidia gpu", "1")
    assert granting.lacking(asks(need(models=("A2",))), one) == ("gpu A2", "0")
    assert granting.lacking(asks(need(share_millis=800), need()), one) == (
        "800/1000 of gpu, gpu",
        "not all at once",
    )
    assert granting.lacking(asks(need(share_millis=800)), one) is None
    assert granting.lacking(asks(), one) is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(need(count=2), None, id="two that are taken"),
        pytest.param(need(count=3), ("3 gpu", "2"), id="three of two"),
        pytest.param(need(count=-1, vendor="amd"), ("all amd gpu", "0"), id="all of none"),
        pytest.param(need(models=("A2",)), ("gpu A2", "0"), id="another model"),
        pytest.param(DeviceNeed(name="/dev/ttyUSB7"), ("/dev/ttyUSB7", "0"), id="a path"),
        pytest.param(DeviceNeed(name="/dev/fuse"), None, id="a path that would not be listed"),
    ],
)
def test_a_node_has_such_devices_or_not_taken_or_not(wanted, expected):
    there = candidate(gpu(0), gpu(1), taken={"GPU-0": 1000, "GPU-1": 1000})
    assert granting.missing(asks(wanted), there) == expected


def test_a_global_service_is_for_nodes_that_have_the_device():
    there = fleet(node("a", gpu(0)), node("b"))
    engine.place(there, [ask("s", asks(need()))])
    eligible = [
        each.name
        for each in there.by_name()
        if filters.is_eligible(there, ask("all", asks(need())), each)
    ]
    assert eligible == ["a"]


# ---------------------------------------------------------------- brute force

shares = st.sampled_from((0, 1, 300, 500, 1000))
needs_of_any = st.builds(
    DeviceNeed,
    kind=st.sampled_from(("gpu", "gpu", "")),
    name=st.sampled_from(("", "", "GPU-0", "1")),
    models=st.sampled_from(((), (), ("T4",))),
    count=st.just(1),
    share_millis=shares,
)


@given(
    st.lists(needs_of_any, min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(("T4", "A2")), shares), min_size=1, max_size=3),
)
def test_a_task_is_refused_only_where_nothing_would_do(needs, there):
    """Every way to give each need one device is tried."""
    machines = [gpu(which, model) for which, (model, _) in enumerate(there)]
    taken = {f"GPU-{which}": share for which, (_, share) in enumerate(there) if share}
    here = candidate(*machines, taken=taken)

    def is_good(choice):
        left = {each.id: 1000 - taken.get(each.id, 0) for each in machines}
        for wanted, device in zip(needs, choice, strict=True):
            left[device.id] -= wanted.share_millis
        return min(left.values()) >= 0 and all(
            devices.matches(wanted, device) for wanted, device in zip(needs, choice, strict=True)
        )

    ways = [choice for choice in product(machines, repeat=len(needs)) if is_good(choice)]
    found = granting.grants(asks(*needs), here)
    assert (found is not None) == bool(ways)
    assert (granting.lacking(asks(*needs), here) is None) == bool(ways)
    if found is not None:
        chosen = {each.need: each.device for each in found}
        assert [chosen[which] for which in range(len(needs))] in [
            [device.id for device in way] for way in ways
        ]


# ---------------------------------------------------------------- fleet and engine


def test_the_fleet_counts_what_is_granted_and_takes_it_back():
    there, before = fleet(node("a", gpu(0))), fleet(node("a", gpu(0)))
    (placed,) = engine.place(there, [ask("s", asks(need(share_millis=700)))])
    assert placed.grants == (Grant(device="GPU-0", need=0, share_millis=700),)
    assert there.candidates[NodeId("a")].granted == {"GPU-0": 700}
    assert there != before

    (refused,) = engine.place(there, [ask("t", asks(need(share_millis=400)))])
    (why,) = refused.refusals
    assert (why.rule, why.needed, why.had) == ("device-free", "400/1000 of gpu", "0")

    engine.undo(there, placed)
    assert there == before
    assert there.census.mix() == ()


def test_grants_outlive_a_node_without_a_record():
    there, a = fleet(node("a", gpu(0))), NodeId("a")
    engine.place(there, [ask("s", asks(need()))])
    there.node_removed(a)
    there.node_changed(node("a", gpu(0)), ready=True)
    assert there.candidates[a].granted == {"GPU-0": 1000}
    copied = there.copy()
    assert copied == there
    copied.task_removed(ask("s", asks(need())).task)
    assert copied.candidates[a].granted == {}
    assert there.candidates[a].granted == {"GPU-0": 1000}


def test_a_task_without_gpu_leaves_the_cpu_of_gpus_alone():
    """Two nodes with equal room: it goes where no GPU is stranded by it."""
    there = fleet(
        node("a", gpu(0), gpu(1), cpu=8000), node("b", cpu=8000), node("c", gpu(0), cpu=4000)
    )
    (first,) = engine.place(there, [ask("gpu", asks(need(), cpu=4000))])
    assert first.node == "c"
    (second,) = engine.place(there, [ask("web", asks(cpu=1000))])
    assert second.node == "b"


models = st.sampled_from(("T4", "A2"))
machines = st.builds(
    lambda models_, cpu, memory: (models_, cpu, memory),
    st.lists(models, max_size=4),
    st.sampled_from((4000, 16_000)),
    st.sampled_from((8, 64)),
)
classes = st.builds(
    lambda count, share, models_, cpu, memory, strategy: asks(
        *([need(count=count, share_millis=share, models=models_)] if count else []),
        cpu=cpu,
        memory=memory * GIB,
        strategy=strategy,
    ),
    st.sampled_from((0, 1, 1, 1, 2, -1)),
    st.sampled_from((1000, 1000, 300, 500, 700)),
    st.sampled_from(((), (), ("T4",))),
    st.sampled_from((0, 1000, 4000)),
    st.sampled_from((0, 4)),
    st.sampled_from((None, Strategy.BINPACK)),
)


@given(
    st.lists(machines, min_size=1, max_size=5),
    st.lists(st.tuples(classes, st.booleans()), min_size=1, max_size=15),
)
@settings(deadline=None, max_examples=50)
def test_the_engine_does_as_the_reference_does(there, wanted):
    """One fleet is asked through the reference, the other through the engine, ask after ask."""
    records = [
        node(f"n{which}", *map(gpu, range(len(each)), each), cpu=cpu, memory=memory * GIB)
        for which, (each, cpu, memory) in enumerate(there)
    ]
    readable, fast = fleet(*records), fleet(*records)
    placed = []
    for which, (needs, goes) in enumerate(wanted):
        batch = [ask(f"s{which}", needs)]
        expected = reference.place(readable, batch)
        assert engine.place(fast, batch) == expected
        assert fast == readable
        placed += [each for each in expected if isinstance(each, Placed)]
        if goes and placed:
            gone = placed.pop(0).ask.task
            readable.task_removed(gone)
            fast.task_removed(gone)
    for each in fast.candidates.values():
        assert all(0 < share <= 1000 for share in each.granted.values())


@given(
    st.lists(machines, min_size=1, max_size=5),
    st.lists(st.tuples(classes, st.integers(1, 20)), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_batches_give_what_the_reference_gives(there, wanted):
    records = [
        node(f"n{which}", *map(gpu, range(len(each)), each), cpu=cpu, memory=memory * GIB)
        for which, (each, cpu, memory) in enumerate(there)
    ]
    readable, fast = fleet(*records), fleet(*records)
    batch = [
        Ask(service=ServiceId(f"s{which}"), slot=slot + 1, n=1, generation=1, needs=needs)
        for which, (needs, count) in enumerate(wanted)
        for slot in range(count)
    ]
    assert engine.place(fast, batch) == reference.place(readable, batch)
    assert fast == readable


def test_what_a_fleet_holds_decides_what_is_typical():
    there = fleet(node("a", gpu(0), gpu(1), gpu(2), gpu(3), cpu=100_000))
    for which in range(3):
        engine.place(there, [ask(f"s{which}", asks(need(share_millis=300), cpu=1000))])
    (one,) = there.census.mix()
    assert (one.cpu_millis, one.need.share_millis, one.weight) == (1000, 300, 64)
    assert isinstance(engine.place(there, [ask("x", asks(need(count=9)))])[0], Unplaced)
    assert there.census.mix() == (one,)
    assert fragmentation.stranded(there.census.mix(), granting.room_of(there.candidates["a"])) > 0
