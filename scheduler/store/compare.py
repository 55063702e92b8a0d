"""What every backend decides alike: is a commit well-formed, and may it go ahead?

The order of the questions is part of the contract: who lost the leadership hears Fenced
also when a record changed as well, because nothing else matters to it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scheduler.store.base import ANY, LEADER_KEY, Conflict, Fence, Fenced, StoreError, Write

Seen = Callable[[str], tuple[int, int]]
"""(version, created) of a key as it is now; (0, 0) when there is none."""


def check(writes: Sequence[Write], operations_max: int) -> None:
    """Raise ValueError for a commit that no backend could make."""
    if len(writes) > operations_max:
        raise ValueError(f"{len(writes)} writes in one commit, at most {operations_max} fit")
    keys = {write.key for write in writes}
    if len(keys) < len(writes):
        raise ValueError("one commit writes the same key twice")
    if "" in keys:
        raise ValueError("a key must not be empty")
    "".join(keys).encode()  # raises UnicodeEncodeError, a ValueError


def refusal(writes: Sequence[Write], fence: Fence | None, seen: Seen) -> StoreError | None:
    """Why this commit may not go ahead now, or None."""
    if fence is not None:
        created = seen(LEADER_KEY)[1]
        if not created or created != fence.epoch:
            now = f"epoch {created} has begun" if created else "nobody leads"
            return Fenced(f"epoch {fence.epoch} is over: {now}")
    changed = [
        write.key for write in writes if write.expect != ANY and seen(write.key)[0] != write.expect
    ]
    return Conflict(changed) if changed else None
