"""The greedy reference: which node wins, in which order, and that the fleet keeps up."""

from dataclasses import replace

from hypothesis import given, settings, strategies as st

from homeport.lifecycle import TaskState
from homeport.model import Availability, NodeState, Outcome, Task, TaskId, Volume
from homeport.spec import Mode, PlacementSpec, VolumeSpec, pairs
from scheduler.cluster import keys
from scheduler.placement import engine, scores
from scheduler.placement.asks import Ask, Placed, Unplaced
from scheduler.placement.fleet import Fleet, requirements_of
from tests.builders import GIB, World, spec, volume_mount, world_of


def ask(world, service, slot=1, **fields):
    generation = world.tables.service(service).generation
    return Ask(
        service=service,
        slot=slot,
        n=1,
        generation=generation,
        needs=requirements_of(world.tables, service, generation),
        **fields,
    )


def test_ties_go_to_the_lowest_name():
    world = world_of("c", "a", "b")
    assert engine.place(world.fleet, [ask(world, world.apply(spec("web")))])[0].node == "node-a"


def test_nothing_asked_is_nothing_answered():
    assert engine.place(world_of("a").fleet, []) == []


def test_tasks_of_a_service_spread_over_nodes():
    world = world_of("a", "b", "c")
    service = world.apply(spec("web"))
    placed = engine.place(world.fleet, [ask(world, service, slot) for slot in range(1, 7)])
    nodes = [each.node for each in placed]
    assert nodes == ["node-a", "node-b", "node-c"] * 2


def test_a_spread_preference_comes_before_the_spread_over_nodes():
    world = World()
    for name, zone in (("a", "east"), ("b", "east"), ("c", "east"), ("d", "west")):
        world.add_node(name, labels={"zone": zone})
    service = world.apply(spec("web", placement=PlacementSpec(spread=("node.labels.zone",))))
    placed = engine.place(world.fleet, [ask(world, service, slot) for slot in range(1, 7)])
    west = [each.node for each in placed if each.node == "node-d"]
    assert len(west) == 3


def test_the_emptier_node_wins_by_what_is_reserved():
    world = world_of("a", "b")
    engine.place(world.fleet, [ask(world, world.apply(spec("x", memory=GIB)))])
    assert engine.place(world.fleet, [ask(world, world.apply(spec("y")))])[0].node == "node-b"


def test_tasks_that_reserve_nothing_spread_too():
    world = world_of("a", "b", "c")
    nodes = [
        engine.place(world.fleet, [ask(world, world.apply(spec(f"s{number}")))])[0].node
        for number in range(6)
    ]
    assert sorted(nodes) == ["node-a", "node-a", "node-b", "node-b", "node-c", "node-c"]


def test_priority_decides_who_gets_the_last_room():
    world = world_of("a", memory=GIB)
    low = world.apply(spec("a-low", memory=GIB))
    high = world.apply(spec("z-high", memory=GIB))
    answers = engine.place(world.fleet, [ask(world, low), ask(world, high, priority=1)])
    assert [type(each) for each in answers] == [Placed, Unplaced]
    assert answers[0].ask.service == high


def test_of_one_priority_the_largest_is_placed_first():
    world = world_of("a", memory=3 * GIB)
    small = world.apply(spec("a-small", memory=GIB))
    large = world.apply(spec("z-large", memory=3 * GIB))
    answers = engine.place(world.fleet, [ask(world, small), ask(world, large)])
    assert [each.ask.service for each in answers] == [large, small]
    assert isinstance(answers[0], Placed)


def test_an_excluded_node_is_avoided():
    world = world_of("a", "b")
    service = world.apply(spec("web"))
    (placed,) = engine.place(world.fleet, [ask(world, service, excluded=("node-a",))])
    assert placed.node == "node-b"


def test_the_order_of_the_batch_does_not_matter():
    first, second = world_of("a", "b", memory=3 * GIB), world_of("a", "b", memory=3 * GIB)
    for world in (first, second):
        world.asks = [
            ask(world, world.apply(spec(f"s{number}", memory=(number % 3) * GIB)), slot)
            for number in range(5)
            for slot in (1, 2)
        ]
    assert engine.place(first.fleet, first.asks) == engine.place(second.fleet, second.asks[::-1])


def test_scores_fit_into_62_bits_and_their_parts_are_ranked():
    world = world_of("a")
    placement = PlacementSpec(spread=("node.labels.zone", "node.labels.rack"))
    service = world.apply(spec("web", placement=placement))
    candidate = world.fleet.candidates["node-a"]
    parts = scores.parts(world.fleet, ask(world, service), candidate)
    assert [name for name, _ in parts] == [
        "spread:node.labels.zone",
        "spread:node.labels.rack",
        "same-service",
        "room",
        "tasks",
    ]
    assert sum(points for _, points in parts) < 1 << 62
    least_of_rank = [1 << scores.PREFERENCE_SHIFTS[0], 1 << scores.PREFERENCE_SHIFTS[1]]
    least_of_rank.append(1 << scores.SERVICE_SHIFT)
    for index, least in enumerate(least_of_rank):
        assert least > sum(points for _, points in parts[index + 1 :])


