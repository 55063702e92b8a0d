"""Specs, files and drafts that nobody refers to: what an apply that failed half way left.

An apply writes its objects first and its heads last, so an object without a head may be a
moment old and about to be wanted. Objects carry no time; what is here at two looks, far
enough apart and unchanged, is forgotten. A newcomer's mistake: an apply may find the file
that it needs among the orphans. It then writes it again (`admission`), and whoever of the
two comes second sees a conflict.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeport.model import ServiceGeneration, StackDraft, StackFile
from scheduler.cluster import keys
from scheduler.cluster.changes import Delete
from scheduler.cluster.snapshot import Snapshot

KEPT_SECONDS = 600.0


class Orphans:
    """Remembers since when, for one term of leadership. Owned by the controller."""

    def __init__(self) -> None:
        """None was seen yet."""
        self._seen: dict[str, tuple[int, float]] = {}  # (version, boot time of the first look)

    def decide(self, snapshot: Snapshot) -> list[Delete]:
        """Delete those that were here long ago. Walks all of them: for once an hour."""
        stored = snapshot.stored
        if stored.unreadable:
            return []  # what a newer version wrote may refer to any of them
        seen: dict[str, tuple[int, float]] = {}
        for value in _unreferred(snapshot):
            key = keys.key_of(value)
            version = stored.version(key)
            known = self._seen.get(key)
            seen[key] = known if known and known[0] == version else (version, snapshot.now)
        self._seen = seen
        return [
            Delete(key, version, "nothing refers to it")
            for key, (version, since) in seen.items()
            if snapshot.now - since >= KEPT_SECONDS
        ]


def images_in_use(snapshot: Snapshot) -> frozenset[str] | None:
    """The ids of the images that some stored spec names; None: it cannot be known now."""
    if snapshot.stored.unreadable:
        return None
    return frozenset(
        edition.spec.container.image_id
        for edition in snapshot.stored.specs()
        if edition.spec.container.image_id
    )


def _unreferred(snapshot: Snapshot) -> Iterator[ServiceGeneration | StackFile | StackDraft]:
    stored = snapshot.stored
    mounted: set[tuple[str, str]] = set()
    for edition in stored.specs():
        head = stored.service(edition.service)
        if head is not None:
            mounted |= {(head.stack, mount.digest) for mount in edition.spec.container.files}
        # Below a head `reaper.service` sees to it, whenever it looks at the service.
        if (head is None or edition.generation > head.generation) and not any(
            task.generation == edition.generation
            for task in stored.tasks_of_service(edition.service)
        ):
            yield edition
    for draft in stored.drafts():
        stack = stored.stack(draft.stack)
        if stack is None or stack.draft != draft.id:
            yield draft
    for file in stored.files():
        if (file.stack, file.digest) not in mounted:
            yield file
