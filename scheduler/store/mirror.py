"""The stored objects in this process's memory, kept equal to the store by its watch.

Everybody reads here: followers, API, dispatch and deciders. Our own commits are applied
at once (`apply_own`), ahead of their echo in the watch, so that the next look sees them;
the echo then changes nothing. A newcomer's mistake: thinking that `revision` is the
newest thing in here. It is the revision up to which *nothing is missing*; own commits
may be in already that lie behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from homeport import codec
from homeport.model import Stack
from scheduler.cluster import drafts, keys
from scheduler.cluster.tables import Tables
from scheduler.store.base import Batch, Compacted, Listing, Record, Store, Unavailable
from scheduler.store.forward import WentBack

LOAD_RECORDS = 200
"""Records decoded at a time: reading a large store takes seconds, and the lease is to be kept."""
_RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorChange:
    """One record that changed: `old` None, it is new; `new` None, it is gone or unreadable."""

    key: str
    old: keys.Stored | None
    new: keys.Stored | None


Subscriber = Callable[[Sequence[MirrorChange]], None]


class Mirror:
    """All stored objects with their indexes, following the store."""

    def __init__(self, store: Store, on_rewritten: Callable[[str], object] = str) -> None:
        """Empty until `start`. `on_rewritten` is told why the store cannot be the one it was."""
        self.tables = Tables()
        self.revision = 0  # everything up to here is in
        self.newest = 0  # the highest revision of which anything is in: orders carry it
        self._store = store
        self._on_rewritten = on_rewritten
        self._subscribers: list[Subscriber] = []
        # Deletes that we made ahead of the watch: an older put may still be on its way.
        self._deleted: dict[str, int] = {}
        # What we are committing now: a watch may be faster than the commit's answer.
        self._flying: dict[tuple[str, bytes], keys.Stored] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        # Stacks whose record came and names a draft: its heads count as written from then on.
        self._drafted: dict[str, None] = {}

    async def start(self) -> None:
        """Read everything at one revision, letting others run meanwhile. Raises StoreError.

        Nobody may look before it returns.
        """
        listing = await self._store.list("")
        revision, records = listing.revision, list(reversed(listing.records))
        del listing
        # A hundred thousand tasks come from a thousand commits: one number each, not one a task.
        versions: dict[int, int] = {}
        changes: list[MirrorChange] = []
        while records:
            await asyncio.sleep(0)
            changes = []
            # What has been decoded is let go: its memory serves the next.
            for _ in range(min(LOAD_RECORDS, len(records))):
                record = records.pop()
                version = versions.setdefault(record.version, record.version)
                self._take_bytes(record.key, record.value, version, record.created, changes)
            self._tell(changes)
        changes = []
        self._swing(changes)
        self._tell(changes)
        self._reached(revision)

    async def run(self) -> None:
        """Follow the store for ever. Raises WentBack, and Unavailable when the store closes."""
        while True:
            try:
                async for batch in self._store.watch("", self.revision):
                    self._apply_batch(batch)
            except Compacted as error:
                log.warning("the watch fell behind the history; reading all anew", why=str(error))
                await self._list_again()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Have `callback` called, synchronously, after each applied commit that changed
        anything. Returns the function that ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def wait_for(self, revision: int) -> None:
        """Return when everything up to `revision` is in. The caller sets the deadline."""
        if self.revision >= revision:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((revision, waiter))
        await waiter

    async def read_anew(self, revision: int) -> None:
        """Take in all that was written up to `revision`, whatever the watch has told.

        Raises StoreError.
        """
        while True:
            listing = await self._store.list("")
            # Of an older one, what was deleted since would come back: of it nothing is known here.
            if listing.revision >= max(revision, self.revision):
                await self._take_listing(listing)
                return
            log.warning("the store answers from the past; reading again", at=listing.revision)
            await asyncio.sleep(_RETRY_SECONDS)

    async def look_again(self, doubted: Iterable[str]) -> None:
        """Read these keys: the store says that they are not as they are here.

        Most often the watch is about to tell. It may also have lost what it had to tell, and
        then nothing else would ever mend it. Raises StoreError.
        """
        changes: list[MirrorChange] = []
        for key in doubted:
            listing = await self._store.list(key)
            record = next((each for each in listing.records if each.key == key), None)
            if record is not None:
                if record.version > self._known(key):
                    self._take_bytes(key, record.value, record.version, record.created, changes)
                    self.newest = max(self.newest, record.version)
            elif 0 < self.tables.version(key) <= listing.revision:
                self._deleted[key] = listing.revision
                self._take(key, None, listing.revision, changes)
        self._tell(changes)

    @contextmanager
    def flying(self, values: Mapping[tuple[str, bytes], keys.Stored]) -> Iterator[None]:
        """While these (key, bytes) are being committed: what they are need not be decoded."""
        self._flying.update(values)
        try:
            yield
        finally:
            for each in values:
                self._flying.pop(each, None)

    def apply_own(self, revision: int, written: Iterable[tuple[str, keys.Stored | None]]) -> None:
        """Take in what this process committed at `revision`; a value of None was deleted."""
        changes: list[MirrorChange] = []
        for key, value in written:
            if revision <= self._known(key):
                continue
            if value is None:
                self._deleted[key] = revision
            self._take(key, value, revision, changes)
        self._swing(changes)
        self.newest = max(self.newest, revision)
        self._tell(changes)

    # ------------------------------------------------------------ inside

    def _known(self, key: str) -> int:
        """The revision of the last write to this key that is in."""
        return max(self.tables.version(key), self._deleted.get(key, 0))

    def _apply_batch(self, batch: Batch) -> None:
        changes: list[MirrorChange] = []
        for change in batch.changes:
            if change.version <= max(self.revision, self._known(change.key)):
                continue  # it is in: read anew, or our own commit, whose echo this is
            if change.value is None:
                self._take(change.key, None, change.version, changes)
            else:
                self._take_bytes(change.key, change.value, change.version, change.created, changes)
        self._swing(changes)
        self._reached(batch.revision)
        self._tell(changes)

    def _relist(self, news: Sequence[Record], missing: Sequence[str], revision: int) -> None:
        """Become what a listing of `revision` says, as far as it is not older than what is in."""
        changes: list[MirrorChange] = []
        for record in news:
            if record.version > self._known(record.key):
                self._take_bytes(record.key, record.value, record.version, record.created, changes)
        # A head that is in a draft alone is in no listing, and there all the same.
        drafted = {
            keys.key_of(head)
            for stack in self.tables.stacks()
            if stack.draft
            for head in drafts.unwritten(self.tables, stack.name)
        }
        for key in missing:
            if key not in drafted and self.tables.version(key) <= revision:
                self._take(key, None, revision, changes)
        self._swing(changes)
        self._reached(revision)
        self._tell(changes)

    def _take_bytes(
        self, key: str, value: bytes, version: int, created: int, changes: list[MirrorChange]
    ) -> None:
        kind = keys.kind_of(key)
        if kind is None:
            return
        if (own := self._flying.get((key, value))) is not None:
            self._take(key, own, version, changes, created)
            return
        try:
            decoded = codec.decode_record(kind, value)
        except codec.CodecError as error:
            log.warning("a record cannot be read and is left alone", key=key, why=str(error))
            old = self.tables.put_unreadable(key, version, str(error), created)
            changes.append(MirrorChange(key, old, None))
            return
        self._take(key, decoded, version, changes, created)

    def _take(
        self,
        key: str,
        value: keys.Stored | None,
        version: int,
        changes: list[MirrorChange],
        created: int = 0,
    ) -> None:
        if keys.kind_of(key) is None:
            return
        if value is None:
            was_unreadable = key in self.tables.unreadable
            old = self.tables.drop(key)
            if old is not None or was_unreadable:
                changes.append(MirrorChange(key, old, None))
        else:
            changes.append(MirrorChange(key, self.tables.put(value, version, created), value))
            if isinstance(value, Stack) and value.draft:
                self._drafted[value.name] = None

    def _swing(self, changes: list[MirrorChange]) -> None:
        """Take in the heads of drafts that have become those of their stacks, all at once.

        They keep the versions of the records that they stand before: what writes them out
        compares with those.
        """
        for stack in self._drafted:
            for head in list(drafts.unwritten(self.tables, stack)):
                key = keys.key_of(head)
                old = self.tables.value(key)
                if old != head:
                    version = self.tables.version(key)
                    changes.append(MirrorChange(key, self.tables.put(head, version), head))
        self._drafted.clear()

    def _reached(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        self.newest = max(self.newest, revision)
        if self._deleted:
            self._deleted = {
                key: deleted for key, deleted in self._deleted.items() if deleted > self.revision
            }
        if self._waiters:
            for wanted, waiter in self._waiters:
                if wanted <= self.revision and not waiter.done():
                    waiter.set_result(None)
            self._waiters = [entry for entry in self._waiters if not entry[1].done()]

    def _tell(self, changes: list[MirrorChange]) -> None:
        if not changes:
            return
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(changes)
            except Exception:  # one reader's bug must not keep the others, or the mirror, behind
                log.exception("a reader of the mirror failed")

    async def _list_again(self) -> None:
        while True:
            try:
                await self.read_anew(self.revision)
            except Unavailable as error:
                log.warning("the store cannot be read; trying again", why=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _take_listing(self, listing: Listing) -> None:
        """See in slices what differs, since others run meanwhile; take it in at once, since they
        look. Raises WentBack, and takes in nothing then.
        """
        listed: set[str] = set()
        news: list[Record] = []
        values: dict[tuple[str, bytes], keys.Stored] = {}
        for place, record in enumerate(listing.records):
            if place % LOAD_RECORDS == 0:
                await asyncio.sleep(0)
            listed.add(record.key)
            kind = keys.kind_of(record.key)
            if kind is None:
                continue
            if record.version < self._known(record.key) <= listing.revision:
                self._refuse(record, listing.revision)
            if record.version <= self._known(record.key):
                continue
            news.append(record)
            try:
                values[record.key, record.value] = codec.decode_record(kind, record.value)
            except codec.CodecError:
                continue  # said when it is taken in
        missing: list[str] = []
        for place, key in enumerate(self.tables.stored_keys()):
            if place % LOAD_RECORDS == 0:
                await asyncio.sleep(0)
            if key not in listed:
                missing.append(key)
        with self.flying(values):
            self._relist(news, missing, listing.revision)

    def _refuse(self, record: Record, revision: int) -> None:
        """A version that was is gone, and the store is beyond it: no store that goes on does that.

        A snapshot that was restored with its numbers raised does. To take in nothing but what is
        newer would leave a mirror of two pasts, in which every write conflicts.
        """
        why = (
            f"the store {self._store.name} is at revision {revision} and has {record.key} as of"
            f" {record.version}, where {self._known(record.key)} was: it was restored from a"
            " snapshot, and its revisions were raised. This scheduler ends, to read it anew when it"
            " is started again. Containers run on"
        )
        self._on_rewritten(why)
        raise WentBack(why)
