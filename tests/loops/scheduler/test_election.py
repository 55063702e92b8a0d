"""Verify that at most one scheduler leads at any moment, and that one does again soon.

Candidates share a store in memory and run in virtual time; a *line* to the store can be
cut, slowed or held up for each of them alone.
"""

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass, field

import pytest

from homeport import codec
from homeport.model import Leader
from scheduler.config import Timers
from scheduler.election import Election, Leadership
from scheduler.store.base import (
    ANY,
    LEADER_KEY,
    Ambiguous,
    Fence,
    Unavailable,
    Write,
)
from scheduler.store.memory import MemoryStore

TIMERS = Timers()
LEASE = TIMERS.leader_lease_seconds
MARGIN = TIMERS.margin_seconds
PROOF = LEASE - MARGIN

pytestmark = pytest.mark.looptime


class LoopClock:
    """The loop's virtual time, at a rate and offset of this machine's own."""

    def __init__(self, rate=1.0, offset=0.0):
        self.rate = rate
        self.offset = offset

    def boottime(self):
        return asyncio.get_running_loop().time() * self.rate + self.offset

    def wall_ms(self):
        return 1_000


class Line:
    """A candidate's way to the store."""

    def __init__(self, store):
        self._store = store
        self.name = "the store"
        self.open = asyncio.Event()  # cleared: requests are held up until it is set
        self.open.set()
        self.delay_seconds = 0.0  # of each answer
        self.error = None  # raised instead of asking
        self.lose_answers = False  # what is asked is done, and the answer lost
        self.calls = []

    def __getattr__(self, name):
        async def call(*arguments):
            self.calls.append(name)
            await self.open.wait()
            if self.error:
                raise self.error
            answer = await getattr(self._store, name)(*arguments)
            await asyncio.sleep(self.delay_seconds)
            await self.open.wait()
            if self.lose_answers:
                raise Ambiguous("no answer")
            return answer

        return call

    def watch(self, prefix, after):
        return self._store.watch(prefix, after)


@dataclass
class Candidate:
    """One scheduler, and what it did as leader: (start, end, epoch) in true time."""

    name: str
    election: Election
    line: Line
    clock: LoopClock
    reigns: list = field(default_factory=list)
    leadership: Leadership | None = None
    work_seconds: float = float("inf")

    async def lead(self, leadership):
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.leadership = leadership
        try:
            await asyncio.sleep(self.work_seconds)
        finally:
            self.reigns.append((start, loop.time(), leadership.epoch))


def candidate(store, name, *, clock=None, seed=0):
    clock = clock or LoopClock()
    line = Line(store)
    election = Election(
        line,
        me=Leader(id=name, address=f"{name}:7070"),
        timers=TIMERS,
        clock=clock,
        randomness=random.Random(f"{name} {seed}"),
    )
    return Candidate(name, election, line, clock)


@contextlib.asynccontextmanager
async def running(*candidates):
    async with asyncio.TaskGroup() as group:
        tasks = {each.name: group.create_task(each.election.run(each.lead)) for each in candidates}
        yield tasks
        for task in tasks.values():
            task.cancel()


@pytest.fixture
async def store():
    store = MemoryStore(LoopClock())
    yield store
    await store.close()


def leaders(*candidates):
    return [each for each in candidates if each.leadership and each.leadership.is_proven]


async def until(condition):
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def leader_of(*candidates):
    await until(lambda: leaders(*candidates))
    (leader,) = leaders(*candidates)
    return leader


