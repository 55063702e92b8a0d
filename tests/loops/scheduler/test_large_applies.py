"""An apply of more heads than one transaction takes is seen whole, or not at all.

The store takes eight writes in one commit, so that a dozen services are a large apply. A
schedule crashes the leader between any two of its commits, loses an answer, or cancels the
caller at any await; whoever looks afterwards, a mirror that followed, one that reads anew and
a new leader, sees the stack of before or the one that was asked for.
"""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from homeport import codec
from homeport.model import Cluster, Leader, Volume, VolumeState
from homeport.spec import ContainerSpec, ServiceSpec, StackSpec, VolumeSpec
from homeport.v1 import control_pb2
from scheduler.api import admission, requests, staging
from scheduler.api.errors import Outdated, TooLarge
from scheduler.api.requests import Decision
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Dirt, Observed
from scheduler.cluster.overlay import overlay
from scheduler.cluster.snapshot import Snapshot
from scheduler.config import Timers
from scheduler.controller import Controller
from scheduler.reconcile import drafts as writing_out
from scheduler.store.authority import Authority
from scheduler.store.base import (
    LEADER_KEY,
    Ambiguous,
    Conflict,
    Fence,
    Fenced,
    Listing,
    Record,
    Unavailable,
    Write,
)
from scheduler.store.commit import Committer
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror
from tests.builders import node
from tests.loops.scheduler.ring import LoopClock

pytestmark = pytest.mark.looptime(end=100_000)

OPERATIONS_MAX = 8


class Crash(BaseException):
    """The process is gone: nothing of it runs on."""


class SmallStore:
    """Few writes in one commit; and one of them, counted from now, may go wrong."""

    operations_max = OPERATIONS_MAX

    def __init__(self, store):
        self._store = store
        self.trouble_at, self.trouble, self.is_made = 0, Crash, False
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes, fence=None):
        assert len(writes) <= OPERATIONS_MAX
        if not writes or any(write.key == LEADER_KEY for write in writes):
            return await self._store.commit(writes, fence)
        self.commits += 1
        if self.commits != self.trouble_at:
            await asyncio.sleep(0)  # the request is on its way
            revision = await self._store.commit(writes, fence)
            await asyncio.sleep(0)  # and the answer
            return revision
        if self.is_made:
            await self._store.commit(writes, fence)
        raise self.trouble(["x"]) if self.trouble is Conflict else self.trouble("on purpose")


class Scheduler:
    """One leader: what it holds dies with it, the store does not."""

    def __init__(self, store):
        self.store = store
        self.observed = Observed()

    async def lead(self):
        record = await self.store.get(LEADER_KEY)
        writes = [] if record is None else [Write(LEADER_KEY, None, record.version)]
        if writes:
            await self.store._store.commit(writes)
        me = codec.encode_record(Leader(id="test"))
        epoch = await self.store.commit([Write(LEADER_KEY, me, ABSENT)])
        self.mirror = Mirror(self.store)
        await self.mirror.start()
        committer = Committer(self.store, self.mirror)
        dirt, clock = Dirt(), LoopClock()
        self.controller = Controller(
            self.mirror, committer, self.observed, dirt, clock, random.Random(1), Fence(epoch)
        )
        self.authority = Authority(
            mirror=self.mirror,
            committer=committer,
            observed=self.observed,
            dirt=dirt,
            wake=self.controller.wake,
            clock=clock,
            randomness=random.Random(1),
            timers=Timers(),
            fence=Fence(epoch),
            lead_until=lambda: float("inf"),
        )
        if self.mirror.tables.cluster is None:
            await self.authority.commit([Put(Cluster(id="c"), ABSENT, "t")])
        return self

    @contextlib.asynccontextmanager
    async def controlling(self):
        async with asyncio.TaskGroup() as background:
            running = [
                background.create_task(self.mirror.run()),
                background.create_task(self.controller.run()),
            ]
            try:
                yield self
            finally:
                for each in running:
                    each.cancel()

    async def apply(self, spec, request_id="", expected=0):
        def decide():
            view = self.mirror.tables
            old = view.stack(spec.name)
            if expected and expected != (old.generation if old else 0):
                raise Outdated("look again")
            outcome = admission.apply(view, spec, now_ms=1, revision=self.mirror.newest)
            response = control_pb2.ApplyResponse(stack=spec.name, generation=outcome.generation)
            return Decision(response, outcome.objects, outcome.heads)

        return await requests.once(
            self.authority,
            "Apply",
            control_pb2.ApplyRequest(stack=codec.to_message(spec)),
            request_id,
            control_pb2.ApplyResponse,
            decide,
            stack=spec.name,
        )

    async def remove(self, name):
        def decide():
            view = self.mirror.tables
            outcome = admission.remove(view, view.stack(name), ())
            return Decision(control_pb2.RemoveStackResponse(), outcome.objects, outcome.heads)

        await requests.once(
            self.authority,
            "RemoveStack",
            control_pb2.RemoveStackRequest(stack=name),
            "",
            control_pb2.RemoveStackResponse,
            decide,
            stack=name,
        )


