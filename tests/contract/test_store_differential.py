"""The same random operations on every store: not one answer may differ.

Two ways to choose them. Hypothesis makes a failure as small as can be, on the two stores that
start in no time, restarts included. Seeds run long on all three, a real etcd among them: a failure
names its seed and the number of the operation. The long profile (marker `slow`) plays 100,000:

    [SEED=7 OPERATIONS=9000] python -m pytest tests/contract/test_store_differential.py -m slow

Stores need not agree on numbers: etcd's revision may begin anywhere. What a player answers is
counted from where it began.
"""

import asyncio
import contextlib
import os
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from homeport.seams import SystemClock
from scheduler.store.base import (
    ABSENT,
    ANY,
    LEADER_KEY,
    OPERATIONS_MAX,
    Batch,
    Compacted,
    Fence,
    Fenced,
    LeaseGone,
    Listing,
    Record,
    StoreChange,
    StoreError,
    Write,
)
from scheduler.store.memory import MemoryStore
from scheduler.store.sqlite import SqliteStore
from tests.contract.stores import etcd_store, quick_etcd

WAIT_SECONDS = 30
LEASE_SECONDS = 3_600
KEYS = ("a", "a/1", "a/2", "b", "b/ä", LEADER_KEY)
PREFIXES = ("", "a", "a/", "b/", "lead")
NO_LEASE = 987_654_321


class Player:
    """Plays operations on one store; what they refer to is looked up in that store alone."""

    def __init__(self, name, open_store):
        self.name = name
        self.open_store = open_store
        self.leases = []

    async def start(self):
        self.store = await self.open_store()
        self.base = (await self.store.list("")).revision
        self.leases = [await self.store.grant(LEASE_SECONDS)]
        self.watch = None

    async def end(self):
        await self.drop_watch()
        for lease in self.leases:  # or it would end in the midst of a later sequence
            await self.store.revoke(lease)
        await self.store.close()

    async def play(self, operation, *arguments):
        try:
            return self.relative(await getattr(self, f"play_{operation}")(*arguments))
        except LeaseGone:
            return "LeaseGone"  # its text tells the number of the lease, which may differ
        except (Fenced, Compacted) as error:
            return type(error), re.sub(r"\d+", lambda n: self.counted(int(n[0])), str(error))
        except (StoreError, ValueError) as error:
            return type(error), str(error)

    def relative(self, answer):
        """The answer, its revisions counted from where this player began."""
        match answer:
            case Record() | StoreChange():
                created = answer.created - self.base if answer.created else 0
                return (answer.key, answer.value, answer.version - self.base, created)
            case Listing():
                records = [self.relative(record) for record in answer.records]
                return records, answer.revision - self.base
            case list():
                return [self.relative(each) for each in answer]
            case ("revision", revision):
                return revision - self.base
        return answer

    def counted(self, revision):
        return str(revision - self.base if revision else 0)

    def lease(self, index):
        if index is None:
            return 0
        return self.leases[index] if index < len(self.leases) else NO_LEASE

    async def play_commit(self, proposed, fence):
        listing = await self.store.list("")
        records = {record.key: record for record in listing.records}
        writes = []
        for key, value, expect, lease in proposed:
            seen = records[key].version if key in records else ABSENT
            versions = {"any": ANY, "absent": ABSENT, "seen": seen, "stale": listing.revision + 7}
            writes.append(Write(key, value, versions[expect], self.lease(lease)))
        leader = records.get(LEADER_KEY)
        epochs = {"epoch": leader.created if leader else 0, "stale": listing.revision + 7}
        made = await self.store.commit(writes, Fence(epochs[fence]) if fence else None)
        return "revision", made

    async def play_get(self, key):
        return await self.store.get(key)

    async def play_list(self, prefix):
        return await self.store.list(prefix)

    async def play_watch(self, prefix, back):
        """All changes of the last so many revisions, by a watch of its own."""
        end = f"{prefix}~end"
        revision = await self.store.commit([Write(end, b"")])
        after = max(self.base, revision - 1 - back)
        async with contextlib.aclosing(self.store.watch(prefix, after)) as watch:
            return await self.read(watch, revision)

    async def play_follow(self, prefix):
        """Begin a watch that goes on beside the other operations."""
        await self.drop_watch()
        self.watched = prefix
        self.watch = self.store.watch(prefix, (await self.store.list("")).revision)

    async def play_read(self):
        """What that watch has told since it was read last."""
        if self.watch is None:
            return None
        revision = await self.store.commit([Write(f"{self.watched}~end", b"")])
        return await self.read(self.watch, revision)

    async def read(self, watch, revision):
        found = []
        async with asyncio.timeout(WAIT_SECONDS):
            async for batch in watch:
                assert isinstance(batch, Batch)
                found.extend(batch.changes)
                if batch.revision >= revision:
                    return found
        raise AssertionError("a watch ended")

    async def drop_watch(self):
        if self.watch is not None:
            await self.watch.aclose()
            self.watch = None

    async def play_compact(self, back):
        # A watch that is behind may have been told the rest already, or not: both are right.
        heard = await self.play_read()
        revision = (await self.store.list("")).revision - back
        await self.store.compact(max(self.base, revision))
        return heard

    async def play_grant(self):
        self.leases.append(await self.store.grant(LEASE_SECONDS))

    async def play_revoke(self, index):
        return await self.store.revoke(self.lease(index))

    async def play_keep_alive(self, index):
        return await self.store.keep_alive(self.lease(index))

    async def play_restart(self):
        """What is durable stays; what was leased goes with the process that held the lease."""
        await self.drop_watch()
        if self.name == "memory":  # which has nothing to come back from
            leased = [key for lease in self.leases for key in self.store._leases.end(lease)]
            self.store._apply([Write(key, None) for key in sorted(leased)])
            self.leases = [await self.store.grant(LEASE_SECONDS)]
        else:
            base = self.base
            await self.store.close()
            await self.start()
            self.base = base
        return "revision", (await self.store.list("")).revision

    async def play_reopen(self):
        """A client that ends its leases, goes, and comes back."""
        await self.drop_watch()
        for lease in self.leases:
            await self.store.revoke(lease)
        if self.name != "memory":
            base = self.base
            await self.store.close()
            await self.start()
            self.base = base
        else:
            self.leases = [await self.store.grant(LEASE_SECONDS)]
        return "revision", (await self.store.list("")).revision


