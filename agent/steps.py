"""What to do next for one task: the decider behind every runner.

`next_step` looks at what is wanted, what was seen of the container and what the agent
remembers (the record, which is journalled), and names one step. The runner does it and
tells what came of it through `started`, `rejected` and `vanished`. Two things a newcomer
would get wrong: an end is counted once, so the record remembers which end it has counted
(an exited container looks the same before and after its next start failed to happen);
within one attempt the state reported never moves back, whatever has to be redone; and a
start that nobody answered is not one that did not take place: it may, until the container
is gone (`may_still_start`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from agent.runtime.base import Phase, Seen
from homeport.lifecycle import TERMINAL, Desired, TaskState, Writer, is_legal
from homeport.model import Health, TaskId, TaskStatus
from homeport.spec import RestartCondition, RestartPolicy

S = TaskState

FIRST_DELAY_MS = 1_000
"""The ceiling of the first back-off; each further one doubles it."""
LONGEST_DELAY_MS = 60_000
GOOD_RUN_MS = 600_000
"""A start counts as good after running this long, when the policy names no window."""
TRIES = 3
"""How often a node may refuse a spec before the task is REJECTED."""
LEASE_ENDED = "stopped: this node's lease ended, and the task may be moved"
"""The ending of an exclusive movable task that nobody may count as a failure."""
HIDDEN_ATTEMPTS = 4
"""How many attempts a power cut may have taken from the journal, which is synced every 5 s."""


class Step(enum.Enum):
    """The verbs of a runner."""

    PREPARE = 1
    CREATE = 2
    START = 3
    STOP = 4
    REMOVE = 5
    WAIT = 6  # for an event, an order or `until_ms`
    FORGET = 7  # the container is gone and that is what was wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One instant on both clocks, in ms: boot time to measure with, wall time to show."""

    boot_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an agent remembers of a task; journalled, so that a restart forgets nothing."""

    attempt: int = 1
    state: TaskState = S.ASSIGNED
    failures: int = 0  # ends in a row, since the last good run
    rejections: int = 0  # refusals in a row
    lapses: int = 0  # ends for want of a lease
    prepared: bool = False
    started: bool = False  # a start of this attempt has succeeded
    open_starts: int = 0  # starts of this container that were asked for and not answered
    retry_at_ms: int = 0  # boot time; 0: at once
    running_since_ms: int = 0  # boot time
    end_counted: str = ""  # the container and time of the last end that was counted
    ending: str = ""  # why the agent itself stops a live container, in order to start it again
    exit_code: int | None = None
    oom_killed: bool = False
    message: str = ""
    changed_wall_ms: int = 0
    running_since_wall_ms: int = 0
    retry_at_wall_ms: int = 0
    pid: int = 0
    started_wall_ms: int = 0  # as the runtime dates the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of a task, and by which rules."""

    desired: Desired
    restart: RestartPolicy
    is_job: bool = False
    may_start: bool = True
    waits_for: str = ""  # what it may not be started without
    may_run: bool = True  # False: it needs a lease, and that is about to end
    needs_lease: bool = False
    lapsed_ms: int = 0  # boot time at which the lease last ended; 0: it never did, or needs none


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The one next step, and the record as it is from now on."""

    step: Step
    record: Record
    until_ms: int = 0  # WAIT: boot time; 0: until something happens


def next_step(wish: Wish, seen: Seen | None, record: Record, now: Now, jitter: float) -> Decision:
    """What to do now. `jitter` is a random number in [0, 1)."""
    if wish.desired is not Desired.RUNNING:
        return _towards_the_end(wish, seen, record, now)
    if record.state in TERMINAL:
        # The same task never runs again: what somebody started by hand is stopped.
        step = Step.STOP if is_alive(seen) else Step.WAIT
        return Decision(step=step, record=record)
    if seen is None:
        return _without_container(wish, record, now, jitter)
    match seen.phase:
        case Phase.CREATED:
            return _start_when_due(wish, seen, record, now)
        case Phase.RUNNING | Phase.PAUSED:
            return _while_alive(wish, seen, record, now)
        case Phase.EXITED:
            return _after_exit(wish, seen, record, now, jitter)


def asked(record: Record) -> Record:
    """The runtime is being asked to start the container."""
    return replace(record, open_starts=record.open_starts + 1)


def answered(record: Record) -> Record:
    """It has answered, whatever it said: this start is over."""
    return replace(record, open_starts=max(0, record.open_starts - 1))


def started(record: Record) -> Record:
    """The runtime has started the container: whatever end is seen now is this attempt's."""
    return replace(answered(record), started=True, rejections=0)


def removed(record: Record) -> Record:
    """We have removed the container, and with it what might have started it yet."""
    return replace(record, open_starts=0, prepared=False)


