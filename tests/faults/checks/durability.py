"""S5, S6: what a client was told is done is in the history, once, and what was refused is not.

Every operation carries a mark of its own in what it writes (`mark-000123` in a container's
environment), so the raw values of the store can be searched without trusting our own codec.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.faults.history import Operation, StoreEvent, Violation

_MARK = re.compile(rb"mark-\d{6}")


def acknowledged(
    operations: Sequence[Operation], events: Iterable[StoreEvent], *, restored: bool = False
) -> list[Violation]:
    """Operations that got lost, were made twice, or were made although they had failed.

    `restored`: an old snapshot was restored in this run, so what is gone may be gone.
    """
    places: dict[str, set[tuple[int, str]]] = defaultdict(set)
    last = ""
    for event in events:
        if event.value is None or not event.key.startswith("specs/"):
            continue
        for found in _MARK.findall(event.value):
            mark = found.decode()
            places[mark].add((event.revision, event.key))
            if event.created == event.revision:
                last = mark
    return [
        *_each(operations, places, restored=restored),
        *([] if restored else _final(operations, last)),
    ]


def _each(
    operations: Sequence[Operation],
    places: dict[str, set[tuple[int, str]]],
    *,
    restored: bool,
) -> Iterable[Violation]:
    for operation in operations:
        found = places.get(operation.mark, set())
        keys = {key for _, key in found}
        revisions = {revision for revision, _ in found}
        if operation.outcome == "ok" and not found and not restored:
            yield _violation("S5", operation, "was acknowledged and is nowhere in the history")
        elif operation.outcome == "ok" and found and operation.revision < min(revisions):
            yield _violation(
                "S5",
                operation,
                f"was acknowledged at revision {operation.revision} and written at"
                f" {min(revisions)}",
            )
        elif operation.outcome == "fail" and found:
            yield _violation("S6", operation, f"was refused and is in {', '.join(sorted(keys))}")
        if len(keys) > 1:
            yield _violation("S6", operation, f"was made twice: {', '.join(sorted(keys))}")


def _final(operations: Sequence[Operation], last: str) -> Iterable[Violation]:
    """One client after the other: the last word that stands is the last acknowledged, or later."""
    done = [operation for operation in operations if operation.outcome == "ok"]
    if done and last and last < done[-1].mark:
        yield _violation("S5", done[-1], f"was acknowledged, and {last} is what stands")


def _violation(promise: str, operation: Operation, what: str) -> Violation:
    return Violation(promise=promise, t_ns=operation.ended_ns, message=f"{operation.mark} {what}")
