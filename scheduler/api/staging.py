"""A mutation as transactions: one where it fits, and where it does not, one that decides.

Objects (specs, files) are read by nobody before a head names them, so they may be written
first, piece by piece. Heads are read at once. What is too many of them for one transaction is
written as a draft (`cluster.drafts`), and the last transaction writes the stack's own record
with the draft's name in it, and the remembered answer. Before that transaction everybody sees
what was; from it on, what was asked for. An apply that is interrupted before it leaves objects
and drafts that nothing names, and `reconcile.orphans` forgets them.

A newcomer's mistake: counting changes only. etcd takes 1.5 MiB in one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeport import codec
from homeport.model import Service, Stack, Volume
from scheduler.api.errors import TooLarge
from scheduler.cluster import drafts, keys
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.cluster.drafts import Head
from scheduler.store.authority import Authority
from scheduler.store.base import Conflict

COMMIT_BYTES_MAX = 1_000_000
"""Of one transaction; a record that alone is larger goes alone."""
RECORD_BYTES_MAX = 1_400_000
"""Of one record, key and all: etcd takes 1.5 MiB at stock."""
DRAFT_HEADS_MAX = 500
"""In one record of a draft: a head is about 150 bytes."""


@dataclass(frozen=True, slots=True)
class Swing:
    """How heads that are too many for one transaction become the stack's."""

    stack: str
    drafts: tuple[Change, ...]
    last: tuple[Change, ...]  # one commit: the stack's record, and what is not of the stack
    heads: tuple[Change, ...]  # what the drafts hold, as it was proposed


async def commit(authority: Authority, objects: Sequence[Change], heads: Sequence[Change]) -> int:
    """Make a mutation's changes; everybody sees the heads at once, or never.

    Returns the revision from which on they are seen. Raises TooLarge, StoreError.
    """
    most = authority.committer.changes_max
    size = sum(map(size_bytes, objects)) + sum(map(size_bytes, heads))
    if len(objects) + len(heads) <= most and size <= COMMIT_BYTES_MAX:
        return await authority.commit([*objects, *heads])
    if len(heads) <= most and sum(map(size_bytes, heads)) <= COMMIT_BYTES_MAX:
        await _write(authority, objects)
        return await authority.commit(heads)
    # Every attempt writes something, so none begins at the revision of another.
    swing = as_swing(authority, heads, f"{authority.mirror.newest:x}")
    committer, fence = authority.committer, authority.fence
    held = [change.key for change in (*swing.heads, *swing.last)]
    async with committer.hold(held):
        tables = authority.mirror.tables
        changed = [each.key for each in heads if tables.version(each.key) != each.expect]
        if changed:
            raise Conflict(changed)
        await _write(authority, [*objects, *swing.drafts])
        return await committer.commit(swing.last, fence, holding=True, also=held)


def as_swing(authority: Authority, heads: Sequence[Change], draft: str) -> Swing:
    """Heads as a draft, and what makes it count. Raises TooLarge."""
    staged: list[Change] = []
    values: list[Head] = []
    last: list[Change] = []
    for change in heads:
        if isinstance(change, Put) and isinstance(change.value, Service | Volume):
            staged.append(change)
            values.append(change.value)
        else:
            last.append(change)
    stacks = {value.stack for value in values}
    view = authority.mirror.tables
    record = view.stack(min(stacks, default=""))
    version = view.version(keys.stack(record.name)) if record is not None else ABSENT
    for change in last:
        if isinstance(change, Put) and isinstance(change.value, Stack):
            record, version = change.value, change.expect
    if record is None or stacks != {record.name}:
        raise TooLarge(
            f"this changes {len(heads)} objects, and the store takes"
            f" {authority.committer.changes_max} at once: do it in parts"
        )
    swung = Put(replace(record, draft=draft), version, "applied")
    last = [swung, *(each for each in last if each.key != swung.key)]
    if sum(map(size_bytes, last)) > RECORD_BYTES_MAX or len(last) > authority.committer.changes_max:
        raise TooLarge(f"stack {record.name} is too large for one apply: split the stack")
    parts = drafts.split(record.name, draft, values, heads_max=DRAFT_HEADS_MAX)
    return Swing(
        stack=record.name,
        drafts=tuple(Put(part, ABSENT, "applied") for part in parts),
        last=tuple(last),
        heads=tuple(staged),
    )


async def _write(authority: Authority, changes: Sequence[Change]) -> None:
    """Write what nobody reads yet, in as many transactions as it takes."""
    most = authority.committer.changes_max
    batch: list[Change] = []
    batch_bytes = 0
    for change in changes:
        change_bytes = size_bytes(change)
        if change_bytes > RECORD_BYTES_MAX:
            raise TooLarge(
                f"{change.key} takes {change_bytes} bytes, and the store takes"
                f" {RECORD_BYTES_MAX} in one record: move what is large into files of the image,"
                " or split it"
            )
        if batch and (len(batch) == most or batch_bytes + change_bytes > COMMIT_BYTES_MAX):
            await authority.commit(batch)
            batch, batch_bytes = [], 0
        batch.append(change)
        batch_bytes += change_bytes
    if batch:
        await authority.commit(batch)


def size_bytes(change: Change) -> int:
    """About what a change takes in a transaction."""
    value = len(codec.encode_record(change.value)) if isinstance(change, Put) else 0
    return len(change.key) + value
