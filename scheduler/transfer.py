"""Bring a cluster's records from one store to another, or out of a backup, or into a new life.

Works on stores that no scheduler works on: it holds the leader's key itself meanwhile, so
none can begin to. What is written into is marked as *filling* first and loses that mark in the
last transaction, together with which the cluster's own record comes: a store is never half a
cluster. A newcomer's mistake: making the copy ready before the source is marked as moved. Two
stores of one cluster would then be ready, and each would find its agents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from homeport import codec
from homeport.backup import Entry, Header
from homeport.model import Cluster, Leader
from scheduler.cluster import keys
from scheduler.store import renewal, standing
from scheduler.store.base import ABSENT, ANY, LEADER_KEY, Conflict, Fence, Store, StoreError, Write
from scheduler.store.renewal import Digest, NotARecord
from scheduler.store.standing import FILLING_KEY, MOVED_KEY, Filling, Moved

LEASE_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 5.0
LEASES_END_SECONDS = 17.0
"""Longer than a node's lease: what a leader before us granted has ended by then. Between them a
backup and the present may have one exclusive task on two nodes, and only leases tell."""
LEADER_GONE_SECONDS = 8.0
"""A leader that was killed holds its key until its lease ends."""
BATCH_BYTES_MAX = 1_000_000
POLL_SECONDS = 0.2

log = structlog.get_logger(__name__)


class TransferRefused(Exception):
    """It was not begun; the text says why, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What is now in a store."""

    cluster: Cluster
    records: int


async def migrate(
    source: Store, target: Store, *, source_flag: str, target_flag: str, overwrite: bool = False
) -> Transferred:
    """Move a cluster. Raises TransferRefused, NotARecord, StoreError.

    Interrupted before the end it leaves the source as it was, or in the last moment marked as
    moved; the same again does it anew.
    """
    command = f"homeport store migrate --from {source_flag} --to {target_flag}"
    async with alone(source, command) as from_fence, alone(target, command) as to_fence:
        if (unfinished := await standing.filling(source)) is not None:
            raise TransferRefused(
                f"the store {source.name} is not complete: it was being filled from"
                f" {unfinished.source}"
            )
        entries = await _entries(source)
        if not entries:
            raise TransferRefused(f"there is no cluster in the store {source.name}")
        cluster = renewal.cluster_of(dict(entries))
        gone = await standing.moved(source)
        if gone is not None and not await _is_of(target, cluster.id, only_unfinished=True):
            raise TransferRefused(f"{source.name} was moved to {gone.to} on {gone.at} already")
        older = await _make_room(
            target, to_fence, cluster=cluster.id, overwrite=overwrite, command=command
        )
        incarnation = max(cluster.incarnation, older, gone.incarnation if gone else 0) + 1
        copied = renewal.moved(entries, incarnation)
        note = Filling(source=source.name, cluster=cluster.id, command=command)
        await _fill(target, to_fence, copied, note)
        before = renewal.digest(entries)
        if renewal.digest(await _entries(source)) != before:
            raise TransferRefused(
                f"the store {source.name} changed while it was copied: stop all schedulers first"
            )
        moved = Moved(
            to=target.name,
            flag=target_flag,
            cluster=cluster.id,
            incarnation=incarnation,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        await source.commit([Write(MOVED_KEY, standing.encoded(moved))], from_fence)
        return await _finish(target, to_fence, copied)


async def restore(
    header: Header, entries: Sequence[Entry], target: Store, *, source: str, overwrite: bool
) -> Transferred:
    """Put a backup's records into a store. Raises TransferRefused, NotARecord, StoreError."""
    if header.schema > codec.SCHEMA_VERSION:
        raise TransferRefused(
            f"{source} has records of schema {header.schema}, and this version of Homeport reads"
            f" up to {codec.SCHEMA_VERSION}: restore it with Homeport {header.version}"
        )
    own = [entry for entry in entries if renewal.is_of_cluster(entry[0])]
    cluster = renewal.cluster_of(dict(own))
    command = f"homeport restore {source}"
    async with alone(target, command) as fence:
        older = await _make_room(
            target, fence, cluster=cluster.id, overwrite=overwrite, command=command
        )
        renewed = renewal.renewed(own, max(cluster.incarnation, older) + 1)
        note = Filling(source=source, cluster=cluster.id, command=command)
        leases_end = asyncio.get_running_loop().time() + LEASES_END_SECONDS
        await _fill(target, fence, renewed, note)
        await _wait_for_leases(renewed, leases_end)
        return await _finish(target, fence, renewed)


