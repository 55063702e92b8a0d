"""Ids and tokens of a restored cluster are above those that were given before."""

from homeport.model import Cluster, Service, ServiceId
from scheduler.cluster import keys, numbering
from tests.builders import World, spec


def world(incarnation):
    world = World()
    world.put(Cluster(id="c", incarnation=incarnation))
    return world


def test_a_first_life_has_plain_numbers():
    assert numbering.suffix(world(1).tables, 255) == "ff"
    assert numbering.suffix(World().tables, 255) == "ff"


def test_the_same_revision_of_another_life_makes_another_id():
    found = {numbering.suffix(world(life).tables, 255) for life in (1, 2, 3)}
    assert found == {"ff", "ffr1", "ffr2"}


def test_a_fence_token_of_a_later_life_is_higher_whatever_the_revision():
    old, new = world(1), world(2)
    for each in (old, new):
        each.add_node("a")
        each.apply(spec("db"))
        each.rest()
    (task,) = [each.id for each in old.tables.tasks()]
    assert old.tables.version(keys.task(task)) == new.tables.version(keys.task(task))
    assert numbering.fence_token(new.tables, task) > numbering.fence_token(old.tables, task) > 0
    assert numbering.fence_token(new.tables, task) > (1 << numbering.INCARNATION_BITS)


def test_numbers_of_tasks_jump_beyond_all_that_can_have_been():
    service = Service(id=ServiceId("s"), stack="s", name="s", last_n=4)
    assert numbering.skipped(service, 9).last_n == 10_000
    assert numbering.skipped(numbering.skipped(service, 9), 10_001).last_n == 20_000
