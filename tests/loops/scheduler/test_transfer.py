"""A cluster on its way between stores is in one of them, whatever is interrupted where.

Two stores in memory, in virtual time; a schedule ends the command between any two commits of
either store. What then starts on which store is asked of the same check that a scheduler asks.
"""

import asyncio
from dataclasses import replace

import pytest

from homeport import codec
from homeport.backup import Header
from homeport.model import Cluster, Node, NodeId, Scheduler, Service, ServiceId, Task
from scheduler import transfer
from scheduler.cluster import keys
from scheduler.store import renewal, standing
from scheduler.store.base import ABSENT, LEADER_KEY, SCHEDULERS, Write
from scheduler.store.memory import MemoryStore
from scheduler.store.renewal import NotARecord
from scheduler.transfer import TransferRefused
from tests.loops.scheduler.ring import LoopClock

pytestmark = pytest.mark.looptime(end=10_000)


class Interrupted(BaseException):
    """Ctrl-C, kill -9, a power cut."""


class Store:
    """A store whose n-th commit from now on does not happen, or is the last that does."""

    operations_max = 10  # several commits for few records

    def __init__(self, name):
        self._store = MemoryStore(LoopClock())
        self.name = name
        self.budget = None

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes, fence=None):
        if writes and self.budget is not None:
            if not self.budget:
                raise Interrupted
            self.budget -= 1
        return await self._store.commit(writes, fence)


SERVICE = ServiceId("shop-web-5")


def cluster_records(count=30):
    values = [Cluster(id="home", incarnation=3), Service(id=SERVICE, stack="shop", name="web")]
    values += [Node(id=NodeId(f"n{number}"), name=f"n{number}", number=number) for number in (1, 2)]
    values += [
        Task(service=SERVICE, slot=slot, n=7, node=NodeId("n1"), generation=1)
        for slot in range(1, count)
    ]
    return values


async def filled(name, values=None):
    store = Store(name)
    for value in values if values is not None else cluster_records():
        await store.commit([Write(keys.key_of(value), codec.encode_record(value))])
    await store.commit([Write("meta/write-id/pi/1", b"7")])
    return store


async def content(store):
    return dict(renewal.entries_of(await store.list("")))


async def cluster_in(store):
    record = await store.get(keys.CLUSTER)
    return codec.decode_record(Cluster, record.value) if record else None


async def is_usable(store):
    """Whether a scheduler would find a cluster there and work on it."""
    try:
        await standing.check(store)
    except standing.NotToBeUsed:
        return False
    return await cluster_in(store) is not None


def migrate(source, target, **more):
    return transfer.migrate(source, target, source_flag="sqlite", target_flag="etcd", **more)


async def test_all_records_arrive_and_the_incarnation_is_the_next_one():
    source, target = await filled("sqlite"), Store("etcd")
    before = await content(source)

    done = await migrate(source, target)

    after = await content(target)
    assert done.cluster == Cluster(id="home", incarnation=4)
    assert done.records == len(before)
    assert {**before, keys.CLUSTER: after[keys.CLUSTER]} == after
    assert await is_usable(target)
    # What is the store's own stays behind, and nothing is left of the command.
    left = [record.key for record in (await target.list("")).records]
    assert not [key for key in left if key.startswith("meta/") or key == LEADER_KEY]


async def test_the_source_says_where_the_cluster_went_and_how_to_go_back():
    source, target = await filled("sqlite /s.db"), Store("etcd http://e:2379")
    await migrate(source, target)
    with pytest.raises(standing.NotToBeUsed) as caught:
        await standing.check(source)
    said = str(caught.value)
    assert "was moved to etcd http://e:2379" in said
    assert "--store etcd" in said
    assert "homeport store migrate --from etcd" in said
    assert "homeport store accept-restore --offline" in said


async def test_back_again_needs_no_extra_word_and_counts_on():
    source, target = await filled("sqlite"), Store("etcd")
    await migrate(source, target)
    node = Node(id=NodeId("n9"), name="n9", number=9)
    await target.commit([Write(keys.key_of(node), codec.encode_record(node))])

    done = await transfer.migrate(target, source, source_flag="etcd", target_flag="sqlite")

    assert done.cluster.incarnation == 5
    assert keys.key_of(node) in await content(source)
    assert await is_usable(source)
    assert not await is_usable(target)