def taken_over(record: Record, seen: Seen | None) -> Record:
    """An agent before this one had the task, and may have died while it asked for a start."""
    if seen is None or is_alive(seen):
        return record
    return replace(record, open_starts=max(1, record.open_starts))


def may_still_start(seen: Seen | None, record: Record) -> bool:
    """Whether a container that does not run may come up without being asked for again.

    An engine that was slow or stopped does later what nobody waits for any more; of a
    container that is gone it cannot.
    """
    return seen is not None and not is_alive(seen) and record.open_starts > 0


def rejected(record: Record, sentence: str, now: Now, jitter: float) -> Record:
    """The runtime cannot run this spec here: try again a little later, three times in all."""
    rejections = record.rejections + 1
    record = replace(record, rejections=rejections, message=sentence, prepared=False)
    if rejections >= TRIES:
        return _ended(record, S.REJECTED, now)
    return _retry(record, _delay_ms(RestartPolicy(), rejections, jitter), now)


def vanished(wish: Wish, record: Record, now: Now, jitter: float) -> Record:
    """The container was removed by somebody else: make it anew, as the next attempt."""
    record = removed(record)
    return _count_end(wish, record, None, "the container was removed by hand", now, jitter)


def rebooted(wish: Wish, record: Record, seen: Seen | None, now: Now) -> Record:
    """The machine was restarted: start again at once, and blame nobody for the end.

    What had ended well stays ended: an exit code of 0 is never a power cut's doing.
    """
    record = replace(record, open_starts=0)  # the engine has forgotten, too
    if record.state in TERMINAL or is_alive(seen):
        return replace(record, running_since_ms=now.boot_ms, retry_at_ms=0)
    if seen is not None and _is_done(wish, seen.exit_code):
        return replace(record, retry_at_ms=0)
    hidden = HIDDEN_ATTEMPTS if record.failures else 1
    fresh = _next_attempt(replace(record, attempt=record.attempt + hidden - 1))
    return replace(
        fresh,
        state=S.ASSIGNED,
        failures=0,
        message="the machine was restarted",
        changed_wall_ms=now.wall_ms,
        end_counted=_end_of(seen) if seen is not None else "",
    )


def reminded(record: Record, told: TaskStatus) -> Record:
    """Count on from what a scheduler was told of a task before, where the journal has lost that:
    the disk was full when the agent ended, say. It believes nothing that is behind it."""
    state = record.state if record.state is not S.ASSIGNED else S.PREPARING  # the next to be told
    for attempt in (record.attempt, told.attempt, told.attempt + 1):
        if is_legal(Writer.AGENT, told.state, state, old_attempt=told.attempt, new_attempt=attempt):
            return replace(record, attempt=attempt)
    return record  # it had ended, and the scheduler will say what follows


def status_of(task: TaskId, record: Record, seen: Seen | None) -> TaskStatus:
    """What to tell the scheduler: the record's story and the container's facts."""
    is_live = record.state is S.RUNNING and is_alive(seen)
    health = Health.NONE
    message = record.message
    if is_live and seen is not None:
        health = seen.health
        if seen.phase is Phase.PAUSED:
            health, message = Health.UNHEALTHY, "paused by hand; `docker unpause` lets it go on"
    return TaskStatus(
        task=task,
        attempt=record.attempt,
        state=record.state,
        health=health,
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        message=message,
        container_id=seen.container_id if seen is not None else "",
        pid=seen.pid if is_live and seen is not None else 0,
        image_digest=seen.image_digest if seen is not None else "",
        changed_ms=record.changed_wall_ms,
        running_since_ms=record.running_since_wall_ms if is_live else 0,
        retry_at_ms=record.retry_at_wall_ms,
        ports=seen.ports if is_live and seen is not None else (),
        addresses=seen.addresses if is_live and seen is not None else (),
        node_is_cause=record.state is S.REJECTED,
    )


# ---------------------------------------------------------------- towards RUNNING


def _without_container(wish: Wish, record: Record, now: Now, jitter: float) -> Decision:
    if record.state is S.RUNNING:
        record = vanished(wish, record, now, jitter)
    if record.state in TERMINAL:
        return Decision(step=Step.WAIT, record=record)
    if now.boot_ms < record.retry_at_ms:
        return Decision(step=Step.WAIT, record=record, until_ms=record.retry_at_ms)
    if record.state is S.BACKOFF:
        record = _next_attempt(record)
    if not record.prepared:
        return Decision(step=Step.PREPARE, record=_reach(record, S.PREPARING, now))
    if not wish.may_start:
        return _wait_to_start(wish, record, now)
    return Decision(step=Step.CREATE, record=_reach(record, S.STARTING, now))


