"""The records of a cluster on their way into another store, or into a new life.

What a store holds beyond the cluster's records belongs to that store: who leads, who is
there, marks of its writers. It is not copied. A store that is restored, or whose past was
swapped under it, begins the next *incarnation*, because agents have journalled orders that
it knows nothing of. A newcomer's mistake: raising the incarnation alone. Between the backup
and its restoration slots had tasks that the backup does not know, and ids are never used
twice; so the numbers of tasks jump.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import homeport
from homeport import codec
from homeport.backup import Entry, Header
from homeport.model import Cluster, Service, Task, TaskId, split_task_id
from scheduler.cluster import keys, numbering
from scheduler.store.base import LEADER_KEY, SCHEDULERS, Listing

META = "meta/"
"""Prefix of the keys that speak of the store itself."""


class NotARecord(ValueError):
    """A record that must be understood to go on cannot be read; a sentence."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Enough of many records to see whether two stores hold the same."""

    count: int
    sha256: str


def is_of_cluster(key: str) -> bool:
    """Whether a record is the cluster's, and not the store's own."""
    return key != LEADER_KEY and not key.startswith((SCHEDULERS, META))


def entries_of(listing: Listing) -> list[Entry]:
    """The cluster's records in a listing of everything."""
    return [(record.key, record.value) for record in listing.records if is_of_cluster(record.key)]


def header_of(listing: Listing, store_name: str, now_ms: int) -> Header:
    """What a backup of everything that is listed says of itself. Raises NotARecord."""
    cluster = cluster_of(dict(entries_of(listing)))
    return Header(
        cluster=cluster.id,
        incarnation=cluster.incarnation,
        revision=listing.revision,
        schema=codec.SCHEMA_VERSION,
        version=homeport.__version__,
        store=store_name,
        created_ms=now_ms,
    )


def may_run_elsewhere(task: Task) -> bool:
    """Whether a newer task of its slot, of which a store that is restored knows nothing, may run
    on another node, for as long as its lease lasts."""
    return task.exclusive and not task.pinned and task.outcome is None


def leases_matter(entries: Iterable[Entry]) -> bool:
    """Whether any task among the records may run elsewhere; one that cannot be read may."""
    for key, value in entries:
        if key.startswith("tasks/"):
            try:
                if may_run_elsewhere(codec.decode_record(Task, value)):
                    return True
            except codec.CodecError:
                return True
    return False


def digest(entries: Iterable[Entry]) -> Digest:
    """Of records in the order of their keys."""
    found, count = hashlib.sha256(), 0
    for key, value in entries:
        name = key.encode()
        found.update(b"%d %d " % (len(name), len(value)) + name + value)
        count += 1
    return Digest(count, found.hexdigest())


def cluster_of(entries: Mapping[str, bytes]) -> Cluster:
    """The cluster's own record. Raises NotARecord."""
    if keys.CLUSTER not in entries:
        raise NotARecord("there is no cluster in the store: its own record is missing")
    try:
        return codec.decode_record(Cluster, entries[keys.CLUSTER])
    except codec.CodecError as error:
        raise NotARecord(f"the cluster's own record cannot be read: {error}") from error


def moved(entries: Sequence[Entry], incarnation: int) -> list[Entry]:
    """The records of a cluster that goes on in another store. Raises NotARecord."""
    cluster = replace(cluster_of(dict(entries)), incarnation=incarnation)
    return [
        (key, codec.encode_record(cluster) if key == keys.CLUSTER else value)
        for key, value in entries
    ]


def renewed(entries: Sequence[Entry], incarnation: int) -> list[Entry]:
    """The records of a cluster whose latest past is lost. Raises NotARecord."""
    highest = highest_tasks(key for key, _ in entries)
    return [
        (key, _renewed_service(key, value, highest) if key.startswith("services/") else value)
        for key, value in moved(entries, incarnation)
    ]


def highest_tasks(found: Iterable[str]) -> dict[str, int]:
    """By service the highest number that a task has; from the keys of records."""
    highest: dict[str, int] = {}
    for key in found:
        kind, _, rest = key.partition("/")
        if kind == "tasks":
            service, _, n = split_task_id(TaskId(rest))
            highest[service] = max(highest.get(service, 0), n)
    return highest


def batches(entries: Iterable[Entry], *, count_max: int, bytes_max: int) -> Iterator[list[Entry]]:
    """Records in groups that fit into one commit each; one that is larger goes alone."""
    batch: list[Entry] = []
    size_bytes = 0
    for key, value in entries:
        each_bytes = len(key.encode()) + len(value)
        if batch and (len(batch) == count_max or size_bytes + each_bytes > bytes_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append((key, value))
        size_bytes += each_bytes
    if batch:
        yield batch


def _renewed_service(key: str, value: bytes, highest: Mapping[str, int]) -> bytes:
    try:
        service = codec.decode_record(Service, value)
    except codec.CodecError as error:
        raise NotARecord(f"{key} cannot be read: {error}") from error
    return codec.encode_record(numbering.skipped(service, highest.get(service.id, 0)))
