"""S8, S9: while only an agent, a scheduler or the store is in trouble, no container stops.

Excepted are exclusive movable slots once their lease is over, which each fault names itself, and
what the fault kills with its own hand.
"""

from collections.abc import Iterable, Sequence

from tests.faults.history import SECOND, Life, Violation, Window

SCOPES = frozenset({"agent", "scheduler", "store", "engine", "clock"})
"""What may be in trouble without any container noticing (an engine with live restore)."""


def inert(lives: Sequence[Life], windows: Iterable[Window]) -> list[Violation]:
    """Processes that ended between the beginning of such a fault and its healing."""
    found = []
    for window in windows:
        if window.scope not in SCOPES:
            continue
        end = window.settled_ns or window.end_ns
        for life in lives:
            ended_inside = life.ended and window.begin_ns < life.last_ns <= end
            if (
                life.first_ns < window.begin_ns
                and ended_inside
                and life.slot not in window.may_stop
            ):
                found.append(
                    Violation(
                        promise="S9" if window.scope in ("scheduler", "store") else "S8",
                        t_ns=life.last_ns,
                        message=f"{life.slot} on {life.node} ended"
                        f" {(life.last_ns - window.begin_ns) / SECOND:.1f} s into {window.fault}"
                        f" ({window.title})",
                    )
                )
    return found


def _aftermath(window: Window, begins: Sequence[int]) -> int:
    """When a fault was over; one that never settled lasts until the next one, or for ever."""
    later = (begin for begin in begins if begin > window.begin_ns)
    return window.settled_ns or next(later, 1 << 62)


def churn(lives: Sequence[Life], windows: Sequence[Window], *, slack_ns: int) -> list[Violation]:
    """Processes that ended outside every fault and its aftermath: nobody had a cause for that."""
    found = []
    begins = sorted(window.begin_ns for window in windows)
    for life in lives:
        if not life.ended:
            continue
        cause = any(
            window.begin_ns <= life.last_ns <= _aftermath(window, begins) + slack_ns
            for window in windows
        )
        if not cause:
            found.append(
                Violation(
                    promise="churn",
                    t_ns=life.last_ns,
                    message=f"{life.slot} on {life.node} ended while nothing was wrong",
                )
            )
    return found