@pytest.mark.parametrize("which", ["source", "target"])
async def test_interrupted_anywhere_one_store_is_usable_or_the_same_again_ends_it(which):
    interrupted, half_way = 0, 0
    for budget in range(60):
        source, target = await filled("sqlite"), Store("etcd")
        before = await content(source)
        (source if which == "source" else target).budget = budget
        try:
            await migrate(source, target)
        except (Interrupted, BaseExceptionGroup):
            interrupted += 1
        else:
            break
        source.budget = target.budget = None
        usable = [store for store in (source, target) if await is_usable(store)]
        assert len(usable) <= 1, "two stores of one cluster"
        if usable:
            assert await content(usable[0]) == before  # the source, as it was
        else:
            half_way += 1  # marked as moved, and the copy is not released yet
        done = await migrate(source, target)
        assert done.records == len(before)
        assert await is_usable(target)
        assert not await is_usable(source)
        assert (await content(target)).keys() == before.keys()
    assert interrupted >= 2
    assert half_way <= 1


async def test_a_target_that_was_left_half_filled_can_be_cleared():
    source, target = await filled("sqlite"), Store("etcd")
    target.budget = 4
    with pytest.raises((Interrupted, BaseExceptionGroup)):
        await migrate(source, target)
    target.budget = None
    with pytest.raises(standing.NotToBeUsed, match="is not complete"):
        await standing.check(target)
    await transfer.clear(target)
    assert await content(target) == {}
    await standing.check(target)


async def test_while_a_scheduler_leads_nothing_is_moved():
    source, target = await filled("sqlite"), Store("etcd")
    await source.commit([Write(LEADER_KEY, codec.encode_record(Cluster(id="x")), ABSENT)])
    with pytest.raises(TransferRefused, match="stop all schedulers first"):
        await migrate(source, target)
    assert await content(target) == {}


async def test_the_key_of_a_leader_that_was_killed_is_waited_for():
    source, target = await filled("sqlite"), Store("etcd")
    lease = await source.grant(5.0)
    await source.commit([Write(LEADER_KEY, b"", ABSENT, lease)])
    await migrate(source, target)
    assert await is_usable(target)


async def test_a_scheduler_that_still_follows_does_not_get_to_lead_meanwhile():
    source, target = await filled("sqlite"), Store("etcd")
    seen = []

    class Watched(Store):
        async def commit(self, writes, fence=None):
            seen.append(await source.get(LEADER_KEY) is not None)
            return await super().commit(writes, fence)

    watched = Watched("etcd")
    await migrate(source, watched)
    assert len(seen) > 3
    assert all(seen)
    assert await source.get(LEADER_KEY) is None
    assert target.name == "etcd"


async def test_a_store_of_another_cluster_is_not_written_over_without_the_word():
    source = await filled("sqlite")
    target = await filled("etcd", [Cluster(id="other", incarnation=9)])
    with pytest.raises(TransferRefused, match=r"holds cluster other \(incarnation 9\)"):
        await migrate(source, target)
    assert (await cluster_in(target)).id == "other"
    done = await migrate(source, target, overwrite=True)
    assert done.cluster == Cluster(id="home", incarnation=4)


async def test_a_source_that_is_moved_already_is_moved_to_nowhere_else():
    source, target, third = await filled("sqlite"), Store("etcd"), Store("etcd b")
    await migrate(source, target)
    with pytest.raises(TransferRefused, match="was moved to etcd on"):
        await migrate(source, third)
    with pytest.raises((TransferRefused, NotARecord), match="there is no cluster"):
        await migrate(third, Store("etcd"))


async def test_an_empty_store_has_nothing_to_move():
    with pytest.raises(TransferRefused, match="there is no cluster"):
        await migrate(Store("sqlite"), Store("etcd"))


HEADER = Header(cluster="home", incarnation=3, revision=40, schema=1, version="1.0")