async def accept(store: Store) -> Transferred:
    """Begin the next incarnation with what the store holds. Raises as `migrate`.

    For a store that was moved elsewhere, or whose past was swapped under it.
    """
    async with alone(store, "homeport store accept-restore") as fence:
        if (unfinished := await standing.filling(store)) is not None:
            raise TransferRefused(
                f"the store {store.name} is not complete: it was being filled from"
                f" {unfinished.source}. Run `{unfinished.command}` again"
            )
        entries = await _entries(store)
        if not entries:
            raise TransferRefused(f"there is no cluster in the store {store.name}")
        cluster = renewal.cluster_of(dict(entries))
        gone = await standing.moved(store)
        incarnation = max(cluster.incarnation, gone.incarnation if gone else 0) + 1
        known = dict(entries)
        leases_end = asyncio.get_running_loop().time() + LEASES_END_SECONDS
        renewed = renewal.renewed(entries, incarnation)
        changed = [each for each in renewed if known[each[0]] != each[1]]
        services = [each for each in changed if each[0] != keys.CLUSTER]
        for batch in _batches(store, services):
            await store.commit([Write(key, value) for key, value in batch], fence)
        await _wait_for_leases(entries, leases_end)
        fresh = next(value for key, value in changed if key == keys.CLUSTER)
        await store.commit([Write(keys.CLUSTER, fresh), Write(MOVED_KEY, None)], fence)
        return Transferred(cluster=codec.decode_record(Cluster, fresh), records=len(entries))


async def clear(store: Store, *, overwrite: bool = False) -> int:
    """Delete what an interrupted transfer left; how many records. Raises as `migrate`.

    `overwrite`: also the records of a whole cluster.
    """
    async with alone(store, "homeport store clear") as fence:
        if not overwrite and await _entries(store) and await standing.filling(store) is None:
            cluster = await store.get(keys.CLUSTER)
            raise TransferRefused(
                f"the store {store.name} holds {_named(cluster.value if cluster else b'')}:"
                " --overwrite deletes it"
            )
        return await _clear(store, fence, "homeport store clear --overwrite")


@asynccontextmanager
async def alone(store: Store, command: str) -> AsyncIterator[Fence]:
    """Hold the leader's key, so that no scheduler works on the store meanwhile.

    Raises TransferRefused where one does.
    """
    lease = await store.grant(LEASE_SECONDS)
    me = codec.encode_record(Leader(id=command))
    deadline = asyncio.get_running_loop().time() + LEADER_GONE_SECONDS
    while True:
        try:
            epoch = await store.commit([Write(LEADER_KEY, me, ABSENT, lease)])
            break
        except Conflict:
            if asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(POLL_SECONDS)
                continue
            await store.revoke(lease)
            raise TransferRefused(
                f"{await _leader(store)} works on the store {store.name}: stop all schedulers"
                " first; containers run on"
            ) from None
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as background:
            keeping = background.create_task(_keep_alive(store, lease), name="leader's key")
            try:
                yield Fence(epoch)
            except (TransferRefused, NotARecord, StoreError) as error:
                failure = error  # raised below: a TaskGroup would make a group of it
            finally:
                keeping.cancel()
    finally:
        with suppress(StoreError):
            await store.revoke(lease)
    if failure is not None:
        raise failure


async def _keep_alive(store: Store, lease: int) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        try:
            await store.keep_alive(lease)
        except StoreError as error:
            # The fence of every commit says whether it still holds.
            log.warning("cannot renew the leader's key", why=str(error))


async def _leader(store: Store) -> str:
    record = await store.get(LEADER_KEY)
    if record is None:
        return "a scheduler"
    try:
        leader = codec.decode_record(Leader, record.value)
    except codec.CodecError:
        return "a scheduler"
    return f"{leader.id} at {leader.address}" if leader.address else leader.id


async def _entries(store: Store) -> list[Entry]:
    return renewal.entries_of(await store.list(""))