async def watch_over(*candidates, seconds, step=0.01):
    """Look very often for two leaders at once; returns for how long nobody led at most."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    gap = longest = 0.0
    while loop.time() < end:
        now = leaders(*candidates)
        assert len(now) <= 1, [each.name for each in now]
        gap = 0.0 if now else gap + step
        longest = max(longest, gap)
        await asyncio.sleep(step)
    return longest


class TestLeading:
    async def test_a_lone_candidate_leads_at_once(self, store):
        a = candidate(store, "a")
        async with running(a):
            await asyncio.sleep(0.1)

            assert a.leadership.is_proven
            assert a.leadership.epoch == (await store.get(LEADER_KEY)).created

    async def test_the_record_says_who_leads_and_where(self, store):
        a = candidate(store, "a")
        async with running(a):
            await asyncio.sleep(0.1)
            value = (await store.get(LEADER_KEY)).value

        assert codec.decode_record(Leader, value) == Leader(
            id="a", address="a:7070", since_ms=1_000
        )

    async def test_a_leadership_is_proven_for_the_lease_less_the_margin(self, store):
        a = candidate(store, "a")
        async with running(a):
            await asyncio.sleep(0)
            await leader_of(a)
            a.line.open.clear()
            start = asyncio.get_running_loop().time()
            await until(lambda: not a.leadership.is_proven)

            assert asyncio.get_running_loop().time() - start == pytest.approx(PROOF, abs=0.05)

    async def test_it_is_renewed_five_times_in_a_lease(self, store):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            await asyncio.sleep(50)

            assert a.reigns == []
            assert a.line.calls.count("keep_alive") == round(50 / (LEASE / 5))

    async def test_renewing_writes_nothing(self, store):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            await asyncio.sleep(100)

            assert (await store.list("")).revision == a.leadership.epoch

    async def test_the_proof_counts_from_when_a_renewal_was_sent(self, store):
        a = candidate(store, "a")
        a.line.delay_seconds = 0.5
        async with running(a):
            leader = await leader_of(a)
            await asyncio.sleep(20)
            lead_until = leader.leadership.lead_until
            await until(lambda: leader.leadership.lead_until != lead_until)

            now = asyncio.get_running_loop().time()
            # Two answers took half a second each since the keep-alive was sent.
            assert leader.leadership.lead_until == pytest.approx(now - 1 + PROOF, abs=0.02)

    async def test_an_epoch_is_higher_than_all_that_was_written_before(self, store):
        revision = await store.commit([Write("a", b"")])
        a = candidate(store, "a")
        async with running(a):
            assert (await leader_of(a)).leadership.epoch > revision


class TestFollowing:
    async def test_of_two_candidates_exactly_one_leads(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a, b):
            await leader_of(a, b)

            assert await watch_over(a, b, seconds=60) == 0
            assert len(a.reigns) + len(b.reigns) == 0

    async def test_followers_know_the_leader_and_where_it_answers(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a, b):
            leader = await leader_of(a, b)
            await asyncio.sleep(0.1)

            assert a.election.leader == b.election.leader
            assert b.election.leader.address == f"{leader.name}:7070"

    async def test_followers_are_told_of_a_change(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a) as tasks:
            await leader_of(a)
            async with running(b):
                await b.election.leader_changed()
                assert b.election.leader.id == "a"
                tasks["a"].cancel()
                await b.election.leader_changed()
                assert b.election.leader is None
                await b.election.leader_changed()
                assert b.election.leader.id == "b"

    async def test_following_asks_the_store_once_per_lease(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a):
            await leader_of(a)
            async with running(b):
                await asyncio.sleep(50)

        assert b.line.calls.count("list") <= 50 / LEASE + 1
        assert set(b.line.calls) == {"list"}

    async def test_a_leader_that_another_version_wrote_is_followed_all_the_same(self, store):
        lease = await store.grant(LEASE)
        await store.commit([Write(LEADER_KEY, b"\xff???", ANY, lease)])
        a = candidate(store, "a")
        async with running(a):
            await asyncio.sleep(LEASE - 0.5)
            assert a.leadership is None
            await asyncio.sleep(1)

            assert a.leadership.is_proven


class TestLosing:
    async def test_a_leader_that_stops_hands_over_at_once(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a) as tasks:
            await leader_of(a)
            async with running(b):
                await asyncio.sleep(1)
                tasks["a"].cancel()
                before = asyncio.get_running_loop().time()
                await leader_of(b)

                assert asyncio.get_running_loop().time() - before < 0.5
                assert not a.leadership.is_proven

    async def test_a_leader_that_dies_is_followed_within_its_lease(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a, b):
            dead = await leader_of(a, b)
            other = b if dead is a else a
            await asyncio.sleep(10)
            dead.line.open.clear()
            gap = await watch_over(a, b, seconds=20)

            assert other.leadership.is_proven
            assert gap < LEASE

    async def test_a_leader_cut_off_stops_before_another_begins(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a, b):
            old = await leader_of(a, b)
            new = b if old is a else a
            await asyncio.sleep(3.21)
            old.line.open.clear()
            await watch_over(a, b, seconds=15)

            assert new.leadership.is_proven
            ((_, end, epoch),) = old.reigns
            assert old.leadership.lost.is_set()
            assert new.leadership.epoch > epoch
            # The work was over, not only the proof, when the store could let go of the key.
            assert end <= 3.21 + 0.1 + PROOF

    async def test_an_answer_that_comes_too_late_brings_nothing_back(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        async with running(a, b):
            old = await leader_of(a, b)
            epoch = old.leadership.epoch
            await asyncio.sleep(1)
            old.line.open.clear()
            await asyncio.sleep(30)
            old.line.open.set()
            await watch_over(a, b, seconds=30)

            assert [reign[2] for reign in old.reigns] == [epoch]
            assert old.leadership.epoch == epoch
            assert len(leaders(a, b)) == 1

    async def test_a_short_failure_of_the_store_is_survived(self, store):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            for error in (Unavailable("full"), Ambiguous("who knows")):
                a.line.error = error
                await asyncio.sleep(2)
                a.line.error = None
                assert await watch_over(a, seconds=20) == 0

            assert a.reigns == []

    async def test_a_long_failure_ends_the_leadership_and_a_new_epoch_follows(self, store):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            epoch = a.leadership.epoch
            a.line.error = Unavailable("full")
            await asyncio.sleep(10)
            assert [reign[2] for reign in a.reigns] == [epoch]
            a.line.error = None
            await asyncio.sleep(1)

            assert a.leadership.is_proven
            assert a.leadership.epoch > epoch

    async def test_a_lease_that_the_store_dropped_ends_the_leadership_at_the_next_renewal(
        self, store
    ):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            first = a.leadership
            for lease in range(1, 5):
                await store.revoke(lease)
            await asyncio.wait_for(first.lost.wait(), LEASE / 3 + 0.1)

            assert not first.is_proven
            await leader_of(a)
            assert a.leadership.epoch > first.epoch

    async def test_a_lease_that_lives_without_the_key_is_not_enough(self, store):
        a = candidate(store, "a")
        async with running(a):
            await leader_of(a)
            first = a.leadership
            await store.commit([Write(LEADER_KEY, None)])
            await asyncio.wait_for(first.lost.wait(), LEASE / 3 + 0.1)

            await leader_of(a)
            assert a.leadership.epoch > first.epoch

    async def test_work_that_meets_a_fence_gives_the_leadership_up(self, store):
        a = candidate(store, "a")

        epochs = []

        async def fenced(leadership):
            epochs.append(leadership.epoch)
            async with asyncio.TaskGroup() as group:
                group.create_task(store.commit([Write("x", b"")], Fence(leadership.epoch + 1)))

        task = asyncio.create_task(a.election.run(fenced))
        await asyncio.sleep(2)
        assert epochs == sorted(set(epochs))
        assert 2 / (1.3 * 0.25) - 1 <= len(epochs) <= 2 / (0.7 * 0.25) + 1, "no pause between"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def test_stopping_in_the_very_moment_of_losing_stops(self, store):
        a = candidate(store, "a")
        task = asyncio.create_task(a.election.run(a.lead))
        await leader_of(a)
        await store.commit([Write(LEADER_KEY, None)])
        await a.leadership.lost.wait()
        task.cancel()

        await asyncio.wait([task], timeout=10)

        assert task.cancelled()

    async def test_work_that_returns_gives_the_leadership_back(self, store):
        a, b = candidate(store, "a"), candidate(store, "b")
        a.work_seconds = 7
        async with running(a):
            await leader_of(a)
            async with running(b):
                await asyncio.sleep(7.5)

                assert leaders(a, b) == [b]

    async def test_work_that_fails_ends_the_election_and_frees_the_lease(self, store):
        a = candidate(store, "a")

        async def fail(_):
            raise RuntimeError("a mistake of ours")

        with pytest.raises(ExceptionGroup) as raised:
            await a.election.run(fail)

        assert raised.group_contains(RuntimeError, match="a mistake of ours")
        assert await store.get(LEADER_KEY) is None

    async def test_work_is_over_before_its_candidate_stands_again(self, store):
        a = candidate(store, "a")
        active = 0

        async def slow_to_stop(leadership):
            nonlocal active
            a.leadership = leadership
            active += 1
            assert active == 1
            try:
                await asyncio.sleep(1_000)
            finally:
                assert not leadership.is_proven or cancelled
                await asyncio.sleep(3)
                active -= 1

        cancelled = False
        task = asyncio.create_task(a.election.run(slow_to_stop))
        await leader_of(a)
        first = a.leadership
        a.line.error = Unavailable("gone")
        await asyncio.sleep(6)
        a.line.error = None
        await asyncio.sleep(10)

        assert a.leadership.epoch > first.epoch
        cancelled = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class TestStanding:
    async def test_a_vote_whose_answer_is_lost_does_not_lead(self, store):
        a = candidate(store, "a")
        a.line.lose_answers = True
        async with running(a):
            await asyncio.sleep(3)
            assert a.leadership is None

            a.line.lose_answers = False
            await asyncio.sleep(LEASE + 1)
            assert a.leadership.is_proven

    async def test_winning_too_late_is_not_leading(self, store):
        a = candidate(store, "a")
        a.line.delay_seconds = PROOF / 2 + 0.1  # grant and commit together take longer than it
        async with running(a):
            await asyncio.sleep(60)
            assert a.leadership is None

            a.line.delay_seconds = 0
            await asyncio.sleep(LEASE + 3)
            assert a.leadership.is_proven

    async def test_candidates_that_lose_leave_no_lease_behind(self, store):
        many = [candidate(store, f"c{n}") for n in range(10)]
        async with running(*many):
            await leader_of(*many)
            await asyncio.sleep(1)

            alive = [lease for lease in range(1, 20) if await store.keep_alive(lease)]
            assert len(alive) == 1


@pytest.mark.parametrize("seed", range(8))
async def test_two_never_lead_at_once_whatever_befalls_their_lines(store, seed):
    chance = random.Random(seed)
    many = [
        candidate(store, name, clock=LoopClock(chance.uniform(0.99, 1.01), chance.random() * 1e6))
        for name in ("a", "b", "c")
    ]
    busy = asyncio.Event()

    async def trouble(each):
        while busy.is_set():
            await asyncio.sleep(chance.expovariate(1 / 5))
            kind = chance.choice(["hold", "error", "lose", "slow"])
            if kind == "hold":
                each.line.open.clear()
            elif kind == "error":
                each.line.error = chance.choice([Unavailable("x"), Ambiguous("x")])
            elif kind == "lose":
                each.line.lose_answers = True
            else:
                each.line.delay_seconds = chance.uniform(0, 3)
            await asyncio.sleep(chance.uniform(0, 12))
            each.line.open.set()
            each.line.error, each.line.lose_answers, each.line.delay_seconds = None, False, 0.0

    async with running(*many), asyncio.TaskGroup() as group:
        busy.set()
        for each in many:
            group.create_task(trouble(each))
        await watch_over(*many, seconds=200, step=0.1)
        busy.clear()
        await asyncio.sleep(40)
        assert await watch_over(*many, seconds=20, step=0.1) == 0

    epochs = sorted(reign for each in many for reign in each.reigns)
    assert len(epochs) > 2, "the trouble was too little to show anything"
    assert [reign[2] for reign in epochs] == sorted({reign[2] for reign in epochs})
    for (_, end, _), (start, _, _) in itertools.pairwise(epochs):
        assert end <= start, "the work of one leader overlapped the next one's"