async def saved(values=None):
    return list((await content(await filled("old", values))).items())


def restore(entries, target, *, overwrite=False, header=HEADER):
    return transfer.restore(header, entries, target, source="b", overwrite=overwrite)


async def test_a_restored_cluster_begins_the_next_life_and_gives_no_number_twice():
    target = Store("sqlite")
    done = await restore(await saved(), target)
    assert done.cluster == Cluster(id="home", incarnation=4)
    record = await target.get(keys.service(SERVICE))
    assert codec.decode_record(Service, record.value).last_n == 10_000
    assert await is_usable(target)


async def test_over_a_newer_life_of_the_same_cluster_the_next_one_is_above_both():
    newer = [replace(cluster_records()[0], incarnation=8), *cluster_records()[1:]]
    target = await filled("sqlite", newer)
    entries = await saved()
    with pytest.raises(TransferRefused, match=r"is not empty.*--overwrite"):
        await restore(entries, target)
    done = await restore(entries, target, overwrite=True)
    assert done.cluster.incarnation == 9


async def test_an_interrupted_restore_is_refused_by_schedulers_and_done_again():
    entries = await saved()
    for budget in range(40):
        target = Store("sqlite")
        target.budget = budget
        try:
            await restore(entries, target)
        except (Interrupted, BaseExceptionGroup):
            target.budget = None
            assert not await is_usable(target)
            if budget >= 2:
                with pytest.raises(standing.NotToBeUsed, match="homeport restore b"):
                    await standing.check(target)
            await restore(entries, target)
            assert await is_usable(target)
        else:
            break
    assert budget > 5


async def test_records_of_a_newer_version_are_refused():
    with pytest.raises(TransferRefused, match=r"restore it with Homeport 9\.0"):
        await restore(await saved(), Store("s"), header=replace(HEADER, schema=9, version="9.0"))


async def test_a_backup_without_a_cluster_is_refused():
    entries = [each for each in await saved() if each[0] != keys.CLUSTER]
    with pytest.raises(NotARecord, match="its own record is missing"):
        await restore(entries, Store("s"))


async def test_accepting_a_store_that_was_moved_goes_on_above_the_copy():
    source, target = await filled("sqlite"), Store("etcd")
    await migrate(source, target)  # incarnation 4 went there
    done = await transfer.accept(source)
    assert done.cluster.incarnation == 5
    assert await is_usable(source)
    service = await source.get(keys.service(SERVICE))
    assert codec.decode_record(Service, service.value).last_n == 10_000


async def test_what_belongs_to_a_store_is_not_part_of_its_cluster():
    store = await filled("sqlite")
    there = Scheduler(id="pi", address="pi:7070")
    await store.commit([Write(f"{SCHEDULERS}pi:7070", codec.encode_record(there))])
    assert not [key for key in await content(store) if key.startswith((SCHEDULERS, "meta/"))]


async def test_a_failure_reaches_the_caller_as_it_is():
    # No group around it: the command prints its text.
    store = await filled("sqlite")
    with pytest.raises(TransferRefused):  # noqa: PT012 (what is asked is what comes out)
        async with transfer.alone(store, "x"):
            await asyncio.sleep(20)  # its lease is kept meanwhile
            assert await store.get(LEADER_KEY) is not None
            raise TransferRefused("no")
    assert await store.get(LEADER_KEY) is None


@pytest.mark.parametrize("way", ["restore", "accept"])
async def test_with_exclusive_tasks_it_takes_longer_than_a_lease(way):
    # A newer task of the same slot may run elsewhere, under a lease of the last leader's.
    exclusive = replace(cluster_records()[-1], exclusive=True)
    values = [*cluster_records()[:-1], exclusive]
    target = Store("sqlite") if way == "restore" else await filled("sqlite", values)
    entries = await saved(values)
    began = asyncio.get_running_loop().time()
    if way == "restore":
        await restore(entries, target)
    else:
        await transfer.accept(target)
    assert asyncio.get_running_loop().time() - began >= 17
    began = asyncio.get_running_loop().time()
    await restore(await saved(), Store("sqlite"))
    assert asyncio.get_running_loop().time() - began < 5
