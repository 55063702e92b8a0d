"""The task state machine as tables, one for each writer.

A task's observed state only moves forward within an attempt; the agent alone starts a
new attempt (BACKOFF -> STARTING with attempt + 1). The scheduler writes ORPHANED and
nothing else of what runs: all other states are what an agent saw. `docs/task-lifecycle.md` is drawn
from these tables (`python -m homeport.lifecycle`), never by hand.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class TaskState(enum.Enum):
    """Where a task stands; the numbers are the order within one attempt, and the wire's."""

    PENDING = 1  # a slot that waits for a node: shown to users, never stored
    ASSIGNED = 2  # recorded; its agent has not answered yet
    PREPARING = 3  # image, networks, volumes and files are being made ready
    READY = 4  # everything is there; the container may be created
    STARTING = 5  # the container is being created and started
    RUNNING = 6  # a live process was seen
    BACKOFF = 7  # the container ended and will be started again here
    COMPLETE = 8  # ended with 0 and is not to be started again
    SHUTDOWN = 9  # stopped because it was told to
    FAILED = 10  # ended badly and is not to be started again here
    REJECTED = 11  # this node cannot run it
    ORPHANED = 12  # its node is gone for good, by an operator's word
    REMOVED = 13  # the container is gone; the record may go


class Desired(enum.Enum):
    """What is wanted of a task: a target on the same ladder."""

    RUNNING = 6
    SHUTDOWN = 9  # stopped, container kept (its logs can be read)
    REMOVED = 13  # stopped and deleted: goes to the agent as a tombstone


class Writer(enum.Enum):
    """Who may write a transition."""

    SCHEDULER = 1
    AGENT = 2


S = TaskState

TERMINAL = frozenset({S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.ORPHANED, S.REMOVED})
"""States after which the same task never runs again."""

SCHEDULER: Mapping[TaskState, frozenset[TaskState]] = {
    S.PENDING: frozenset({S.ASSIGNED}),
    S.ASSIGNED: frozenset({S.ORPHANED}),
    S.PREPARING: frozenset({S.ORPHANED}),
    S.READY: frozenset({S.ORPHANED}),
    S.STARTING: frozenset({S.ORPHANED}),
    S.RUNNING: frozenset({S.ORPHANED}),
    S.BACKOFF: frozenset({S.ORPHANED}),
    S.COMPLETE: frozenset(),
    S.SHUTDOWN: frozenset(),
    S.FAILED: frozenset(),
    S.REJECTED: frozenset(),
    S.ORPHANED: frozenset(),
    S.REMOVED: frozenset(),
}

# A row says what may be *seen* next. Agents report the latest state only, so steps in
# between may never be seen: a container that ends at once goes from PREPARING to COMPLETE.
# From ASSIGNED an agent may report anything further on: it may have adopted a container,
# or restarted while reports were lost. REMOVED ends everything, also an ORPHANED task
# whose node came back after all.
AGENT: Mapping[TaskState, frozenset[TaskState]] = {
    S.PENDING: frozenset(),
    S.ASSIGNED: frozenset(
        {
            S.PREPARING,
            S.READY,
            S.STARTING,
            S.RUNNING,
            S.BACKOFF,
            S.COMPLETE,
            S.SHUTDOWN,
            S.FAILED,
            S.REJECTED,
            S.REMOVED,
        }
    ),
    S.PREPARING: frozenset(
        {
            S.READY,
            S.STARTING,
            S.RUNNING,
            S.BACKOFF,
            S.COMPLETE,
            S.SHUTDOWN,
            S.FAILED,
            S.REJECTED,
            S.REMOVED,
        }
    ),
    S.READY: frozenset(
        {
            S.STARTING,
            S.RUNNING,
            S.BACKOFF,
            S.COMPLETE,
            S.SHUTDOWN,
            S.FAILED,
            S.REJECTED,
            S.REMOVED,
        }
    ),
    S.STARTING: frozenset(
        {S.RUNNING, S.BACKOFF, S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVED}
    ),
    S.RUNNING: frozenset({S.BACKOFF, S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REMOVED}),
    # With the next attempt, a container that is gone is prepared anew.
    S.BACKOFF: frozenset(
        {S.PREPARING, S.STARTING, S.RUNNING, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVED}
    ),
    S.COMPLETE: frozenset({S.REMOVED}),
    S.SHUTDOWN: frozenset({S.REMOVED}),
    S.FAILED: frozenset({S.REMOVED}),
    S.REJECTED: frozenset({S.REMOVED}),
    S.ORPHANED: frozenset({S.REMOVED}),
    S.REMOVED: frozenset(),
}

TABLES: Mapping[Writer, Mapping[TaskState, frozenset[TaskState]]] = {
    Writer.SCHEDULER: SCHEDULER,
    Writer.AGENT: AGENT,
}


def is_legal(
    writer: Writer,
    old: TaskState,
    new: TaskState,
    *,
    old_attempt: int = 1,
    new_attempt: int = 1,
) -> bool:
    """Whether `writer` may take a task from (old_attempt, old) to (new_attempt, new).

    Reports may be lost, so a later attempt may be seen in any state that an agent can
    report, as long as the old one had not ended for good; of one that had (ORPHANED, say,
    while its node went on) only the removal. A repeat of the same state is legal (its
    details may differ); an earlier attempt never is, but for the removal: an agent that has
    lost its record of a task counts from 1 again, and what is gone is gone.
    """
    if new_attempt < old_attempt:
        return writer is Writer.AGENT and new is S.REMOVED and new in AGENT[old]
    if new_attempt > old_attempt:
        seen_next = AGENT[old if old in TERMINAL or old is S.PENDING else S.ASSIGNED]
        return writer is Writer.AGENT and new in seen_next
    if old is new:
        return True
    return new in TABLES[writer][old] and (
        # Within one attempt nothing moves backwards: a new start is a new attempt.
        new.value > old.value
    )


def mermaid() -> str:
    """The diagram of `docs/task-lifecycle.md`, from the tables above."""
    lines = ["stateDiagram-v2"]
    for writer, table in TABLES.items():
        name = writer.name.lower()
        for old, news in table.items():
            for new in sorted(news, key=lambda state: state.value):
                note = ", attempt + 1" if new.value < old.value else ""
                lines.append(f"    {old.name} --> {new.name}: {name}{note}")
    ends = sorted(TERMINAL, key=lambda state: state.value)
    lines.extend(f"    {state.name} --> [*]" for state in ends)
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid())  # noqa: T201
