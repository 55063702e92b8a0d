"""What slots without a node are told, and that it costs once for all that are alike."""

from scheduler.placement import words
from tests.builders import World, spec


def waiting_after_two_looks(world, service):
    world.look()
    first = dict(world.observed.waiting[service])
    world.look()
    return first, world.observed.waiting[service]


def test_slots_that_are_refused_alike_share_what_is_said_now_and_when_they_are_looked_at_again():
    world = World()
    for number in range(1, 4):
        world.add_node(f"n{number}", number)
    service = world.apply(spec("large", cpu=5_000, replicas=4))
    first, again = waiting_after_two_looks(world, service)
    assert len(first) == len(again) == 4
    assert len(again[1].refusals) == 3
    assert len({id(each.refusals) for each in (*first.values(), *again.values())}) == 1
    assert again == first
    assert again[4].reason == "the slot is empty; none of 3 nodes will do: 3 lack cpu"


def test_what_is_refused_otherwise_is_told_anew():
    world = World()
    node = world.add_node("n1", 1)
    service = world.apply(spec("large", cpu=5_000, replicas=2))
    world.look()
    before = world.observed.waiting[service][1]
    world.drop(f"nodes/{node}")
    world.look()
    after = world.observed.waiting[service][1]
    assert before.refusals
    assert after.refusals == ()
    assert after.reason == "the slot is empty; there is no node that could run it"


def test_why_nowhere_is_counted_once_for_all_replicas(monkeypatch):
    world = World()
    world.add_node("n1", 1)
    world.apply(spec("large", cpu=5_000, replicas=7))
    world.apply(spec("larger", cpu=6_000, replicas=7))
    counted = []
    summary = words.summary

    def count(refusals):
        counted.append(refusals)
        return summary(refusals)

    monkeypatch.setattr(words, "summary", count)
    world.look()
    assert len(counted) == 2
