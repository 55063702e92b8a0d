"""The one way from a decision to the store: changes become writes, compared and fenced.

Two things that are easy to get wrong are done here and nowhere else. What was committed
is in the mirror before `commit` returns, so that the next look sees it. And a commit
whose fate is not known (`Ambiguous`) blocks its objects until it is: every commit also
writes a *write id* under a key of its own *lane*, comparing the lane's version; a second
write to the same lane either succeeds, and then the first did not take place and never
will, or finds that it did. One commit at a time uses a lane.

What takes more than one commit *holds* its keys meanwhile: whoever else writes them is told
that they changed. That is enough, because the fence lets only one process write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from homeport import codec
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Check, Delete, Put
from scheduler.store.base import (
    ABSENT,
    WRITE_ID_KEY,
    Ambiguous,
    Conflict,
    Fence,
    Fenced,
    Store,
    StoreError,
    TooLarge,
    Write,
)
from scheduler.store.mirror import Mirror

BATCH_MAX = 120
IN_FLIGHT_MAX = 4
DOUBTED_MAX = 8
"""Conflicting keys that are read at once."""
_RESERVED = 2  # the write id and the fence

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of many independent changes."""

    revision: int  # of the last batch that was written; 0: none was
    failed: list[tuple[Change, StoreError]]


@dataclass(slots=True)
class _Lane:
    """A key for write ids; at most one commit at a time compares and writes it."""

    key: str
    version: int | None = None  # None: not read yet
    count: int = 0
    # Of a commit whose fate is not known: what it would have written.
    pending: tuple[Change, ...] = ()


