"""S18: a watch leaves nothing out: at every place that it claims, it has told all that there is.

Our watch tells objects as they are now, not each step; so what is held against the history is the
set of objects that the watcher knows when it is told that it has seen everything up to a revision.
"""

from collections.abc import Iterable, Sequence

from tests.faults.history import StoreEvent, Told, Violation


def gap_free(
    told: Sequence[Told], events: Iterable[StoreEvent], kinds: tuple[str, ...]
) -> list[Violation]:
    """Places at which a watcher knew another set of keys than the store had.

    `kinds`: prefixes of the keys that the watch is about. A watcher may know of a later change
    already, since objects are told as they are now: what differs must differ in the same way at
    every revision up to the one of its next word.
    """
    history = sorted(
        (event for event in events if event.key.startswith(kinds)), key=lambda each: each.revision
    )
    present: set[str] = set()
    at = 0
    found = []
    before = 0
    for index, word in enumerate(told):
        if word.revision < before:
            found.append(_violation(word, f"went back from revision {before}"))
            continue
        before = word.revision
        while at < len(history) and history[at].revision <= word.revision:
            _fold(present, history[at])
            at += 1
        until = told[index + 1].revision if index + 1 < len(told) else None
        excused = {event.key for event in history[at:] if until is None or event.revision <= until}
        missing = present - word.objects - excused
        surplus = word.objects - present - excused
        if missing:
            found.append(_violation(word, f"left out {', '.join(sorted(missing)[:3])}"))
        if surplus:
            found.append(_violation(word, f"still had {', '.join(sorted(surplus)[:3])}"))
    return found


def _fold(present: set[str], event: StoreEvent) -> None:
    if event.value is None:
        present.discard(event.key)
    else:
        present.add(event.key)


def _violation(word: Told, what: str) -> Violation:
    return Violation(
        promise="S18", t_ns=word.t_ns, message=f"the watch at revision {word.revision} {what}"
    )