def stack(image, services=12, first=0, volumes=()):
    return StackSpec(
        name="s",
        services=tuple(
            ServiceSpec(name=f"s{number}", replicas=0, container=ContainerSpec(image=image))
            for number in range(first, first + services)
        ),
        volumes=tuple(VolumeSpec(name=name) for name in volumes),
    )


OLD, NEW = stack("old"), stack("new", services=14, first=2)


def seen(tables):
    """What a reader takes the stack for: generation, and image by service."""
    record = tables.stack("s")
    heads = {
        head.name: tables.spec(head.id, head.generation).spec.container.image
        for head in tables.services_of("s")
        if not head.removing
    }
    return (record.generation if record else 0, heads)


def wanted(spec, generation):
    return generation, {each.name: each.container.image for each in spec.services}


BEFORE, AFTER = wanted(OLD, 1), wanted(NEW, 2)


async def read_anew(store):
    mirror = Mirror(store)
    await mirror.start()
    return mirror


@pytest.fixture
async def store():
    store = SmallStore(MemoryStore(LoopClock()))
    yield store
    await store.close()


@pytest.fixture
async def old(store):
    """A leader whose stack is OLD, and written out."""
    scheduler = await Scheduler(store).lead()
    async with scheduler.controlling():
        await scheduler.apply(OLD)
        while scheduler.mirror.tables.stack("s").draft:  # noqa: ASYNC110 (bounded by the loop)
            await asyncio.sleep(0.01)
    assert seen(scheduler.mirror.tables) == BEFORE
    assert scheduler.mirror.tables.stack("s").draft == ""
    store.commits = 0
    return scheduler


async def test_more_heads_than_one_commit_takes_are_seen_at_once_and_then_written_out(old, store):
    told = []
    follower = await read_anew(store)
    follower.subscribe(lambda _: told.append(seen(follower.tables)))
    async with old.controlling(), asyncio.TaskGroup() as background:
        following = background.create_task(follower.run())
        answer = await old.apply(NEW)
        assert seen(old.mirror.tables) == AFTER
        assert seen((await read_anew(store)).tables) == AFTER
        await asyncio.sleep(5)
        following.cancel()
    assert answer.response.generation == 2
    assert store.commits > 6
    assert all(state in (BEFORE, AFTER) for state in told)
    assert AFTER in told
    listing = await store.list("")
    raw = {record.key: record.value for record in listing.records}
    for head in old.mirror.tables.services():
        assert raw[keys.service(head.id)] == codec.encode_record(head)
    assert not [key for key in raw if key.startswith("drafts/")]
    assert old.mirror.tables.stack("s").draft == follower.tables.stack("s").draft == ""


@pytest.mark.parametrize("is_made", [False, True], ids=["before it", "behind it"])
async def test_a_crash_at_any_commit_leaves_the_old_stack_or_the_new_one(old, store, is_made):
    crashes = 0
    for at in range(1, 40):
        fresh = SmallStore(MemoryStore(LoopClock()))
        listing = await store.list("")
        for record in listing.records:
            await fresh.commit([Write(record.key, record.value)])
        leader = await Scheduler(fresh).lead()
        fresh.commits, fresh.trouble_at, fresh.is_made = 0, at, is_made
        with contextlib.suppress(Crash):
            await leader.apply(NEW, "the-same")
            break
        crashes += 1
        after_crash = seen((await read_anew(fresh)).tables)
        assert after_crash in (BEFORE, AFTER)
        successor = await Scheduler(fresh).lead()
        async with successor.controlling():
            again = await successor.apply(NEW, "the-same")
            assert again.response.generation == 2
            assert seen(successor.mirror.tables) == AFTER
            # What the first left behind is gone after a while; nothing else is.
            await asyncio.sleep(3 * 3600)
            assert seen(successor.mirror.tables) == AFTER
            assert list(successor.mirror.tables.drafts()) == []
            heads = {(each.id, each.generation) for each in successor.mirror.tables.services()}
            editions = successor.mirror.tables.specs()
            assert {(each.service, each.generation) for each in editions} == heads
        assert seen((await read_anew(fresh)).tables) == AFTER
        await fresh.close()
    assert crashes >= 4


