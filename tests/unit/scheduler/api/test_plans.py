"""What a plan carries of each task, and how much of it."""

from types import SimpleNamespace

from scheduler.api import mutating
from tests.builders import GIB, World, spec


def planned(world, *services):
    """As `apply --dry-run` answers when nothing else changes."""
    outcome = SimpleNamespace(objects=[], heads=[], touched=services)
    return mutating._planned(world.snapshot(), outcome)


def test_a_plan_names_scores_objections_and_what_would_help():
    world = World()
    world.add_node("a", 1, memory=GIB)
    world.add_node("b", 2, memory=GIB // 2)
    service = world.apply(spec("web", memory=GIB * 3 // 4, replicas=2))
    placed, waiting = planned(world, service)
    assert (placed.node, waiting.node) == ("a", "")
    assert [(node.node, node.chosen) for node in placed.nodes] == [("a", True), ("b", False)]
    assert placed.nodes[0].total == sum(part.value for part in placed.nodes[0].scores) > 0
    assert [each.message for each in placed.nodes[1].objections] == [
        "b has 512 MiB of memory free of reservations, and 768 MiB is needed"
    ]
    assert [each.node for each in waiting.objections] == ["a", "b"]
    assert waiting.remedies[0].node == "b"
    assert waiting.remedies[0].message.startswith("reserve at most 512 MiB of memory, 256 MiB less")


def test_a_plan_of_very_many_that_wait_gives_the_last_of_them_a_sentence_alone(monkeypatch):
    monkeypatch.setattr(mutating, "OBJECTIONS_MAX", 7)
    world = World()
    for number, name in enumerate("abc", start=1):
        world.add_node(name, number, memory=GIB)
    service = world.apply(spec("web", memory=2 * GIB, replicas=4))
    tasks = planned(world, service)
    assert [len(task.objections) for task in tasks] == [3, 3, 0, 0]
    assert all("lack memory" in task.reason for task in tasks)
