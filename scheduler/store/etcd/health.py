"""How etcd's members are, as values: what each says of itself, and what to tell people.

A pure module. Alarms are read off each member's status, not asked for: etcd writes even the
question for its alarms to its log, and an idle cluster writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NO_SPACE = "NOSPACE"
CORRUPT = "CORRUPT"

_SAFE_READS = {(3, 5): (3, 5, 28), (3, 6): (3, 6, 9)}
"""From these on a member that was paused does not answer reads with old data."""
_SAFE_PROGRESS = {(3, 4): (3, 4, 25), (3, 5): (3, 5, 8)}
"""From these on a progress notification never comes ahead of the events that it speaks of."""


FILLING = (0.8, 0.6)
"""Shares of its quota at which a member is warned of, the worst first."""


@dataclass(frozen=True, slots=True, order=True)
class Alarm:
    """What stands until somebody takes it back; every member tells those of all."""

    member: int  # the id of the one that raised it
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """What one member says of itself; `trouble` alone says why it says nothing."""

    url: str
    id: int = 0
    leader: int = 0  # the id of the member that leads, 0 if this one knows none
    version: str = ""
    revision: int = 0
    size_bytes: int = 0  # of its file
    used_bytes: int = 0  # of that, what would be left after a defragmentation
    quota_bytes: int = 0  # what its file may grow to; 0: it does not say
    alarms: frozenset[Alarm] = frozenset()
    is_learner: bool = False
    trouble: str = ""

    @property
    def is_healthy(self) -> bool:
        """Whether it serves, with a leader. An alarm for space does not count."""
        return not self.trouble and bool(self.leader) and not self.is_learner

    @property
    def leads(self) -> bool:
        """Whether the others follow it."""
        return bool(self.id) and self.id == self.leader


def alarms_in(errors: Sequence[str]) -> frozenset[Alarm]:
    """The alarms among the errors of a status, as `memberID:8211 alarm:NOSPACE `."""
    found = (re.search(r"memberID:(\d+).*alarm:(\w+)", error) for error in errors)
    return frozenset(Alarm(int(match[1]), match[2]) for match in found if match is not None)


def numbers_of(version: str) -> tuple[int, ...]:
    """(3, 5, 28) of 3.5.28-rc.0; () of what is no version."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(int(part) for part in found.groups()) if found else ()


def _is_at_least(version: str, table: dict[tuple[int, int], tuple[int, int, int]]) -> bool:
    """Whether a release has a fix: `table` says since when, for each line of releases."""
    numbers = numbers_of(version)
    if not numbers:
        return False
    line = (numbers[0], numbers[1])
    return line > max(table) or (line in table and numbers >= table[line])


def has_safe_progress(version: str) -> bool:
    """Whether the revision of a progress notification can be trusted."""
    return _is_at_least(version, _SAFE_PROGRESS)


def version_warning(url: str, version: str) -> str:
    """Why this version is a danger; empty for one that is not."""
    if not version or _is_at_least(version, _SAFE_READS):
        return ""
    return (
        f"etcd {version} at {url} has known faults that Homeport cannot make up for: after a pause"
        " a member may answer reads with stale data, so that a scheduler that was replaced may"
        " believe for a moment that it still leads; and a lease may be renewed after it ended, or"
        " all leases end at once when a disk is slow. Nothing wrong is written, but exclusive"
        " tasks are less safe. Upgrade etcd to 3.5.28, 3.6.9 or later, one member at a time"
    )


def conditions(statuses: Sequence[MemberStatus]) -> tuple[str, ...]:
    """What is wrong, a sentence each; empty when all is well."""
    found = [f"etcd member {each.url} fails: {each.trouble}" for each in statuses if each.trouble]
    leaderless = [each.url for each in statuses if not each.trouble and not each.leader]
    if leaderless:
        found.append(f"etcd has no quorum: {', '.join(leaderless)} knows no leader")
    healthy = sum(each.is_healthy for each in statuses)
    if len(statuses) > 2 and healthy * 2 - len(statuses) == 1:
        found.append("etcd would stop taking writes if one more member were lost")
    for alarm in sorted({alarm.kind for each in statuses for alarm in each.alarms}):
        if alarm == NO_SPACE:
            size = max(each.size_bytes for each in statuses)
            found.append(
                f"etcd's database is full ({size / 2**20:.0f} MiB, alarm NOSPACE): nothing new can"
                " be written, and no new leader can be elected"
            )
        elif alarm == CORRUPT:
            found.append(
                "etcd's members hold different data (alarm CORRUPT): take a snapshot of the member"
                " that you trust and restore from it"
            )
        else:
            found.append(f"etcd has raised the alarm {alarm}")
    if not any(alarm.kind == NO_SPACE for each in statuses for alarm in each.alarms):
        found += [_filling(each, passed) for each in statuses if (passed := passed_by(each))]
    return tuple(found)


def passed_by(status: MemberStatus) -> float:
    """The highest of `FILLING` that this member's file has passed; 0: none, or none is known."""
    passed = (share for share in FILLING if status.size_bytes > share * status.quota_bytes)
    return next(passed, 0.0) if status.quota_bytes else 0.0


def _filling(status: MemberStatus, passed: float) -> str:
    # No more numbers than these: a sentence that changes is told again.
    return (
        f"etcd member {status.url} has filled more than {passed * 100:.0f} % of its quota of"
        f" {status.quota_bytes / 2**20:.0f} MiB, and when it is full nothing can be written: forget"
        f" its history (etcdctl compact REVISION) and defragment it (etcdctl defrag --endpoints"
        f" {status.url}); where that frees too little, start all members with a larger"
        " --quota-backend-bytes"
    )