@pytest.mark.parametrize("is_made", [False, True], ids=["before it", "behind it"])
async def test_a_crash_while_the_draft_is_written_out_changes_nothing_for_readers(
    old, store, is_made
):
    await old.apply(NEW, "the-same")
    fresh = await read_anew(store)
    assert fresh.tables.stack("s").draft
    for at in range(1, 40):
        scheduler = await Scheduler(store).lead()
        store.commits, store.trouble_at, store.is_made = 0, at, is_made
        changes = writing_out.decide(snapshot(scheduler.mirror.tables), "s")
        try:
            while changes:
                await scheduler.authority.committer.commit_batched(
                    changes, scheduler.authority.fence
                )
                changes = writing_out.decide(snapshot(scheduler.mirror.tables), "s")
        except (Crash, BaseExceptionGroup):
            assert seen((await read_anew(store)).tables) == AFTER
            continue
        break
    assert at > 1
    assert (await read_anew(store)).tables.stack("s").draft == ""
    assert seen((await read_anew(store)).tables) == AFTER


@pytest.mark.parametrize(
    ("trouble", "is_made"),
    [(Unavailable, False), (Ambiguous, False), (Ambiguous, True), (Conflict, False)],
    ids=["nothing was written", "unknown, and not", "unknown, and written", "a race was lost"],
)
async def test_a_retry_with_the_same_id_after_any_failure_happens_once(old, trouble, is_made):
    store = old.store
    for at in range(1, 12):
        image = f"image{at}"
        generation = old.mirror.tables.stack("s").generation
        store.commits, store.trouble_at, store.trouble, store.is_made = 0, at, trouble, is_made
        async with old.controlling():
            for _ in range(4):
                try:
                    answer = await old.apply(stack(image, 14), f"r{at}")
                    break
                except (Unavailable, Ambiguous):
                    visible = seen(old.mirror.tables)[0]
                    assert visible in (generation, generation + 1)
                    await asyncio.sleep(1)
            assert answer.response.generation == generation + 1
            assert seen(old.mirror.tables) == wanted(stack(image, 14), generation + 1)
            await asyncio.sleep(100)
            assert seen((await read_anew(store)).tables) == seen(old.mirror.tables)


