"""S13, S14: what is not ours is never stopped, changed or removed."""

from collections.abc import Iterable

from tests.faults.history import EngineEvent, Life, Violation

CANARY = "canary"
"""How the names of the foreign containers and volumes begin."""

_HARM = frozenset(
    {"kill", "stop", "die", "destroy", "restart", "pause", "rename", "update", "exec_create"}
)


def harmed(
    events: Iterable[EngineEvent], lives: Iterable[Life], excused: frozenset[str]
) -> list[Violation]:
    """Foreign containers that an engine says were touched, or whose process ended.

    `excused`: nodes whose power was cut, where every process ends.
    """
    found = [
        Violation(
            promise="S13",
            t_ns=event.t_ns,
            message=f"{event.action} of the foreign {event.name} on {event.node}",
        )
        for event in events
        if event.name.startswith(CANARY)
        and event.action.split(":")[0] in _HARM
        and event.node not in excused
    ]
    found += [
        Violation(
            promise="S13",
            t_ns=life.last_ns,
            message=f"the foreign process of {life.task} on {life.node} ended",
        )
        for life in lives
        if life.task.startswith(CANARY) and life.ended and life.node not in excused
    ]
    return found
