"""L5: what runs for us and is no longer wanted is gone within half a minute of the healing."""

from collections.abc import Iterable, Sequence

from tests.faults.history import SECOND, Life, StoreEvent, Violation, Window

GRACE_NS = 35 * SECOND
"""30 s, and 5 s for the eyes of the observer and of an engine."""


def lingering(
    lives: Iterable[Life], events: Sequence[StoreEvent], windows: Sequence[Window], last_ns: int
) -> list[Violation]:
    """Processes that outlived their task's record by more than the grace, faults left out.

    A task's record goes only when its agent has reported the container gone, so whatever runs has
    one. Time in which a fault keeps node and leader apart does not count.
    """
    gone: dict[str, int] = {}
    for event in events:
        if event.key.startswith("tasks/"):
            task = event.key.removeprefix("tasks/")
            if event.value is None:
                gone[task] = event.t_ns
            else:
                gone.pop(task, None)
    found = []
    for life in lives:
        if life.task not in gone:
            continue
        until = life.last_ns if life.ended else last_ns
        begin = max([gone[life.task], *_healed_within(windows, gone[life.task], until)])
        if until > begin + GRACE_NS:
            found.append(
                Violation(
                    promise="L5",
                    t_ns=begin + GRACE_NS,
                    message=f"{life.task} on {life.node} ran {(until - begin) / SECOND:.0f} s after"
                    " its record was gone",
                )
            )
    return found


def _healed_within(windows: Sequence[Window], begin: int, end: int) -> Iterable[int]:
    return (w.end_ns for w in windows if w.begin_ns < end and w.end_ns > begin)