async def _is_of(store: Store, cluster: str, *, only_unfinished: bool = False) -> bool:
    """Whether a store holds an older copy of this cluster, or the beginning of one."""
    unfinished = await standing.filling(store)
    if unfinished is not None:
        return unfinished.cluster == cluster
    gone = await standing.moved(store)
    return not only_unfinished and gone is not None and gone.cluster == cluster


async def _make_room(
    target: Store, fence: Fence, *, cluster: str, overwrite: bool, command: str
) -> int:
    """Empty the target where that may be; the incarnation of this cluster that was there.

    Raises TransferRefused when it holds something that is wanted.
    """
    listing = await target.list("")
    record = next((each for each in listing.records if each.key == keys.CLUSTER), None)
    own = [each for each in listing.records if each.key != LEADER_KEY]
    held = [each for each in own if renewal.is_of_cluster(each.key)]
    if held and not overwrite and not await _is_of(target, cluster):
        raise TransferRefused(
            f"the store {target.name} is not empty: it holds"
            f" {_named(record.value if record else b'')}. Give another store, or say --overwrite"
            " to delete that for ever"
        )
    older = 0
    with suppress(codec.CodecError):
        there = codec.decode_record(Cluster, record.value) if record is not None else None
        if there is not None and there.id == cluster:
            older = there.incarnation
    gone = await standing.moved(target)
    if gone is not None and gone.cluster == cluster:
        older = max(older, gone.incarnation)
    if own:
        await _clear(target, fence, command)
    return older


async def _clear(store: Store, fence: Fence, command: str) -> int:
    """Delete everything but the leader's key and who is there."""
    note = Filling(source="nothing: it was being emptied", cluster="", command=command)
    await store.commit([Write(FILLING_KEY, standing.encoded(note))], fence)
    listing = await store.list("")
    doomed = [
        (record.key, b"")
        for record in listing.records
        if renewal.is_of_cluster(record.key)
        or (record.key.startswith(renewal.META) and record.key != FILLING_KEY)
    ]
    for batch in _batches(store, doomed):
        await store.commit([Write(key, None) for key, _ in batch], fence)
    await store.commit([Write(FILLING_KEY, None)], fence)
    return sum(renewal.is_of_cluster(key) for key, _ in doomed)


async def _fill(store: Store, fence: Fence, entries: Sequence[Entry], note: Filling) -> None:
    """Write all records but the cluster's own, and see that they are there."""
    await store.commit([Write(FILLING_KEY, standing.encoded(note))], fence)
    body = [entry for entry in entries if entry[0] != keys.CLUSTER]
    written = 0
    for batch in _batches(store, body):
        await store.commit([Write(key, value, ABSENT) for key, value in batch], fence)
        written += len(batch)
        log.info("written", records=written, of=len(body), store=store.name)
    if await _digest(store) != renewal.digest(sorted(body, key=lambda entry: entry[0].encode())):
        raise TransferRefused(f"what is in {store.name} is not what was written: nothing is moved")


async def _wait_for_leases(entries: Sequence[Entry], leases_end: float) -> None:
    """Let the leases end under which an exclusive task may run that no record speaks of."""
    left = leases_end - asyncio.get_running_loop().time()
    if left > 0 and renewal.leases_matter(entries):
        log.info("waits until all leases have ended: there are exclusive tasks", seconds=left)
        await asyncio.sleep(left)


async def _finish(store: Store, fence: Fence, entries: Sequence[Entry]) -> Transferred:
    """The last transaction: from now on the store is the cluster's."""
    value = dict(entries)[keys.CLUSTER]
    await store.commit([Write(keys.CLUSTER, value, ANY), Write(FILLING_KEY, None)], fence)
    return Transferred(cluster=codec.decode_record(Cluster, value), records=len(entries))


async def _digest(store: Store) -> Digest:
    found = await _entries(store)
    return renewal.digest(
        sorted((each for each in found if each[0] != keys.CLUSTER), key=lambda e: e[0].encode())
    )


def _batches(store: Store, entries: Sequence[Entry]) -> list[list[Entry]]:
    most = store.operations_max - 2  # the fence is one more
    return list(renewal.batches(entries, count_max=most, bytes_max=BATCH_BYTES_MAX))


def _named(value: bytes) -> str:
    with suppress(codec.CodecError):
        cluster = codec.decode_record(Cluster, value)
        return f"cluster {cluster.id} (incarnation {cluster.incarnation})"
    return "records of a cluster"