class Committer:
    """Turns changes into commits."""

    def __init__(self, store: Store, mirror: Mirror, *, writer: str = "scheduler") -> None:
        """`writer` is this process's name in the store: unique and the same after a restart."""
        self._store = store
        self._mirror = mirror
        self._writer = writer
        self._free: list[_Lane] = []
        self._lanes_made = 0
        self._blocked: dict[str, _Lane] = {}  # key of an object -> the lane of its commit
        self._settling = asyncio.Lock()
        self._held: set[str] = set()
        self._under_way: dict[int, Sequence[Change]] = {}  # what is being committed now
        self._less = asyncio.Event()  # something was let go, or has landed

    @property
    def changes_max(self) -> int:
        """How many changes one atomic commit may carry."""
        return self._store.operations_max - _RESERVED

    @property
    def blocked(self) -> frozenset[str]:
        """Keys of objects that a commit of unknown fate may have written."""
        return frozenset(self._blocked)

    @asynccontextmanager
    async def hold(self, held: Collection[str]) -> AsyncIterator[None]:
        """Be the only one who writes these keys until the end of the block.

        Begins when nothing is on its way to them. Raises Conflict where another holds one of
        them, Ambiguous where it is not known what was written to one.
        """
        mine = set(held)
        if taken := self._held & mine:
            raise Conflict(sorted(taken))
        self._held |= mine
        try:
            while any(
                change.key in mine for changes in self._under_way.values() for change in changes
            ):
                self._less.clear()
                await self._less.wait()
            await self._know(mine)
            yield
        finally:
            self._held -= mine
            self._less.set()

    async def free(self, key: str) -> None:
        """Return when nobody holds this key. The caller sets the deadline."""
        while key in self._held:
            self._less.clear()
            await self._less.wait()

    async def commit(
        self,
        changes: Sequence[Change],
        fence: Fence | None = None,
        *,
        holding: bool = False,
        also: Iterable[str] = (),
    ) -> int:
        """Make all changes, or none, and return their revision; the mirror has them then.

        `holding`: the caller holds the keys among them that are held. `also` names further
        objects that are blocked when it is not known whether this took place.

        Raises Conflict, Fenced, Unavailable, Ambiguous (its objects are then blocked until
        `settle` has found out), ValueError for more than `changes_max` changes. Without
        changes it checks the fence.
        """
        if not changes:
            return await self._store.commit((), fence)
        if len(changes) > self.changes_max:
            raise ValueError(
                f"{len(changes)} changes in one commit; {self._store.name} takes {self.changes_max}"
            )
        if self._blocked:
            await self._know([change.key for change in changes])
        if self._held and not holding:
            held = [change.key for change in changes if change.key in self._held]
            if held:
                raise Conflict(held)
        writes = [self._write(change) for change in changes]
        flying = {
            (change.key, write.value): change.value
            for change, write in zip(changes, writes, strict=True)
            if isinstance(change, Put) and write.value is not None
        }
        lane = self._free.pop() if self._free else self._new_lane()
        self._under_way[id(lane)] = changes
        try:
            with self._mirror.flying(flying):
                revision = await self._through(lane, writes, fence)
        except Ambiguous:
            self._block(lane, changes, also)
            raise
        except asyncio.CancelledError:
            # The store may still be writing: the same as no answer.
            self._block(lane, changes, also)
            raise
        except Conflict as conflict:
            try:
                await self._look_again(conflict)
            finally:
                self._free.append(lane)
            raise
        except BaseException:
            self._free.append(lane)
            raise
        finally:
            del self._under_way[id(lane)]
            self._less.set()
        self._free.append(lane)
        self._applied(revision, changes)
        return revision

    async def commit_batched(
        self, changes: Sequence[Change], fence: Fence | None = None
    ) -> CommitResult:
        """Make as many of these independent changes as possible, many in one commit.

        A batch that conflicts, or has too many bytes, is tried again change by change. Raises
        Fenced; every other failure is in the result.
        """
        size = max(1, min(BATCH_MAX, self.changes_max))
        batches = [changes[start : start + size] for start in range(0, len(changes), size)]
        failed: list[tuple[Change, StoreError]] = []
        revisions = [0]
        fenced: list[Fenced] = []
        slots = asyncio.Semaphore(IN_FLIGHT_MAX)

        async def make(batch: Sequence[Change]) -> None:
            async with slots:
                if fenced:
                    return
                try:
                    revisions.append(await self.commit(batch, fence))
                except Fenced as error:
                    fenced.append(error)
                except (Conflict, TooLarge) as error:
                    if len(batch) == 1:
                        failed.append((batch[0], error))
                    else:
                        await one_by_one(batch)
                except StoreError as error:
                    failed.extend((change, error) for change in batch)

        async def one_by_one(batch: Sequence[Change]) -> None:
            for change in batch:
                try:
                    revisions.append(await self.commit((change,), fence))
                except Fenced as error:
                    fenced.append(error)
                    return
                except StoreError as error:
                    failed.append((change, error))

        if len(batches) == 1:
            await make(batches[0])
        elif batches:
            async with asyncio.TaskGroup() as background:
                for index, batch in enumerate(batches):
                    background.create_task(make(batch), name=f"commit batch {index}")
        if fenced:
            raise fenced[0]
        return CommitResult(max(revisions), failed)

    async def settle(self) -> bool:
        """Find out what became of commits of unknown fate; whether all are known now."""
        async with self._settling:  # a lane that two settle would be given to two commits
            lanes = {lane.key: lane for lane in self._blocked.values()}
            for lane in lanes.values():
                try:
                    await self._settle_lane(lane)
                except StoreError as error:
                    log.warning("cannot find out yet whether a commit took place", why=str(error))
        return not self._blocked

    # ------------------------------------------------------------ inside

    async def _look_again(self, conflict: Conflict) -> None:
        """Have the mirror read what is not as it has it. More keys are tried singly, later."""
        if len(conflict.keys) <= DOUBTED_MAX:
            with suppress(StoreError):
                await self._mirror.look_again(conflict.keys)

    def _new_lane(self) -> _Lane:
        self._lanes_made += 1
        return _Lane(key=f"{WRITE_ID_KEY}{self._writer}/{self._lanes_made}")

    async def _through(self, lane: _Lane, writes: Sequence[Write], fence: Fence | None) -> int:
        """One commit on this lane; a lane that somebody else wrote is read again once."""
        for again in (True, False):
            if lane.version is None:
                record = await self._store.get(lane.key)
                lane.version = record.version if record is not None else ABSENT
            lane.count += 1
            # For whoever reads the history: in whose name this was written.
            words = f"{lane.count} epoch {fence.epoch}" if fence is not None else str(lane.count)
            mark = Write(lane.key, words.encode(), lane.version)
            try:
                revision = await self._store.commit((*writes, mark), fence)
            except Conflict as error:
                lane.version = None
                if again and tuple(error.keys) == (lane.key,):
                    continue
                keys_of_others = [key for key in error.keys if key != lane.key]
                raise Conflict(keys_of_others or error.keys) from error
            lane.version = revision
            return revision
        raise AssertionError("unreachable: the second try returns or raises")

    async def _know(self, wanted: Collection[str]) -> None:
        """Find out what was written to these keys. Raises Ambiguous where that cannot be."""
        if any(key in self._blocked for key in wanted):
            await self.settle()
            left = [key for key in wanted if key in self._blocked]
            if left:
                raise Ambiguous(f"not known yet whether it was written: {', '.join(left)}")

    def _block(self, lane: _Lane, changes: Sequence[Change], also: Iterable[str]) -> None:
        lane.pending = tuple(changes)
        for change in changes:
            self._blocked[change.key] = lane
        for key in also:
            self._blocked[key] = lane

    async def _settle_lane(self, lane: _Lane) -> None:
        if lane.version is None:
            # The lane itself could not be read: nothing was sent.
            self._unblock(lane)
            return
        lane.count += 1
        mark = Write(lane.key, f"settled {lane.count}".encode(), lane.version)
        try:
            lane.version = await self._store.commit((mark,))
        except Conflict:
            record = await self._store.get(lane.key)
            # Only this process writes here: its commit took place, at this revision,
            # or an earlier attempt to settle did.
            if record is not None and not record.value.startswith(b"settled"):
                self._applied(record.version, lane.pending)
            lane.version = record.version if record is not None else ABSENT
        self._unblock(lane)

    def _unblock(self, lane: _Lane) -> None:
        lane.pending = ()
        for key in [key for key, holder in self._blocked.items() if holder is lane]:
            del self._blocked[key]
        self._free.append(lane)

    def _applied(self, revision: int, changes: Sequence[Change]) -> None:
        written: list[tuple[str, keys.Stored | None]] = []
        for change in changes:
            match change:
                case Put():
                    written.append((change.key, change.value))
                case Delete():
                    written.append((change.key, None))
                case Check():
                    if (value := self._mirror.tables.value(change.key)) is not None:
                        written.append((change.key, value))
        self._mirror.apply_own(revision, written)

    def _write(self, change: Change) -> Write:
        match change:
            case Put():
                return Write(change.key, codec.encode_record(change.value), change.expect)
            case Delete():
                return Write(change.key, None, change.expect)
            case Check():
                # The store compares only what it writes, so what is checked is written as it
                # is; deleting what is absent changes nothing.
                value = self._mirror.tables.value(change.key)
                if self._mirror.tables.version(change.key) != change.expect:
                    raise Conflict([change.key])
                data = codec.encode_record(value) if value is not None else None
                return Write(change.key, data, change.expect)
