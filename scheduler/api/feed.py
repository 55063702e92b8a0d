"""Changes of the cluster in the order in which this scheduler learnt of them, for watchers.

`Feed` is a leader's: one counter covers stored and observed changes of an epoch, and a bounded
ring remembers which keys changed at which count, so that a watcher that comes back is told
just that. `StoredFeed` is every scheduler's, for as long as it lives: stored objects alone,
counted by the store's revision, which means the same to all schedulers. What is sent is always
the object as it is now: a slow watcher misses steps, never the end, and never makes the
scheduler keep more than one mark for each object.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from homeport.model import Rollout, Service, ServiceGeneration, Stack, Task
from scheduler.api.errors import Unwell
from scheduler.store.authority import Authority
from scheduler.store.mirror import Mirror, MirrorChange

RING = 10_000
PENDING_MAX = 20_000
"""Marks that are kept for one reader. Objects that are gone count too, and never end."""
EVENTS_PENDING_MAX = 2_000


class Watcher:
    """One reader's marks: which keys it has yet to look at."""

    def __init__(self) -> None:
        """Nothing is marked."""
        self.pending: dict[str, None] = {}
        self.overrun = False
        self.wake = asyncio.Event()
        self._events = 0

    def mark(self, key: str) -> None:
        """Something about this key changed."""
        if key.startswith("events/"):
            self._events += 1
        if self._events > EVENTS_PENDING_MAX or len(self.pending) >= PENDING_MAX:
            # It will be told everything: what was marked is in that.
            self.overrun = True
            self.pending.clear()
        elif not self.overrun:
            self.pending[key] = None
        self.wake.set()

    def take(self) -> list[str]:
        """All marks, which are then gone; what was overrun is forgotten with them."""
        taken = list(self.pending)
        self.pending.clear()
        self.overrun = False
        self._events = 0
        self.wake.clear()
        return taken


class StoredFeed:
    """The changes of stored objects, by revision."""

    def __init__(self, mirror: Mirror) -> None:
        """Remembers nothing before `begin`, unless the mirror has read the store already."""
        self._mirror = mirror
        self._ring: deque[tuple[int, str]] = deque()
        self._oldest = mirror.newest  # changes behind this are all in the ring; 0: none are
        self._watchers: set[Watcher] = set()
        mirror.subscribe(self._committed)

    def begin(self) -> None:
        """The mirror has read the store: what comes now are changes."""
        self._oldest = self._mirror.newest

    def watch(self) -> tuple[Watcher, Callable[[], None]]:
        """A watcher that is told of everything from now on, and what ends it."""
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher, lambda: self._watchers.discard(watcher)

    def since(self, revision: int) -> list[str] | None:
        """The keys that changed behind that revision; None: the ring does not reach back."""
        if not self._oldest or revision < self._oldest:
            return None
        return list(dict.fromkeys(key for at, key in self._ring if at > revision))

    def _committed(self, changes: Sequence[MirrorChange]) -> None:
        # A commit of our own may be in ahead of older ones of others. With the newest revision
        # for all, a reader may be told an object again, and is never told too little.
        at = self._mirror.newest
        if not self._oldest:
            return  # the first reading of the store, which is no change
        for change in changes:
            for key in shown_keys(change.key):
                self._ring.append((at, key))
                for watcher in self._watchers:
                    watcher.mark(key)
        while len(self._ring) > RING:
            self._oldest, _ = self._ring.popleft()


def shown_keys(key: str) -> tuple[str, ...]:
    """Which of the objects that users see change with the stored record of this key."""
    kind, _, rest = key.partition("/")
    match kind:
        case "stacks" | "services" | "tasks" | "nodes":
            return (key,)
        case "rollouts":
            return (f"services/{rest}",)
        case "specs":
            return (f"services/{rest.rpartition('/')[0]}",)
        case _:
            return ()


class Feed:
    """The changes of one epoch."""

    def __init__(self, authority: Authority) -> None:
        """Counts from now on."""
        self.epoch = authority.epoch
        self.sequence = 0
        self._authority = authority
        self._ring: deque[tuple[int, str]] = deque(maxlen=RING)
        self._watchers: set[Watcher] = set()
        self._over = False
        self._unsubscribe = authority.mirror.subscribe(self._committed)
        authority.observed.listeners.append(self._observed)

    def check(self) -> None:
        """Raise Unwell when the epoch has ended."""
        if self._over:
            raise Unwell("this scheduler leads no more; ask again")

    def watch(self) -> tuple[Watcher, Callable[[], None]]:
        """A watcher that is told of everything from now on, and what ends it."""
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher, lambda: self._watchers.discard(watcher)

    def since(self, epoch: int, sequence: int) -> list[str] | None:
        """The keys that changed behind that place; None: it cannot be told any more."""
        if epoch != self.epoch or sequence > self.sequence:
            return None
        oldest = self._ring[0][0] if self._ring else self.sequence + 1
        if sequence < oldest - 1:
            return None
        return list(dict.fromkeys(key for at, key in self._ring if at > sequence))

    def close(self) -> None:
        """The epoch ends; all watchers are woken to see it."""
        self._over = True
        self._unsubscribe()
        self._authority.observed.listeners.remove(self._observed)
        for watcher in self._watchers:
            watcher.wake.set()

    # ------------------------------------------------------------ inside

    def _changed(self, key: str) -> None:
        self.sequence += 1
        self._ring.append((self.sequence, key))
        for watcher in self._watchers:
            watcher.mark(key)

    def _observed(self, key: str) -> None:
        self._changed(key)
        if key.startswith("tasks/"):
            service, slot, n = key.removeprefix("tasks/").rsplit("/", 2)
            self._changed(f"services/{service}")
            if n != "0":
                self._node_of(f"{service}/{slot}/{n}")

    def _node_of(self, task_id: str) -> None:
        task = self._authority.mirror.tables.value(f"tasks/{task_id}")
        if isinstance(task, Task):
            self._changed(f"nodes/{task.node}")

    def _committed(self, changes: Sequence[MirrorChange]) -> None:
        for change in changes:
            record = change.new if change.new is not None else change.old
            match record:
                case Task():
                    self._changed(change.key)
                    self._changed(f"services/{record.service}")
                    self._changed(f"nodes/{record.node}")
                case Rollout() | ServiceGeneration():
                    self._changed(f"services/{record.service}")
                case Service() | Stack():
                    self._changed(change.key)
                case _ if change.key.startswith("nodes/"):
                    self._changed(change.key)
                case _:
                    pass
