"""A mutation happens once, whatever becomes of the store or of the answer.

SQLite's way: a store that fails its n-th commit, n = 1, 2, 3…, until nothing fails.
"""

import random

import pytest

from homeport import codec
from homeport.model import Cluster
from homeport.v1 import control_pb2, types_pb2
from scheduler.api.answering import Lead
from scheduler.api.errors import Invalid, RequestIdUsed
from scheduler.api.feed import Feed
from scheduler.api.service import ControlService
from scheduler.cluster.changes import ABSENT, Put
from scheduler.cluster.observed import Dirt, Observed
from scheduler.config import Timers
from scheduler.store.authority import Authority, NotLeading
from scheduler.store.base import (
    LEADER_KEY,
    Ambiguous,
    Conflict,
    Fence,
    Fenced,
    StoreError,
    Unavailable,
    Write,
)
from scheduler.store.commit import Committer
from scheduler.store.images import Images
from scheduler.store.memory import MemoryStore
from scheduler.store.mirror import Mirror
from tests.loops.scheduler.lanes import LoopClock

pytestmark = pytest.mark.looptime(end=600)


class Faulty:
    """A store that fails one of its commits, before or after making it."""

    def __init__(self, store):
        self._store = store
        self.fail_at, self.failure, self.is_made = 0, Unavailable, False
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes, fence=None):
        if not self.fail_at:
            return await self._store.commit(writes, fence)
        self.commits += 1
        if self.commits != self.fail_at:
            return await self._store.commit(writes, fence)
        if self.is_made:
            await self._store.commit(writes, fence)
        raise self.failure(["x"] if self.failure is Conflict else "it failed on purpose")


class Api:
    """A leader's API on a memory store that fails on purpose."""

    def __init__(self, folder):
        self.store = Faulty(MemoryStore(LoopClock()))
        self.mirror = Mirror(self.store)
        self.control = ControlService(
            images=Images(folder),
            store=self.store,
            mirror=self.mirror,
            clock=LoopClock(),
            address="a:1",
        )

    async def start(self):
        epoch = await self.store.commit([Write(LEADER_KEY, b"", ABSENT)])
        mirror = self.mirror
        await mirror.start()
        self.authority = Authority(
            mirror=mirror,
            committer=Committer(self.store, mirror),
            observed=Observed(),
            dirt=Dirt(),
            wake=lambda: None,
            clock=LoopClock(),
            randomness=random.Random(1),
            timers=Timers(),
            fence=Fence(epoch),
            lead_until=lambda: float("inf"),
        )
        await self.authority.commit([Put(Cluster(id="c"), ABSENT, "t")])
        self.control.lead = Lead(authority=self.authority, feed=Feed(self.authority), bulk=None)
        return self

    async def apply(self, *images, request_id="r", name="s", **fields):
        stack = types_pb2.StackSpec(
            name=name,
            services=[
                types_pb2.ServiceSpec(name=f"s{index}", container={"image": image})
                for index, image in enumerate(images)
            ],
        )
        request = control_pb2.ApplyRequest(stack=stack, request_id=request_id, **fields)
        return await self.control.Apply(request)

    def images(self):
        """What the stored heads say that is wanted."""
        tables = self.authority.mirror.tables
        return [
            tables.spec(service.id, service.generation).spec.container.image
            for service in tables.services_of("s")
        ]


@pytest.fixture
async def api(tmp_path):
    api = await Api(tmp_path).start()
    yield api
    await api.store.close()


@pytest.mark.parametrize(
    ("failure", "is_made"),
    [(Unavailable, False), (Ambiguous, False), (Ambiguous, True), (Conflict, False)],
    ids=["nothing was written", "unknown, and not", "unknown, and written", "a race was lost"],
)
@pytest.mark.parametrize("fail_at", [1, 2, 3])
async def test_a_retry_with_the_same_id_changes_state_once(api, failure, is_made, fail_at):
    await api.apply("a", "b", request_id="first")
    api.store.fail_at, api.store.failure, api.store.is_made = fail_at, failure, is_made
    answers = []
    for _ in range(3):
        try:
            answers.append(await api.apply("a2", "b2"))
        except StoreError as error:
            assert isinstance(error, failure)  # noqa: PT017 (some rounds succeed)
    assert answers
    assert {(each.generation, each.revision) for each in answers} == {
        (answers[0].generation, answers[0].revision)
    }
    assert api.images() == ["a2", "b2"]
    assert api.authority.mirror.tables.stack("s").generation == 2


async def test_s6_a_copy_of_what_changed_nothing_comes_late_and_does_not_undo_the_newer(api):
    await api.apply("a", request_id="first")
    await api.apply("a", request_id="again")
    await api.apply("b", request_id="newer")
    await api.apply("a", request_id="again")
    assert api.images() == ["b"]


async def test_an_id_that_was_used_for_something_else_is_refused(api):
    await api.apply("a")
    with pytest.raises(RequestIdUsed):
        await api.apply("b")
    with pytest.raises(RequestIdUsed):
        await api.control.Scale(
            control_pb2.ScaleRequest(stack="s", replicas={"s0": 2}, request_id="r")
        )
    assert api.images() == ["a"]


@pytest.mark.parametrize("request_id", ["a/b", "x" * 129, "a b", "é"])
async def test_an_id_that_could_not_be_a_key_is_refused(api, request_id):
    with pytest.raises(Invalid, match="request_id"):
        await api.apply("a", request_id=request_id)


async def test_a_dry_run_writes_nothing_and_takes_no_id(api):
    revision = api.authority.mirror.newest
    api.store.fail_at = -1  # count commits
    await api.apply("a", validate_only=True, request_id="dry")
    assert api.store.commits == 0
    assert api.authority.mirror.newest == revision
    await api.apply("b", request_id="dry")
    assert api.images() == ["b"]


async def test_who_lost_the_leadership_writes_nothing(api):
    record = await api.store.get(LEADER_KEY)
    await api.store.commit([Write(LEADER_KEY, None, record.version)])
    with pytest.raises(Fenced):
        await api.apply("a")
    assert api.images() == []
    with pytest.raises(Fenced):  # "there is no such stack" is what it remembers, and no answer
        await api.control.RemoveStack(
            control_pb2.RemoveStackRequest(stack="nowhere", request_id="gone")
        )
    api.control.lead = None
    with pytest.raises(NotLeading):
        await api.apply("a")


async def test_a_large_apply_shows_all_of_its_heads_at_once(api):
    # Objects go first, in commits of their own; a failure in between leaves nobody a half stack.
    names = [f"image{number}" for number in range(90)]
    for fail_at in range(1, 10):
        api.store.commits = 0
        api.store.fail_at, api.store.failure = fail_at, Unavailable
        try:
            await api.apply(*names, request_id="large")
        except Unavailable:
            assert api.images() == []
        else:
            break
    assert fail_at > 2
    assert len(api.images()) == 90


async def test_more_heads_than_one_commit_takes_are_there_at_once(api):
    # test_large_applies has what may go wrong on the way.
    images = sorted(f"i{number}" for number in range(130))
    await api.apply(*images)
    assert sorted(api.images()) == images


async def test_the_answer_that_is_remembered_is_the_one_that_was_given(api):
    first = await api.apply("a", "b")
    record = api.authority.mirror.tables.request("r")
    remembered = control_pb2.ApplyResponse.FromString(record.response)
    remembered.revision = first.revision
    assert remembered == first
    assert codec.decode_record(type(record), codec.encode_record(record)) == record