def _start_when_due(wish: Wish, seen: Seen, record: Record, now: Now) -> Decision:
    if may_still_start(seen, record) and _is_made_anew(wish, seen):
        if record.state is S.RUNNING:
            record = _next_attempt(record)
        return Decision(step=Step.REMOVE, record=record)
    if now.boot_ms < record.retry_at_ms:
        return Decision(step=Step.WAIT, record=record, until_ms=record.retry_at_ms)
    if record.state in (S.BACKOFF, S.RUNNING):
        record = _next_attempt(record)
    if not wish.may_start:
        return _wait_to_start(wish, record, now)
    return Decision(step=Step.START, record=_reach(record, S.STARTING, now))


def _is_made_anew(wish: Wish, seen: Seen) -> bool:
    """Whether the container goes whose start was not answered; any other is started again.

    What needs the lease might come up when that is over and the task runs elsewhere, and a
    job when it has run already. Neither loses much with its container, and one that never ran
    nothing at all.
    """
    return seen.phase is Phase.CREATED or wish.needs_lease or wish.is_job


def _wait_to_start(wish: Wish, record: Record, now: Now) -> Decision:
    waiting = replace(_reach(record, S.READY, now), message=wish.waits_for)
    return Decision(step=Step.WAIT, record=waiting)


def _while_alive(wish: Wish, seen: Seen, record: Record, now: Now) -> Decision:
    is_other_start = (
        record.state is S.RUNNING
        and (seen.pid and record.pid and seen.pid != record.pid)
        and seen.started_ms != record.started_wall_ms
    )
    if not wish.may_run and record.ending != LEASE_ENDED:
        record = replace(record, ending=LEASE_ENDED)
    if record.ending == LEASE_ENDED or (record.ending and not is_other_start):
        return Decision(step=Step.STOP, record=record)
    if record.state is S.BACKOFF or is_other_start:
        # Somebody restarted it by hand, or the journal has lost that we did: it runs, as an
        # attempt of its own, and what spoke against the one before is over.
        record = _next_attempt(record)
    if record.state is not S.RUNNING:
        record = _running(record, seen, now)
    elif seen.pid and not record.pid:
        record = replace(record, pid=seen.pid, started_wall_ms=seen.started_ms)
    if seen.health is Health.UNHEALTHY and seen.phase is Phase.RUNNING:
        record = replace(record, ending="its health check fails")
        return Decision(step=Step.STOP, record=record)
    return Decision(step=Step.WAIT, record=record)


def _after_exit(wish: Wish, seen: Seen, record: Record, now: Now, jitter: float) -> Decision:
    is_counted = _end_of(seen) == record.end_counted and not record.started
    if record.state is not S.BACKOFF and not is_counted:
        if is_leases_doing(wish, seen, record):
            return _start_when_due(wish, seen, _lapsed(record, seen, now), now)
        record = replace(record, end_counted=_end_of(seen))
        record = _count_end(wish, record, seen, _ending(seen, record), now, jitter)
        if record.state in TERMINAL:
            return Decision(step=Step.WAIT, record=record)
    return _start_when_due(wish, seen, record, now)


def is_leases_doing(wish: Wish, seen: Seen, record: Record) -> bool:
    """Whether it ended for want of a lease: by our own stop, or by the guard meanwhile."""
    is_of_before = 0 < record.running_since_ms < wish.lapsed_ms
    had_none = is_of_before or not wish.may_run
    return record.ending == LEASE_ENDED or (had_none and not _is_done(wish, seen.exit_code))


def has_lapsed(before: Record, now: Record) -> bool:
    """Whether between these two the task ended for want of a lease."""
    return now.lapses > before.lapses


def _lapsed(record: Record, seen: Seen, now: Now) -> Record:
    """As after a reboot: the next attempt is nobody's failure."""
    return replace(
        _next_attempt(record),
        lapses=record.lapses + 1,
        exit_code=seen.exit_code,
        message=LEASE_ENDED,
        changed_wall_ms=now.wall_ms,
        end_counted=_end_of(seen),
    )


def _count_end(
    wish: Wish, record: Record, seen: Seen | None, sentence: str, now: Now, jitter: float
) -> Record:
    """The container ended: is it done, has it failed, or when does it start again?"""
    good_run_ms = wish.restart.window_ms or GOOD_RUN_MS
    ran_well = record.running_since_ms > 0 and now.boot_ms - record.running_since_ms >= good_run_ms
    failures = 1 if ran_well else record.failures + 1
    exit_code = seen.exit_code if seen is not None else None
    was_unhealthy = bool(record.ending)
    record = replace(
        record,
        failures=failures,
        exit_code=exit_code,
        oom_killed=seen.oom_killed if seen is not None else False,
        message=sentence,
        running_since_ms=0,
        running_since_wall_ms=0,
        ending="",
        pid=0,
    )
    if not was_unhealthy and _is_done(wish, exit_code):
        return _ended(record, S.COMPLETE, now)
    if wish.restart.condition is RestartCondition.NONE:
        return _ended(record, S.FAILED, now)
    limit = wish.restart.max_attempts
    if limit and failures > limit:
        tried = "once" if limit == 1 else f"{limit} times"
        record = replace(record, message=f"{sentence}; it was started again {tried}, to no avail")
        return _ended(record, S.FAILED, now)
    delay_ms = _delay_ms(wish.restart, failures, jitter)
    return _retry(replace(record, state=S.BACKOFF, changed_wall_ms=now.wall_ms), delay_ms, now)


