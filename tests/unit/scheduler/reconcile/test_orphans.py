"""What nobody refers to goes, later; what somebody refers to never does."""

from dataclasses import replace

from homeport.model import StackFile, Task
from homeport.spec import ContainerSpec, FileKind, FileMount, FileSpec
from scheduler.cluster import keys
from scheduler.reconcile.orphans import KEPT_SECONDS, Orphans, images_in_use
from tests.builders import World, spec

IMAGE = "sha256:" + "1" * 64


def file(digest):
    content = FileSpec(kind=FileKind.CONFIG, name="conf", data=b"one")
    return StackFile(stack="shop", digest=digest, spec=content)


def mounting(digest):
    mount = FileMount(kind=FileKind.CONFIG, source="conf", target="/conf", digest=digest)
    return ContainerSpec(image="example", files=(mount,))


def deleted_after(world, seconds, orphans=None):
    """What is deleted when the same is still there so much later."""
    orphans = orphans or Orphans()
    assert orphans.decide(world.snapshot()) == []
    world.pass_time(seconds)
    return [change.key for change in orphans.decide(world.snapshot())]


def test_what_is_referred_to_stays():
    world = World()
    world.apply(spec("web", container=mounting("d1")))
    world.put(file("d1"))
    assert deleted_after(world, 10 * KEPT_SECONDS) == []


def test_a_file_that_nobody_mounts_goes_but_not_at_once():
    world = World()
    world.apply(spec("web"))
    world.put(file("d1"))
    assert deleted_after(world, KEPT_SECONDS - 1) == []
    assert deleted_after(world, KEPT_SECONDS) == [keys.file("shop", "d1")]


def test_a_spec_ahead_of_its_head_goes_unless_a_task_runs_it():
    world = World()
    world.add_node("a")
    service = world.apply(spec("web"))
    edition = world.tables.spec(service, 1)
    world.put(replace(edition, generation=2))
    world.put(replace(edition, generation=3))
    world.put(Task(service=service, slot=1, n=1, node="node-a", generation=3))
    assert deleted_after(world, KEPT_SECONDS) == [keys.spec(service, 2)]


def test_a_spec_without_a_head_goes_with_the_files_that_only_it_mounts():
    world = World()
    service = world.apply(spec("web", container=mounting("d1")))
    world.put(file("d1"))
    world.drop(keys.service(service))
    assert deleted_after(world, KEPT_SECONDS) == [keys.spec(service, 1), keys.file("shop", "d1")]


def test_what_was_written_again_or_found_use_meanwhile_starts_anew():
    world = World()
    world.apply(spec("web"))
    world.put(file("d1"))
    world.put(file("d2"))
    orphans = Orphans()
    orphans.decide(world.snapshot())
    world.put(file("d1"))  # an apply needs it and is about to write its head
    world.apply(spec("api", container=mounting("d2")))
    world.pass_time(KEPT_SECONDS)
    assert orphans.decide(world.snapshot()) == []


def test_nothing_goes_while_there_are_records_that_cannot_be_read():
    world = World()
    world.put(file("d1"))
    world.tables.put_unreadable("specs/shop-web-1/9", 5, "a newer version wrote it")
    assert deleted_after(world, KEPT_SECONDS) == []
    assert images_in_use(world.snapshot()) is None


def test_an_image_is_in_use_while_any_stored_spec_names_it():
    world = World()
    assert images_in_use(world.snapshot()) == frozenset()
    service = world.apply(spec("web", container=ContainerSpec(image="x", image_id=IMAGE)))
    edition = world.tables.spec(service, 1)
    world.put(replace(edition, generation=2, spec=spec("web")))
    assert images_in_use(world.snapshot()) == {IMAGE}
    world.drop(keys.spec(service, 1))
    assert images_in_use(world.snapshot()) == frozenset()