SPECS = [
    spec("web", replicas=3, cpu=500),
    spec("db", memory=GIB, mounts=(volume_mount("data"),)),
    spec("cache", ports=(80,), mounts=(volume_mount("data"),)),
    spec("mon", mode=Mode.GLOBAL, mounts=(volume_mount("data"),)),
]
EVENT = st.tuples(
    st.sampled_from(
        ["place", "undo", "record", "end", "delete", "node", "volume", "share", "apply", "forget"]
    ),
    st.integers(0, 3),
    st.integers(1, 3),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(events=st.lists(EVENT, max_size=25))
def test_after_any_events_placements_and_undos_the_fleet_is_as_if_built_anew(events):
    world = world_of("a", "b", "c")
    services = [world.apply(each) for each in SPECS]
    pending = []
    for kind, which, slot in events:
        service, node = services[which], f"node-{'abcd'[which]}"
        tasks = world.tables.tasks_of_service(service)
        match kind:
            case "place":
                n = max((task.n for task in tasks if task.slot == slot), default=0) + 1
                taken = {each.ask.task for each in pending}
                head = world.tables.service(service)
                asked = replace(
                    ask(world, service, slot), n=n, fixes_volumes=not head.mode.is_global
                )
                if asked.task not in taken:
                    (answer,) = engine.place(world.fleet, [asked])
                    pending += [answer] if isinstance(answer, Placed) else []
            case "undo" if pending:
                engine.undo(world.fleet, pending.pop())
            case "record" if pending:
                placed = pending.pop(0)
                world.put(
                    Task(
                        service=placed.ask.service,
                        slot=placed.ask.slot,
                        n=placed.ask.n,
                        node=placed.node,
                        generation=placed.ask.generation,
                    )
                )
            case "end" if tasks:
                world.put(replace(tasks[0], outcome=Outcome(state=TaskState.FAILED)))
            case "delete" if tasks:
                world.drop(keys.task(tasks[-1].id))
            case "node":
                wish = [Availability.ACTIVE, Availability.DRAIN, Availability.PAUSE][slot - 1]
                if world.tables.node(node) is None:
                    world.add_node("d", 4)
                else:
                    world.set_availability(node, wish)
                    world.set_state(node, [NodeState.READY, NodeState.DOWN][slot % 2])
            case "forget" if world.tables.node(node) is not None and which == 3:
                world.drop(keys.node(node))
            case "volume":
                volume = Volume(stack="shop", name="data", node=node)
                if world.tables.version(keys.key_of(volume)):
                    world.drop(keys.key_of(volume))
                else:
                    world.put(volume)
            case "share":
                stack = world.tables.stack("shop")
                opts = pairs({"type": "nfs"}) if slot == 1 else ()
                world.put(replace(stack, volumes=(VolumeSpec(name="data", driver_opts=opts),)))
            case "apply":
                mode = Mode.GLOBAL if slot == 1 else Mode.REPLICATED
                world.apply(replace(SPECS[which], mode=mode))
            case _:
                pass
    for placed in pending:
        engine.undo(world.fleet, placed)
    assert world.fleet == Fleet.from_snapshot(world.snapshot())
    assert world.fleet.copy() == world.fleet


def test_the_same_task_taken_in_again_changes_nothing():
    world = world_of("a")
    service = world.apply(spec("web", cpu=100))
    (placed,) = engine.place(world.fleet, [ask(world, service)])
    world.put(Task(service=service, slot=1, n=1, node=placed.node, generation=1))
    assert world.fleet.candidates["node-a"].cpu_reserved == 100
    assert TaskId(f"{service}/1/1") in world.fleet.held


def test_a_volume_that_becomes_shared_pins_no_more():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.put(Task(service=service, slot=1, n=1, node="node-a", generation=1))
    assert world.fleet.homes == {("shop", "data"): {"node-a": 1}}
    shared = VolumeSpec(name="data", driver_opts=pairs({"type": "nfs"}))
    world.put(replace(world.tables.stack("shop"), volumes=(shared,)))
    assert world.fleet.homes == {}
    assert world.fleet == Fleet.from_snapshot(world.snapshot())


def test_the_volumes_of_a_service_that_becomes_global_pin_nothing():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.put(Task(service=service, slot=1, n=1, node="node-a", generation=1))
    world.put(replace(world.tables.service(service), mode=Mode.GLOBAL))
    assert world.fleet.homes == {}
