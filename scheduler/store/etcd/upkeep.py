"""When etcd's history is compacted, a member's file defragmented, an alarm disarmed.

A pure decider: statuses in, at most one action out; whoever does it looks again before the
next, so never two members are defragmented at once. A newcomer's mistake: defragmenting after
every compaction. etcd reuses the space by itself; a defragmentation only gives it back to the
disk, and stops the member meanwhile. And nothing is due in a cluster in which nothing
changes: an idle etcd is not written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler.store.etcd.health import FILLING, NO_SPACE, MemberStatus, passed_by

HISTORY_SECONDS = 600.0
"""History of this age is kept, so that watches can resume."""
HISTORY_REVISIONS = 100_000
"""But no more than so many revisions."""
COMPACT_REVISIONS_MIN = 1_000
"""Less than that is not worth a compaction."""
DEFRAGMENT_BYTES_MIN = 104_857_600
"""A file is defragmented when it would shrink by so much, and by half."""
TIDY_MEMBERS_MIN = 3
"""A member that is rewritten does not answer meanwhile. With fewer the store would stand still, and
the leader lose its lease, for nothing but tidiness."""
PAUSE_SECONDS = 600.0
"""Between two defragmentations for tidiness, and between two answers to NOSPACE."""


@dataclass(frozen=True, slots=True)
class Compact:
    """Forget the history up to a revision."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Defragment:
    """Rewrite one member's file."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Disarm:
    """Take back the alarm NOSPACE of these members, so that etcd takes writes again."""

    members: tuple[int, ...]
    reason: str


Action = Compact | Defragment | Disarm


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered between two looks; times are boot times in seconds."""

    samples: tuple[tuple[float, int], ...] = ()  # (when, revision), oldest first
    compacted: int = 0  # as far as we know
    defragmented: Mapping[str, float] = field(default_factory=dict)  # url -> when
    full_since: float | None = None  # NOSPACE, and we have begun to do something
    disarmed: float | None = None  # when we last answered NOSPACE

    def seen(self, now: float, revision: int) -> Memory:
        """With the revision of this moment; of old ones the newest is kept that is old enough."""
        samples = self.samples
        if not samples or revision != samples[-1][1]:
            samples = (*samples, (now, revision))
        while len(samples) > 1 and samples[1][0] <= now - HISTORY_SECONDS:
            samples = samples[1:]
        return replace(self, samples=samples)

    def did(self, action: Action, now: float) -> Memory:
        """After an action that succeeded, or that was tried and is not to be tried at once."""
        match action:
            case Compact(revision):
                return replace(self, compacted=max(self.compacted, revision))
            case Defragment(url):
                return replace(self, defragmented={**self.defragmented, url: now})
            case Disarm():
                return replace(self, disarmed=now, full_since=None)


def full_members(statuses: Sequence[MemberStatus]) -> tuple[int, ...]:
    """The ids of the members that have raised NOSPACE."""
    alarms = {alarm for each in statuses for alarm in each.alarms}
    return tuple(alarm.member for alarm in sorted(alarms) if alarm.kind == NO_SPACE)


def decide(
    statuses: Sequence[MemberStatus], memory: Memory, now: float
) -> tuple[Action | None, Memory]:
    """What is due now, and the memory for the next look."""
    revision = max((each.revision for each in statuses), default=0)
    memory = memory.seen(now, revision)
    if not full_members(statuses):
        memory = replace(memory, full_since=None)
        return _compaction(memory, revision, now) or _tidying(statuses, memory, now), memory
    if memory.disarmed is not None and now - memory.disarmed < PAUSE_SECONDS:
        return None, memory
    if memory.full_since is None:
        memory = replace(memory, full_since=now)
    return _making_space(statuses, memory, revision), memory


def _compaction(memory: Memory, revision: int, now: float) -> Compact | None:
    when, old = memory.samples[0]
    target = old if when <= now - HISTORY_SECONDS else 0
    reason = f"it is older than {HISTORY_SECONDS / 60:.0f} minutes"
    if revision - HISTORY_REVISIONS > max(target, memory.compacted + COMPACT_REVISIONS_MIN):
        target = revision - HISTORY_REVISIONS
        reason = f"there are {HISTORY_REVISIONS:,} newer revisions"
    if target - memory.compacted < COMPACT_REVISIONS_MIN:
        return None
    return Compact(target, reason)


def _tidying(statuses: Sequence[MemberStatus], memory: Memory, now: float) -> Defragment | None:
    if len(statuses) < TIDY_MEMBERS_MIN or not _all_well(statuses):
        return None
    # Also a moment after the last time: a member may forget its history later than it is rewritten,
    # and then it would soon be full again. Its own spare room bounds how often.
    for each in _followers_first(statuses):
        if passed_by(each) >= max(FILLING) and _spare(each) >= each.size_bytes / 2:
            return Defragment(each.url, "it is nearly full, and half of its file is unused")
    last = max(memory.defragmented.values(), default=None)
    if last is not None and now - last < PAUSE_SECONDS:
        return None
    for each in _followers_first(statuses):
        spare = _spare(each)
        if spare >= max(DEFRAGMENT_BYTES_MIN, each.size_bytes / 2):
            return Defragment(each.url, f"{spare / 2**20:.0f} MiB of its file are unused")
    return None


def _spare(status: MemberStatus) -> int:
    """How much of a member's file a defragmentation would give back, in bytes."""
    return status.size_bytes - status.used_bytes


def _making_space(statuses: Sequence[MemberStatus], memory: Memory, revision: int) -> Action | None:
    """NOSPACE: forget all history, defragment every member, and only then disarm."""
    assert memory.full_since is not None
    if memory.compacted < memory.samples[-1][1] and memory.compacted < revision:
        return Compact(revision, "the database is full")
    if not _all_well(statuses):
        return None  # a member that is away would be full again at once
    for each in _followers_first(statuses):
        if memory.defragmented.get(each.url, -1.0) < memory.full_since:
            return Defragment(each.url, "the database is full")
    return Disarm(full_members(statuses), "history is compacted and all members defragmented")


def _all_well(statuses: Sequence[MemberStatus]) -> bool:
    return bool(statuses) and all(each.is_healthy for each in statuses)


def _followers_first(statuses: Sequence[MemberStatus]) -> list[MemberStatus]:
    return sorted(statuses, key=lambda each: (each.leads, each.url))