# ---------------------------------------------------------------- towards the end


def _towards_the_end(wish: Wish, seen: Seen | None, record: Record, now: Now) -> Decision:
    if is_alive(seen):
        return Decision(step=Step.STOP, record=record)
    if record.state not in TERMINAL:
        if seen is not None and seen.phase is Phase.EXITED:
            record = replace(record, exit_code=seen.exit_code, oom_killed=seen.oom_killed)
        if may_still_start(seen, record):
            # Who hears of the end gives its room, its port and its slot to another.
            return Decision(step=Step.REMOVE, record=record)
        record = _ended(replace(record, message="stopped"), S.SHUTDOWN, now)
    if wish.desired is not Desired.REMOVED:
        return Decision(step=Step.WAIT, record=record)
    if seen is not None:
        return Decision(step=Step.REMOVE, record=record)
    if record.state is not S.REMOVED:
        record = replace(record, state=S.REMOVED, changed_wall_ms=now.wall_ms)
    return Decision(step=Step.FORGET, record=record)


# ---------------------------------------------------------------- small moves


def _reach(record: Record, state: TaskState, now: Now) -> Record:
    """At least this state: what has to be redone within an attempt is not a step back."""
    record = replace(record, retry_at_ms=0, retry_at_wall_ms=0)
    if record.state.value >= state.value:
        return record
    return replace(record, state=state, message="", changed_wall_ms=now.wall_ms)


def _running(record: Record, seen: Seen, now: Now) -> Record:
    return replace(
        record,
        state=S.RUNNING,
        started=True,
        # The only one there was has taken place; of several nobody knows which.
        open_starts=record.open_starts if record.started or record.open_starts > 1 else 0,
        rejections=0,
        message="",
        exit_code=None,
        oom_killed=False,
        changed_wall_ms=now.wall_ms,
        running_since_ms=now.boot_ms,
        running_since_wall_ms=seen.started_ms or now.wall_ms,
        retry_at_ms=0,
        retry_at_wall_ms=0,
        pid=seen.pid,
        started_wall_ms=seen.started_ms,
    )


def _next_attempt(record: Record) -> Record:
    # The state is lower than any that the new attempt can report, so that each shows.
    return replace(
        record,
        attempt=record.attempt + 1,
        state=S.ASSIGNED,
        started=False,
        retry_at_ms=0,
        retry_at_wall_ms=0,
        running_since_ms=0,
        running_since_wall_ms=0,
        ending="",
        pid=0,
    )


def _retry(record: Record, delay_ms: int, now: Now) -> Record:
    return replace(
        record, retry_at_ms=now.boot_ms + delay_ms, retry_at_wall_ms=now.wall_ms + delay_ms
    )


def _ended(record: Record, state: TaskState, now: Now) -> Record:
    return replace(
        record,
        state=state,
        changed_wall_ms=now.wall_ms,
        retry_at_ms=0,
        retry_at_wall_ms=0,
        running_since_ms=0,
        running_since_wall_ms=0,
        pid=0,
    )


def _delay_ms(policy: RestartPolicy, failures: int, jitter: float) -> int:
    if policy.delay_ms:
        return policy.delay_ms
    ceiling = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(failures - 1, 16))
    return int(ceiling * (0.7 + 0.3 * jitter))


def is_alive(seen: Seen | None) -> bool:
    return seen is not None and seen.phase in (Phase.RUNNING, Phase.PAUSED)


def _is_done(wish: Wish, exit_code: int | None) -> bool:
    return exit_code == 0 and (wish.is_job or wish.restart.condition is not RestartCondition.ANY)


def _end_of(seen: Seen) -> str:
    return f"{seen.container_id}@{seen.finished_ms}"


def _ending(seen: Seen, record: Record) -> str:
    if record.ending:
        return record.ending
    if seen.oom_killed:
        return "killed: it used more memory than its limit"
    if seen.error:
        return seen.error
    if seen.exit_code is None:
        return "it ended, and nobody saw how"
    if seen.exit_code > 128:
        return f"exited with {seen.exit_code} (signal {seen.exit_code - 128})"
    return f"exited with {seen.exit_code}"