async def test_a_caller_that_goes_away_at_any_await_leaves_the_old_or_the_new(old, store):
    cancelled = 0
    for steps in range(1, 400):
        generation = old.mirror.tables.stack("s").generation
        spec = stack(f"image{steps}", 14)
        before = seen(old.mirror.tables)
        async with old.controlling():
            async with asyncio.TaskGroup() as background:
                applying = background.create_task(old.apply(spec, f"r{steps}"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                is_done = applying.done()
                applying.cancel()
            after = wanted(spec, generation + 1)
            await old.authority.committer.settle()
            assert seen((await read_anew(store)).tables) in (before, after)
            await old.apply(spec, f"r{steps}")
            assert seen(old.mirror.tables) == after
            await asyncio.sleep(1)
        if is_done:
            break
        cancelled += 1
    assert cancelled > 10


async def test_while_heads_are_being_written_nobody_else_changes_them(old, store):
    committer = old.authority.committer
    head = old.mirror.tables.services_of("s")[3]
    bump = Put(replace(head, last_n=7), old.mirror.tables.version(keys.service(head.id)), "t")
    async with committer.hold([keys.service(head.id)]):
        with pytest.raises(Conflict):
            await committer.commit([bump])
        with pytest.raises(Conflict):
            async with committer.hold([keys.service(head.id)]):
                pass
    await committer.commit([bump])


async def test_what_was_on_its_way_to_a_head_is_taken_into_account(old, store):
    # The controller's write was sent before the apply began, and lands while it waits.
    gate = asyncio.Event()
    head = old.mirror.tables.services_of("s")[3]
    bump = Put(replace(head, last_n=7), old.mirror.tables.version(keys.service(head.id)), "t")
    plain, committer = store._store.commit, old.authority.committer

    async def late(writes, fence=None):
        if any(write.key == keys.service(head.id) for write in writes):
            store._store.commit = plain
            await gate.wait()
        return await plain(writes, fence)

    store._store.commit = late
    async with old.controlling(), asyncio.TaskGroup() as background:
        background.create_task(committer.commit([bump]))
        await asyncio.sleep(0)
        applying = background.create_task(old.apply(NEW))
        await asyncio.sleep(1)
        assert not applying.done()
        gate.set()
        await applying
        await asyncio.sleep(2)
    assert old.mirror.tables.service(head.id).last_n == 7
    assert seen(old.mirror.tables) == AFTER


async def test_two_large_applies_at_once_follow_each_other(old):
    async with old.controlling(), asyncio.TaskGroup() as background:
        first = background.create_task(old.apply(stack("a", 14)))
        second = background.create_task(old.apply(stack("b", 14)))
    assert {first.result().response.generation, second.result().response.generation} == {2, 3}
    last = "a" if first.result().response.generation == 3 else "b"
    assert seen(old.mirror.tables) == wanted(stack(last, 14), 3)


async def test_a_generation_that_was_not_the_one_seen_is_refused_before_anything_is_written(old):
    async with old.controlling():
        await old.apply(NEW, expected=1)
        with pytest.raises(Outdated):
            await old.apply(stack("later", 14), expected=1)
        await asyncio.sleep(5)
    # The draft of the first was written out meanwhile, and nothing else was written.
    images = {each.spec.container.image for each in old.mirror.tables.specs()}
    assert images <= {"old", "new"}
    assert seen(old.mirror.tables) == AFTER


async def test_a_deposed_leader_swings_nothing(old, store):
    # Its last transaction arrives when another leads already.
    plain, deposed = store._store.commit, []

    async def late(writes, fence=None):
        if any(write.key == keys.stack("s") for write in writes) and not deposed:
            deposed.append(True)
            await Scheduler(store).lead()
        return await plain(writes, fence)

    store._store.commit = late
    with pytest.raises(Fenced):
        await old.apply(NEW)
    store._store.commit = plain
    assert seen((await read_anew(store)).tables) == BEFORE


async def test_a_large_stack_is_removed_at_once_and_wholly_gone_in_the_end(old, store):
    async with old.controlling():
        await old.remove("s")
        assert all(head.removing for head in old.mirror.tables.services_of("s"))
        await asyncio.sleep(10)
    rest = [record.key for record in (await store.list("")).records]
    assert not [key for key in rest if key.startswith(("services", "stacks", "specs", "drafts"))]


async def test_a_plan_over_heads_that_are_not_written_out_sees_what_everybody_sees(old):
    await old.apply(NEW)
    tables = old.mirror.tables
    assert tables.stack("s").draft
    outcome = admission.apply(tables, stack("newer", 14, 2), now_ms=1, revision=old.mirror.newest)
    assert {each.action for each in outcome.services} == {admission.Action.CONFIGURED}
    over = overlay(tables, [*outcome.objects, *outcome.heads])
    assert seen(over) == wanted(stack("newer", 14, 2), 3)
    assert seen(tables) == AFTER


async def test_an_apply_of_five_hundred_services_takes_a_handful_of_transactions():
    store = SmallStore(MemoryStore(LoopClock()))
    store.operations_max = 120

    async def commit(writes, fence=None):
        assert len(writes) <= 120
        assert sum(len(write.value or b"") for write in writes) <= staging.RECORD_BYTES_MAX
        store.commits += 1
        return await store._store.commit(writes, fence)

    store.commit = commit
    leader = await Scheduler(store).lead()
    text = "x" * 7_000  # near the 4 MiB that one request carries
    spec = StackSpec(
        name="s",
        services=tuple(
            ServiceSpec(
                name=f"s{number}",
                replicas=0,
                container=ContainerSpec(image="i", env=(("TEXT", text),)),
            )
            for number in range(500)
        ),
    )
    store.commits = 0
    await leader.apply(spec, "r")
    assert len(list(leader.mirror.tables.services_of("s"))) == 500
    assert store.commits < 12
    assert seen((await read_anew(store)).tables)[0] == 1
    await store.close()


async def test_a_record_that_no_store_takes_is_refused_with_its_name(old):
    huge = StackSpec(
        name="s",
        services=(
            ServiceSpec(
                name="s0",
                container=ContainerSpec(
                    image="i", env=tuple((f"V{n}", "x" * 100_000) for n in range(15))
                ),
            ),
        ),
    )
    with pytest.raises(TooLarge, match=r"specs/s-s0-.* takes .* bytes"):
        await old.apply(huge)
    assert seen(old.mirror.tables) == BEFORE


def snapshot(tables):
    return Snapshot(tables, Observed(), 1000.0, 1)


# ---------------------------------------------------------------- any prefix of the commits


@st.composite
def stacks(draw):
    """Two editions of a stack: services come, go, change and stay."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 24)))]
    volumes = draw(st.lists(st.sampled_from(["v1", "v2", "v3"]), unique=True))

    def edition():
        chosen = [name for name in names if draw(st.booleans())] or names[:1]
        return StackSpec(
            name="s",
            services=tuple(
                ServiceSpec(
                    name=name,
                    replicas=draw(st.integers(0, 2)),
                    container=ContainerSpec(image=draw(st.sampled_from(["a", "b"]))),
                )
                for name in chosen
            ),
            volumes=tuple(VolumeSpec(name=name) for name in volumes if draw(st.booleans())),
        )

    return edition(), edition(), tuple(volumes)


def whole(tables):
    """All that a reader may see of the stack."""
    record = tables.stack("s")
    return (
        record and (record.generation, record.services, record.volumes),
        tables.services_of("s"),
        [each for name in ("v1", "v2", "v3") for each in tables.volumes_of("s", name)],
    )


@settings(max_examples=60)
@given(editions=stacks())
def test_any_prefix_of_the_commits_shows_the_old_stack_or_the_new_one(editions):
    asyncio.run(_prefixes(*editions))


async def _prefixes(first, second, volumes):
    plain = MemoryStore(LoopClock())
    store = SmallStore(plain)
    leader = await Scheduler(store).lead()
    await leader.apply(first)
    await _write_out(leader)
    for name in volumes:
        state = VolumeState.ACTIVE if name < "v2" else VolumeState.RETAINED
        volume = Volume(stack="s", name=name, node=node("a").id, state=state)
        await leader.authority.commit([Put(volume, ABSENT, "t")])
    before, since = whole(leader.mirror.tables), plain._revision
    await leader.apply(second)
    after = whole(leader.mirror.tables)
    await _write_out(leader)
    assert whole(leader.mirror.tables) == after

    follower, states = await _mirror_at(plain, since), []
    assert whole(follower.tables) == before
    follower.subscribe(lambda _: states.append(whole(follower.tables)))
    async with contextlib.aclosing(plain.watch("", since)) as watch:
        while follower.revision < plain._revision:
            follower._apply_batch(await anext(watch))
            states.append(whole(follower.tables))
    assert all(state in (before, after) for state in states)
    if before != after:
        turn = states.index(after)
        assert all(state == after for state in states[turn:])  # and never back
    for revision in range(since, plain._revision + 1):
        read = await _mirror_at(plain, revision)
        assert whole(read.tables) in (before, after)
    await plain.close()


async def _write_out(leader):
    while changes := writing_out.decide(snapshot(leader.mirror.tables), "s"):
        result = await leader.authority.committer.commit_batched(changes, leader.authority.fence)
        assert not result.failed


async def _mirror_at(plain, revision):
    """A mirror that read the store when it was at `revision`."""
    records = {}
    async with contextlib.aclosing(plain.watch("", 1)) as watch:
        batch = None
        while batch is None or batch.revision < revision:
            batch = await anext(watch)
            for change in batch.changes:
                if change.version <= revision:
                    records[change.key] = change
    listing = Listing(
        tuple(
            Record(key, change.value, change.version, change.created)
            for key, change in sorted(records.items())
            if change.value is not None
        ),
        revision,
    )
    mirror = Mirror(Past(listing))
    await mirror.start()
    return mirror


class Past:
    """A store as it was."""

    def __init__(self, listing):
        self._listing = listing

    async def list(self, prefix):
        return self._listing