async def memory():
    return MemoryStore(SystemClock())


def sqlite(folder):
    return lambda: SqliteStore.open(Path(folder) / "store.db", clock=SystemClock())


def etcd_client(server):
    prefix = f"/differential/{next(_numbers)}/"

    async def open_store():
        return etcd_store(server, prefix=prefix)

    return open_store


_numbers = iter(range(1_000_000))


async def compare(players, numbered):
    """Play each operation on all, and hold the answers together."""
    for player in players:
        await player.start()
    try:
        for number, operation in numbered:
            answers = {player.name: await player.play(*operation) for player in players}
            assert answers == dict.fromkeys(answers, answers["memory"]), (number, operation)
    finally:
        for player in players:
            await player.end()


# ------------------------------------------------------------------ found and made small

writes = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.none() | st.binary(max_size=3),
        st.sampled_from(["any", "any", "seen", "seen", "absent", "stale"]),
        st.sampled_from([None, None, 0, 1, 2]),
    ),
    min_size=1,
    max_size=4,
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), writes, st.none()),
        st.tuples(st.just("commit"), writes, st.none()),
        st.tuples(st.just("commit"), st.just([]) | writes, st.sampled_from(["epoch", "stale"])),
        st.tuples(st.just("get"), st.sampled_from(KEYS)),
        st.tuples(st.just("list"), st.sampled_from(PREFIXES)),
        st.tuples(st.just("watch"), st.sampled_from(PREFIXES), st.integers(0, 30)),
        st.tuples(st.just("follow"), st.sampled_from(PREFIXES)),
        st.tuples(st.just("read")),
        st.tuples(st.just("compact"), st.integers(-2, 20)),
        st.tuples(st.just("grant")),
        st.tuples(st.just("revoke"), st.integers(0, 2)),
        st.tuples(st.just("keep_alive"), st.integers(0, 2)),
        st.tuples(st.just("restart")),
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.timeout(300)  # a failure is made as small as can be
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations)
async def test_the_same_operations_are_answered_alike_on_this_machine(operations):
    with tempfile.TemporaryDirectory() as folder:
        players = [Player("memory", memory), Player("sqlite", sqlite(folder))]
        await compare(players, enumerate(operations))


# ------------------------------------------------------------------ long, with etcd


def sequence(chance, count):
    """So many operations, weighted as a cluster would have them, and worse."""
    kinds = {
        "commit": 40,
        "fenced": 12,
        "many": 1,
        "get": 6,
        "list": 6,
        "watch": 8,
        "follow": 2,
        "read": 8,
        "compact": 5,
        "grant": 4,
        "revoke": 3,
        "keep_alive": 4,
        "reopen": 1,
    }
    chosen = chance.choices(list(kinds), list(kinds.values()), k=count)
    for number, kind in enumerate(chosen):
        match kind:
            case "commit":
                yield number, ("commit", proposal(chance), None)
            case "fenced":
                proposed = proposal(chance) if chance.random() < 0.8 else []
                yield number, ("commit", proposed, chance.choice(["epoch", "epoch", "stale"]))
            case "many":
                size = OPERATIONS_MAX + chance.choice([-1, 0, 0, 1])
                yield number, ("commit", [(f"m/{n}", b"", "any", None) for n in range(size)], None)
            case "get":
                yield number, ("get", chance.choice(KEYS))
            case "list" | "follow":
                yield number, (kind, chance.choice(PREFIXES))
            case "watch":
                yield number, ("watch", chance.choice(PREFIXES), chance.randrange(30))
            case "compact":
                yield number, ("compact", chance.randrange(-2, 20))
            case "revoke" | "keep_alive":
                yield number, (kind, chance.randrange(4))
            case _:
                yield number, (kind,)


def proposal(chance):
    return [
        (
            key,
            None if chance.random() < 0.3 else chance.randbytes(chance.randrange(4)),
            chance.choice(["any", "any", "seen", "seen", "seen", "absent", "stale"]),
            chance.choice([None, None, None, 0, 1, 2, 3]),
        )
        for key in chance.choices(KEYS, k=chance.randrange(1, 5))
    ]


@pytest.fixture(scope="module")
def own_etcd():
    """Nobody else writes to it: a revision more or less is a difference."""
    with quick_etcd() as etcd:
        yield etcd


async def play(seed, count, etcd, folder):
    players = [
        Player("memory", memory),
        Player("sqlite", sqlite(folder)),
        Player("etcd", etcd_client(etcd)),
    ]
    try:
        await compare(players, sequence(random.Random(seed), count))
    except AssertionError as error:
        error.add_note(f"seed {seed}, {count} operations")
        raise


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
async def test_three_stores_answer_the_same_operations_alike(seed, own_etcd, tmp_path):
    await play(seed, 600, own_etcd, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_three_stores_answer_a_hundred_thousand_operations_alike(own_etcd, tmp_path):
    count = int(os.environ.get("OPERATIONS", "100000"))
    first = int(os.environ.get("SEED", "1000"))
    for number in range(max(1, count // 2_000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        await play(first + number, min(count, 2_000), own_etcd, folder)
