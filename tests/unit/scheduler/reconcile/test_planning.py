"""`plan` and `explain` ask the same questions as the scheduler and change nothing."""

from homeport.model import NodeState
from homeport.spec import pairs
from scheduler.cluster.changes import Put
from scheduler.placement.fleet import Fleet
from scheduler.reconcile import planning, restarts
from tests.builders import GIB, World, spec, volume_mount, world_of


def proposed(world, *specs, **fields):
    """The services as an apply would propose them, laid over the world."""
    other = World()
    other.revision = 1000
    services = [other.apply(each, **fields) for each in specs]
    changes = [
        Put(other.tables.value(key), world.tables.version(key), "apply")
        for key in other.tables.stored_keys()
    ]
    return world.snapshot().over(changes), services


def test_a_plan_of_a_new_stack_says_where_each_task_would_go():
    world = world_of("a", "b")
    snapshot, (web, db) = proposed(world, spec("web", replicas=2), spec("db", memory=9 * GIB))
    planned = planning.plan(snapshot, [web, db])
    assert [(each.service, each.slot, each.node) for each in planned] == [
        (web, 1, "node-a"),
        (web, 2, "node-b"),
        (db, 1, None),
    ]
    assert [each.rule for each in planned[2].refusals] == ["memory", "memory"]
    assert list(world.tables.tasks()) == []
    assert world.fleet == Fleet.from_snapshot(world.snapshot())


def test_what_is_planned_is_what_happens():
    world = world_of("a", "b", "c")
    specs = [
        spec("web", replicas=3, cpu=1000),
        spec("db", mounts=(volume_mount("data"),)),
        spec("ui", mounts=(volume_mount("data"),), ports=(80,)),
    ]
    services = [world.apply(each) for each in specs]
    planned = planning.plan(world.snapshot(), services)
    world.rest()
    happened = [
        (task.service, task.slot, task.node)
        for service in services
        for task in world.tables.tasks_of_service(service)
    ]
    assert [(each.service, each.slot, each.node) for each in planned] == happened


def test_a_plan_of_a_change_names_what_is_replaced_and_frees_its_room_first():
    world = world_of("a")
    service = world.apply(spec("web", ports=(80,), memory=6 * GIB))
    world.rest()
    world.run_all()
    before = world.tables.tasks_of_service(service)
    world.apply(spec("web", ports=(80,), memory=7 * GIB, labels=pairs({"new": "1"})))
    (planned,) = planning.plan(world.snapshot(), [service])
    assert (planned.node, planned.replaces) == ("node-a", before[0].id)


def test_a_plan_of_many_replicas_looks_at_their_service_and_not_at_it_for_each(monkeypatch):
    looked = []
    excluded = restarts.excluded

    def counted(snapshot, tasks, generation):
        looked.append(generation)
        return excluded(snapshot, tasks, generation)

    monkeypatch.setattr(restarts, "excluded", counted)
    for replicas in (3, 30):
        world = world_of("a", "b")
        web = world.apply(spec("web"), replicas=replicas)
        world.settle(20)
        world.apply(spec("web", cpu=100), replicas=replicas)
        looked.clear()
        assert len(planning.plan(world.snapshot(), [web])) == replicas
        assert len(looked) <= 2


def test_a_plan_of_nothing_new_is_empty():
    world = world_of("a")
    service = world.apply(spec("web"))
    world.rest()
    assert planning.plan(world.snapshot(), [service]) == []


def test_explain_says_for_each_node_why_and_why_not():
    world = world_of("a", "b")
    world.add_node("tiny", 3, memory=GIB)
    world.add_node("gone", 4, state=NodeState.DOWN)
    service = world.apply(spec("web", memory=2 * GIB))
    world.rest()
    (task,) = world.live(service)
    explained = planning.explain(world.snapshot(), service, [1])[0]
    assert explained.task == task.id
    assert explained.reason == task.reason
    assert [(node.name, node.chosen) for node in explained.nodes] == [
        ("a", True),
        ("b", False),
        ("gone", False),
        ("tiny", False),
    ]
    best = explained.nodes[0]
    assert best.total == sum(points for _, points in best.scores) > 0
    assert [refusal.rule for refusal in explained.nodes[2].refusals] == ["ready"]
    assert [refusal.rule for refusal in explained.nodes[3].refusals] == ["memory"]
    assert explained.nodes[3].refusals[0].had == str(GIB)


def test_explain_of_a_waiting_slot_names_all_objections_of_a_node():
    world = world_of("a", memory=GIB, cpu=100)
    service = world.apply(spec("web", memory=2 * GIB, cpu=200))
    world.rest()
    explained = planning.explain(world.snapshot(), service, [1])[0]
    assert explained.task is None
    assert "lack" in explained.reason or "free of reservations" in explained.reason
    assert [refusal.rule for refusal in explained.nodes[0].refusals] == ["memory", "cpu"]


def test_explain_says_why_a_pinned_task_waits_for_its_node():
    world = world_of("a", "b")
    service = world.apply(spec("db", mounts=(volume_mount("data"),)))
    world.rest()
    world.run_all()
    world.set_state("node-a", NodeState.DOWN)
    world.rest()
    explained = planning.explain(world.snapshot(), service, [1])[0]
    assert explained.reason.startswith("it waits for node a, which is down")


def test_explain_of_what_is_not_there_says_so():
    explained = planning.explain(world_of("a").snapshot(), "shop-web-1", [1])[0]
    assert explained.reason == "there is no service shop-web-1"
    assert explained.nodes == ()
