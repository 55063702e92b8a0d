"""S2: every write of a scheduler was made by the one that led at that revision.

The history is folded from its first revision on. A transaction of a leader carries a mark under
`meta/write-id/<writer>/…` that names its epoch; the epoch must be the leader key's create-revision
just then. What writes without a mark is named too: nobody else may write.
"""

from collections.abc import Iterable
from itertools import groupby

from tests.faults.history import StoreEvent, Violation

MARKS = "meta/write-id/"
LEADER = "leader"
_UNMARKED = ("meta/", LEADER, "schedulers/")
"""The election itself, and who is there to be elected: each writes its own, under its lease."""


def writers(events: Iterable[StoreEvent], allowed: tuple[str, ...] = ()) -> list[Violation]:
    """Writes with another epoch than the leader's, and writes of nobody.

    `allowed`: prefixes of keys that the test itself has written by hand.
    """
    leader = 0
    found = []
    for revision, group in groupby(events, key=lambda event: event.revision):
        batch = list(group)
        before = leader
        for event in batch:
            if event.key == LEADER:
                leader = event.created if event.value is not None else 0
        # A commit that gives up the leadership is still its own leader's.
        now = {leader, before}
        marks = [event for event in batch if event.key.startswith(MARKS)]
        for mark in marks:
            epoch = _epoch(mark.value)
            if epoch is not None and epoch not in now:
                found.append(
                    Violation(
                        promise="S2",
                        t_ns=mark.t_ns,
                        message=f"revision {revision} was written by {mark.key} in epoch {epoch},"
                        f" and the leader's was {leader or 'none'}",
                    )
                )
        objects = [
            event.key
            for event in batch
            if not event.key.startswith((*_UNMARKED, *allowed)) and event.key != LEADER
        ]
        if objects and not marks:
            found.append(
                Violation(
                    promise="S2",
                    t_ns=batch[0].t_ns,
                    message=f"revision {revision} wrote {', '.join(objects[:3])} without a mark"
                    " of its writer",
                )
            )
    return found


def _epoch(value: bytes | None) -> int | None:
    """The epoch that a mark names (`<count> epoch <epoch>`); None for one that names none."""
    words = (value or b"").split()
    if len(words) == 3 and words[1] == b"epoch" and words[2].isdigit():
        return int(words[2])
    return None
