"""What is to be done next for a task, case by case and as properties."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from agent import steps
from agent.runtime.base import Phase, Seen
from agent.steps import LEASE_ENDED, Now, Record, Step, Wish
from homeport.lifecycle import AGENT, TERMINAL, Desired, TaskState as S, Writer, is_legal
from homeport.model import Health, TaskId, TaskStatus
from homeport.spec import RestartCondition, RestartPolicy

TASK = TaskId("s-web-1/1/1")
NOW = Now(boot_ms=1_000_000, wall_ms=1_800_000_000_000)


def wish(
    desired: Desired = Desired.RUNNING,
    *,
    condition: RestartCondition = RestartCondition.ANY,
    is_job: bool = False,
    may_start: bool = True,
    may_run: bool = True,
    needs_lease: bool = False,
    lapsed_ms: int = 0,
    **policy: int,
) -> Wish:
    restart = RestartPolicy(condition=condition, **policy)
    return Wish(
        desired=desired,
        restart=restart,
        is_job=is_job,
        may_start=may_start,
        may_run=may_run,
        needs_lease=needs_lease,
        lapsed_ms=lapsed_ms,
    )


def seen(phase: Phase, **fields: object) -> Seen:
    return Seen(container_id="c", task=TASK, generation=1, phase=phase, **fields)  # type: ignore[arg-type]


RUNNING = seen(Phase.RUNNING, pid=7, started_ms=1)
CREATED = seen(Phase.CREATED)
PAUSED = seen(Phase.PAUSED, pid=7, started_ms=1)


def exited(code: int | None = 1, *, at: int = 5, oom: bool = False) -> Seen:
    return seen(Phase.EXITED, exit_code=code, finished_ms=at, oom_killed=oom)


LIVE = Record(
    state=S.RUNNING, prepared=True, started=True, running_since_ms=990_000, pid=7, started_wall_ms=1
)
RESTING = replace(LIVE, state=S.BACKOFF, failures=1, end_counted="c@5", retry_at_ms=1_000_700)
FRESH = Record()
PREPARED = Record(state=S.PREPARING, prepared=True)


@pytest.mark.parametrize(
    ("wanted", "what", "record", "step", "state", "attempt"),
    [
        pytest.param(wish(), None, FRESH, Step.PREPARE, S.PREPARING, 1, id="a new task"),
        pytest.param(wish(), None, PREPARED, Step.CREATE, S.STARTING, 1, id="all is ready"),
        pytest.param(wish(), CREATED, PREPARED, Step.START, S.STARTING, 1, id="it is created"),
        pytest.param(
            wish(), RUNNING, replace(PREPARED, state=S.STARTING), Step.WAIT, S.RUNNING, 1,
            id="it has started",
        ),
        pytest.param(wish(), RUNNING, FRESH, Step.WAIT, S.RUNNING, 1, id="it is adopted"),
        pytest.param(wish(), exited(), LIVE, Step.WAIT, S.BACKOFF, 1, id="it crashed"),
        pytest.param(wish(), exited(0), LIVE, Step.WAIT, S.BACKOFF, 1, id="it ended with 0"),
        pytest.param(wish(), exited(), RESTING, Step.WAIT, S.BACKOFF, 1, id="not yet again"),
        pytest.param(
            wish(), exited(), replace(RESTING, retry_at_ms=1_000_000), Step.START, S.STARTING, 2,
            id="time to start it again",
        ),
        pytest.param(
            wish(), RUNNING, RESTING, Step.WAIT, S.RUNNING, 2, id="somebody started it by hand"
        ),
        pytest.param(
            wish(), replace(RUNNING, pid=8, started_ms=2), LIVE, Step.WAIT, S.RUNNING, 2,
            id="somebody restarted it by hand",
        ),
        pytest.param(wish(), None, LIVE, Step.WAIT, S.BACKOFF, 1, id="somebody removed it"),
        pytest.param(
            wish(), None, replace(RESTING, retry_at_ms=1, prepared=False), Step.PREPARE,
            S.PREPARING, 2, id="what was removed is made anew",
        ),
        pytest.param(wish(), PAUSED, LIVE, Step.WAIT, S.RUNNING, 1, id="somebody paused it"),
        pytest.param(
            wish(), replace(RUNNING, health=Health.UNHEALTHY), LIVE, Step.STOP, S.RUNNING, 1,
            id="its health check fails",
        ),
        pytest.param(
            wish(condition=RestartCondition.NONE), exited(), LIVE, Step.WAIT, S.FAILED, 1,
            id="never again, and it failed",
        ),
        pytest.param(
            wish(condition=RestartCondition.NONE), exited(0), LIVE, Step.WAIT, S.COMPLETE, 1,
            id="never again, and it is done",
        ),
        pytest.param(
            wish(condition=RestartCondition.ON_FAILURE), exited(0), LIVE, Step.WAIT, S.COMPLETE, 1,
            id="only after failures, and it is done",
        ),
        pytest.param(
            wish(condition=RestartCondition.ON_FAILURE), exited(2), LIVE, Step.WAIT, S.BACKOFF, 1,
            id="only after failures, and it failed",
        ),
        pytest.param(
            wish(is_job=True), exited(0), LIVE, Step.WAIT, S.COMPLETE, 1, id="a job is done"
        ),
        pytest.param(
            wish(is_job=True), exited(3), LIVE, Step.WAIT, S.BACKOFF, 1, id="a job failed"
        ),
        pytest.param(
            wish(max_attempts=2), exited(), replace(LIVE, failures=2), Step.WAIT, S.FAILED, 1,
            id="the attempts are used up",
        ),
        pytest.param(
            wish(max_attempts=2, window_ms=5_000), exited(), replace(LIVE, failures=2), Step.WAIT,
            S.BACKOFF, 1, id="a good run in between gives all attempts again",
        ),
        pytest.param(
            wish(may_start=False), None, PREPARED, Step.WAIT, S.READY, 1, id="no lease, no start"
        ),
        pytest.param(
            wish(may_start=False), RUNNING, LIVE, Step.WAIT, S.RUNNING, 1,
            id="what runs needs no lease here",
        ),
        pytest.param(
            wish(may_start=False, may_run=False), RUNNING, LIVE, Step.STOP, S.RUNNING, 1,
            id="the lease is about to end",
        ),
        pytest.param(
            wish(), RUNNING, replace(LIVE, ending=LEASE_ENDED), Step.STOP, S.RUNNING, 1,
            id="a stop that was begun is gone through with",
        ),
        pytest.param(
            wish(), RUNNING, replace(LIVE, ending="its health check fails"), Step.STOP, S.RUNNING,
            1, id="also one for its health, which is better by now",
        ),
        pytest.param(
            wish(), replace(RUNNING, pid=8, started_ms=2),
            replace(LIVE, ending="its health check fails"), Step.WAIT, S.RUNNING, 2,
            id="what has been started since was never unwell",
        ),
        pytest.param(
            wish(), replace(RUNNING, pid=8, started_ms=2), replace(LIVE, ending=LEASE_ENDED),
            Step.STOP, S.RUNNING, 1, id="but it may be somebody else's by now",
        ),
        pytest.param(
            wish(may_start=False, may_run=False), exited(137), LIVE, Step.WAIT, S.READY, 2,
            id="what the guard killed waits for a lease",
        ),
        pytest.param(
            wish(lapsed_ms=990_001), exited(137), LIVE, Step.START, S.STARTING, 2,
            id="and is not blamed when the lease is back before it is looked at",
        ),
        pytest.param(
            wish(lapsed_ms=989_999), exited(137), LIVE, Step.WAIT, S.BACKOFF, 1,
            id="what was started since is",
        ),
        pytest.param(
            wish(lapsed_ms=990_001, condition=RestartCondition.ON_FAILURE), exited(0), LIVE,
            Step.WAIT, S.COMPLETE, 1, id="what was done was killed by nobody",
        ),
        pytest.param(
            wish(may_start=False, may_run=False, condition=RestartCondition.NONE), exited(143),
            replace(LIVE, ending=LEASE_ENDED), Step.WAIT, S.READY, 2,
            id="also what is never to be restarted",
        ),
        pytest.param(
            wish(may_start=False, may_run=False, is_job=True), exited(0), LIVE, Step.WAIT,
            S.COMPLETE, 1, id="a job that was done before the lease ended is done",
        ),
        pytest.param(
            wish(), RUNNING, replace(LIVE, state=S.FAILED), Step.STOP, S.FAILED, 1,
            id="an ended task that somebody started",
        ),
        pytest.param(
            wish(Desired.SHUTDOWN), RUNNING, LIVE, Step.STOP, S.RUNNING, 1, id="stop what runs"
        ),
        pytest.param(
            wish(Desired.SHUTDOWN), exited(143), LIVE, Step.WAIT, S.SHUTDOWN, 1, id="stopped"
        ),
        pytest.param(
            wish(Desired.SHUTDOWN), exited(), RESTING, Step.WAIT, S.SHUTDOWN, 1,
            id="stopped while it rests",
        ),
        pytest.param(
            wish(Desired.SHUTDOWN), None, FRESH, Step.WAIT, S.SHUTDOWN, 1, id="stopped unstarted"
        ),
        pytest.param(
            wish(Desired.SHUTDOWN), exited(0), replace(LIVE, state=S.COMPLETE), Step.WAIT,
            S.COMPLETE, 1, id="what is done stays done",
        ),
        pytest.param(
            wish(Desired.REMOVED), RUNNING, LIVE, Step.STOP, S.RUNNING, 1, id="stop, then remove"
        ),
        pytest.param(
            wish(Desired.REMOVED), PAUSED, LIVE, Step.STOP, S.RUNNING, 1, id="also when paused"
        ),
        pytest.param(
            wish(Desired.REMOVED), exited(), LIVE, Step.REMOVE, S.SHUTDOWN, 1, id="remove the dead"
        ),
        pytest.param(
            wish(Desired.REMOVED), None, LIVE, Step.FORGET, S.REMOVED, 1, id="it is gone"
        ),
    ],
)  # fmt: skip
def test_the_next_step(
    wanted: Wish, what: Seen | None, record: Record, step: Step, state: S, attempt: int
) -> None:
    decision = steps.next_step(wanted, what, record, NOW, 0.5)
    assert (decision.step, decision.record.state, decision.record.attempt) == (
        step,
        state,
        attempt,
    )


@pytest.mark.parametrize(
    ("failures", "jitter", "delay"),
    [
        pytest.param(0, 0.0, 700, id="the first restart comes within a second"),
        pytest.param(0, 0.999, 999, id="and jitter keeps many apart"),
        pytest.param(1, 0.0, 1_400, id="the second takes twice as long"),
        pytest.param(4, 0.0, 11_200, id="and so on"),
        pytest.param(30, 0.999, 59_981, id="up to a minute"),
    ],
)
def test_restarts_back_off(failures: int, jitter: float, delay: int) -> None:
    record = replace(LIVE, failures=failures)
    decision = steps.next_step(wish(), exited(), record, NOW, jitter)
    assert decision.until_ms - NOW.boot_ms == delay


def test_a_delay_that_is_given_is_kept_to() -> None:
    decision = steps.next_step(wish(delay_ms=5_000), exited(), LIVE, NOW, 0.9)
    assert decision.until_ms - NOW.boot_ms == 5_000


def test_ten_minutes_of_running_end_a_series_of_failures() -> None:
    record = replace(LIVE, failures=6, running_since_ms=1_000_000 - 600_000 + 1)
    assert steps.next_step(wish(), exited(), record, NOW, 0.5).record.failures == 7
    record = replace(record, running_since_ms=1_000_000 - 600_000)
    assert steps.next_step(wish(), exited(), record, NOW, 0.5).record.failures == 1


def test_an_end_is_counted_once() -> None:
    first = steps.next_step(wish(), exited(at=5), LIVE, NOW, 0.5).record
    due = Now(boot_ms=first.retry_at_ms, wall_ms=NOW.wall_ms)
    starting = steps.next_step(wish(), exited(at=5), first, due, 0.5)
    assert starting.step is Step.START
    # The agent was killed before it started anything: the container looks the same.
    again = steps.next_step(wish(), exited(at=5), starting.record, due, 0.5)
    assert (again.step, again.record.failures) == (Step.START, 1)
    # The container was started, and has ended again.
    ended = steps.next_step(wish(), exited(at=6), steps.started(starting.record), due, 0.5)
    assert (ended.step, ended.record.failures) == (Step.WAIT, 2)


def test_an_unhealthy_container_is_started_again_as_a_failed_attempt() -> None:
    stopping = steps.next_step(wish(), replace(RUNNING, health=Health.UNHEALTHY), LIVE, NOW, 0.5)
    ended = steps.next_step(wish(), exited(0), stopping.record, NOW, 0.5).record
    assert (ended.state, ended.failures, ended.message) == (
        S.BACKOFF,
        1,
        "its health check fails",
    )
    job = steps.next_step(wish(is_job=True), exited(0), stopping.record, NOW, 0.5).record
    assert job.state is S.BACKOFF


def test_a_node_refuses_three_times() -> None:
    record = replace(FRESH, state=S.PREPARING)
    waits = []
    for _ in range(3):
        record = steps.rejected(record, "no such image: x", NOW, 0.0)
        waits.append(record.retry_at_ms and record.retry_at_ms - NOW.boot_ms)
    assert waits == [700, 1_400, 0]
    status = steps.status_of(TASK, record, None)
    assert (status.state, status.message, status.node_is_cause) == (
        S.REJECTED,
        "no such image: x",
        True,
    )


def test_paused_is_told_as_unhealthy() -> None:
    status = steps.status_of(TASK, LIVE, PAUSED)
    assert (status.state, status.health) == (S.RUNNING, Health.UNHEALTHY)
    assert "paused" in status.message


@pytest.mark.parametrize(
    ("record", "what", "state", "attempt", "failures"),
    [
        pytest.param(LIVE, exited(137), S.ASSIGNED, 2, 0, id="a power cut is nobody's failure"),
        pytest.param(
            replace(RESTING, failures=4), exited(), S.ASSIGNED, 5, 0,
            id="attempts that the journal may have lost are skipped",
        ),
        pytest.param(replace(LIVE, state=S.FAILED), exited(), S.FAILED, 1, 0, id="what had failed"),
        pytest.param(LIVE, RUNNING, S.RUNNING, 1, 0, id="what runs after all"),
    ],
)  # fmt: skip
def test_after_a_reboot(record: Record, what: Seen, state: S, attempt: int, failures: int) -> None:
    after = steps.rebooted(wish(), record, what, NOW)
    assert (after.state, after.attempt, after.failures) == (state, attempt, failures)


def test_after_a_reboot_what_was_killed_starts_at_once_and_what_was_done_does_not() -> None:
    killed = steps.rebooted(wish(), RESTING, exited(137), NOW)
    assert steps.next_step(wish(), exited(137), killed, NOW, 0.5).step is Step.START
    job = wish(is_job=True)
    done = steps.rebooted(job, LIVE, exited(0), NOW)
    assert steps.next_step(job, exited(0), done, NOW, 0.5).record.state is S.COMPLETE


OPEN = Record(state=S.STARTING, prepared=True, open_starts=1)
"""A start was asked for, and not answered."""


@pytest.mark.parametrize(
    ("wanted", "what", "step", "state"),
    [
        pytest.param(wish(Desired.SHUTDOWN), CREATED, Step.REMOVE, S.STARTING, id="before an end"),
        pytest.param(wish(Desired.SHUTDOWN), RUNNING, Step.STOP, S.STARTING, id="it came up"),
        pytest.param(wish(Desired.SHUTDOWN), None, Step.WAIT, S.SHUTDOWN, id="it is gone"),
        pytest.param(wish(), CREATED, Step.REMOVE, S.STARTING, id="it never ran: made anew"),
        pytest.param(
            wish(needs_lease=True, may_run=False, may_start=False), CREATED, Step.REMOVE,
            S.STARTING, id="the lease is over",
        ),
    ],
)  # fmt: skip
def test_a_start_that_nobody_answered_is_not_over(
    wanted: Wish, what: Seen | None, step: Step, state: S
) -> None:
    decision = steps.next_step(wanted, what, OPEN, NOW, 0.5)
    assert (decision.step, decision.record.state) == (step, state)


@pytest.mark.parametrize(
    ("wanted", "step"),
    [
        pytest.param(wish(), Step.START, id="what is on an ordinary container is kept"),
        pytest.param(wish(needs_lease=True), Step.REMOVE, id="what may be moved is made anew"),
        pytest.param(wish(is_job=True), Step.REMOVE, id="and a job, which must not run twice"),
    ],
)
def test_what_ran_before_and_was_not_answered_now(wanted: Wish, step: Step) -> None:
    record = replace(OPEN, attempt=2, failures=1, end_counted="c@5")
    assert steps.next_step(wanted, exited(), record, NOW, 0.5).step is step
    stopping = steps.next_step(wish(Desired.SHUTDOWN), exited(), record, NOW, 0.5)
    assert stopping.step is Step.REMOVE


def test_a_start_is_over_when_it_is_answered_or_seen_and_not_by_another_ones_answer() -> None:
    answered = steps.started(steps.asked(FRESH))
    assert not steps.may_still_start(CREATED, answered)
    seen_up = steps.next_step(wish(), RUNNING, OPEN, NOW, 0.5).record
    assert not steps.may_still_start(CREATED, seen_up)
    again = steps.next_step(wish(), RUNNING, steps.started(steps.asked(OPEN)), NOW, 0.5).record
    assert steps.may_still_start(CREATED, again), "the first may still come"
    assert not steps.may_still_start(CREATED, steps.removed(again))
    assert not steps.may_still_start(CREATED, steps.rebooted(wish(), again, CREATED, NOW))


def test_who_takes_a_task_over_does_not_know_what_was_asked_for() -> None:
    assert steps.may_still_start(CREATED, steps.taken_over(FRESH, CREATED))
    assert steps.taken_over(FRESH, RUNNING) == steps.taken_over(FRESH, None) == FRESH


# ---------------------------------------------------------------- properties

POLICIES = st.builds(
    RestartPolicy,
    condition=st.sampled_from(RestartCondition),
    max_attempts=st.integers(0, 3),
    delay_ms=st.sampled_from([0, 1_000]),
    window_ms=st.sampled_from([0, 3_000]),
)
TROUBLE = st.lists(
    st.sampled_from(
        [
            "exit 0",
            "exit 1",
            "oom",
            "rm by hand",
            "start by hand",
            "unhealthy",
            "refuse",
            "answer nothing",
            "start late",
            "tick",
        ]
    ),
    max_size=20,
)


class World:
    """A container, a record and a clock: what a runner has, without asyncio."""

    def __init__(self, wanted: Wish) -> None:
        self.wish = wanted
        self.record = Record()
        self.seen: Seen | None = None
        self.refusals = 0
        self.silences = 0
        self.late_starts = 0
        self.now = Now(boot_ms=1_000, wall_ms=1_800_000_000_000)
        self.made = 0
        self.reports: list[tuple[int, S]] = []
        self.starts = 0

    def happens(self, what: str) -> None:
        self.tick(500)
        alive = self.seen is not None and self.seen.phase is Phase.RUNNING
        match what:
            case "exit 0" if alive:
                self._end(0)
            case "exit 1" if alive:
                self._end(1)
            case "oom" if alive:
                self._end(137, oom=True)
            case "rm by hand":
                self._gone()
            case "start by hand" if self.seen is not None and not alive and not self.late_starts:
                self._start()
            case "start late" if self.late_starts:
                self.late_starts -= 1
                if not alive:
                    self._start()
            case "answer nothing":
                self.silences += 1
            case "unhealthy" if alive and self.seen is not None:
                self.seen = replace(self.seen, health=Health.UNHEALTHY)
            case "refuse":
                self.refusals += 1
            case "tick":
                self.tick(70_000)

    def tick(self, ms: int) -> None:
        self.now = Now(boot_ms=self.now.boot_ms + ms, wall_ms=self.now.wall_ms + ms)

    def settle(self, limit: int = 60) -> Step:
        """Do what is decided until there is nothing to do, without letting time pass."""
        for _ in range(limit):
            decision = steps.next_step(self.wish, self.seen, self.record, self.now, 0.5)
            self._set(decision.record)
            if decision.step in (Step.WAIT, Step.FORGET):
                return decision.step
            self._do(decision.step)
        raise AssertionError(f"it does not settle: {self.reports}")

    def _do(self, step: Step) -> None:
        if step in (Step.PREPARE, Step.CREATE, Step.START) and self.refusals:
            self.refusals -= 1
            if step is Step.START:
                self._set(steps.answered(steps.asked(self.record)))
            self._set(steps.rejected(self.record, "no", self.now, 0.5))
            return
        match step:
            case Step.PREPARE:
                self._set(replace(self.record, prepared=True))
            case Step.CREATE:
                self.made += 1
                self.seen = seen(Phase.CREATED)
                self.seen = replace(self.seen, container_id=f"c{self.made}")
            case Step.START:
                assert self.wish.desired is Desired.RUNNING, "started what should stop"
                assert self.record.state not in TERMINAL, "started what had ended"
                self.starts += 1
                self._set(steps.asked(self.record))
                if self.silences:
                    self.silences -= 1
                    self.late_starts += 1
                else:
                    self._start()
                    self._set(steps.started(self.record))
            case Step.STOP:
                self._end(143)
            case Step.REMOVE:
                self._gone()
                self._set(steps.removed(self.record))

    def _gone(self) -> None:
        self.seen, self.late_starts = None, 0

    def _start(self) -> None:
        assert self.seen is not None
        self.seen = replace(
            self.seen,
            phase=Phase.RUNNING,
            pid=self.now.boot_ms + 1,
            started_ms=self.now.wall_ms,
            exit_code=None,
            health=Health.NONE,
        )

    def _end(self, code: int, *, oom: bool = False) -> None:
        assert self.seen is not None
        self.tick(1)
        self.seen = replace(
            self.seen,
            phase=Phase.EXITED,
            pid=0,
            exit_code=code,
            oom_killed=oom,
            finished_ms=self.now.wall_ms,
        )

    def _set(self, record: Record) -> None:
        before, self.record = self.record, record
        if record.state is S.SHUTDOWN or (self.wish.is_job and record.state in TERMINAL):
            assert not self.late_starts, "it is told to have ended, and may come up"
        told = (record.attempt, record.state)
        if record.state is S.ASSIGNED or (self.reports and self.reports[-1] == told):
            return
        if self.reports:
            attempt, state = self.reports[-1]
            assert is_legal(
                Writer.AGENT, state, record.state, old_attempt=attempt, new_attempt=record.attempt
            ), (before, record)
        else:
            assert record.state in AGENT[S.ASSIGNED]
        self.reports.append(told)


@settings(max_examples=300, deadline=None)
@given(policy=POLICIES, is_job=st.booleans(), trouble=TROUBLE, end=st.sampled_from(Desired))
def test_whatever_happens_it_settles_where_it_is_wanted(
    policy: RestartPolicy, is_job: bool, trouble: list[str], end: Desired
) -> None:
    world = World(Wish(desired=Desired.RUNNING, restart=policy, is_job=is_job))
    world.settle()
    for what in trouble:
        world.happens(what)
        world.settle()
    starts = world.starts
    world.wish = replace(world.wish, desired=end)
    for _ in range(8):  # the trouble is over: time passes
        world.tick(70_000)
        last = world.settle()
    alive = world.seen is not None and world.seen.phase is Phase.RUNNING
    match end:
        case Desired.RUNNING:
            assert alive == (world.record.state is S.RUNNING)
            assert alive or world.record.state in TERMINAL
        case Desired.SHUTDOWN:
            assert not alive
            assert world.record.state in TERMINAL
            assert world.starts == starts
        case Desired.REMOVED:
            assert world.seen is None
            assert (last, world.record.state) == (Step.FORGET, S.REMOVED)
            assert world.starts == starts


@settings(max_examples=200, deadline=None)
@given(policy=POLICIES, trouble=TROUBLE)
def test_a_forgotten_record_loses_no_container(policy: RestartPolicy, trouble: list[str]) -> None:
    world = World(Wish(desired=Desired.RUNNING, restart=policy))
    world.settle()
    for what in trouble:
        world.happens(what)
        world.settle()
    alive = world.seen is not None and world.seen.phase is Phase.RUNNING
    had_ended = world.record.state in TERMINAL
    world.record, world.reports, made = Record(), [], world.made
    world.settle()
    if alive and not had_ended:
        assert (world.record.state, world.made) == (S.RUNNING, made)


# ---------------------------------------------------------------- what the journal has lost


@pytest.mark.parametrize(
    ("record", "told", "attempt"),
    [
        pytest.param((3, S.RUNNING), (3, S.RUNNING), 3, id="nothing was lost"),
        pytest.param((4, S.BACKOFF), (3, S.RUNNING), 4, id="more has happened since"),
        pytest.param((2, S.RUNNING), (3, S.RUNNING), 3, id="a start was lost"),
        pytest.param((1, S.BACKOFF), (3, S.RUNNING), 3, id="it has ended since"),
        pytest.param((2, S.RUNNING), (3, S.BACKOFF), 4, id="it runs again"),
        pytest.param((2, S.COMPLETE), (3, S.RUNNING), 3, id="it has ended for good since"),
        pytest.param(
            (1, S.ASSIGNED), (1, S.RUNNING), 2, id="all was lost, and so is the container"
        ),
        pytest.param((1, S.ASSIGNED), (2, S.PREPARING), 2, id="all was lost before it began"),
        pytest.param((1, S.REMOVED), (2, S.RUNNING), 1, id="what is gone is gone"),
    ],
)
def test_s20_attempts_are_counted_on_from_what_a_scheduler_was_told(record, told, attempt) -> None:
    before = Record(attempt=record[0], state=record[1])
    known = TaskStatus(task=TASK, attempt=told[0], state=told[1])
    after = steps.reminded(before, known)
    assert after == replace(before, attempt=attempt)
    assert steps.reminded(after, known) == after


@given(
    attempts=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    state=st.sampled_from([state for state in S if state not in (S.PENDING, S.ORPHANED)]),
    told=st.sampled_from([state for state in S if state not in TERMINAL | {S.PENDING}]),
)
def test_s20_what_is_told_next_is_never_behind_what_was_told(attempts, state, told) -> None:
    known = TaskStatus(task=TASK, attempt=attempts[1], state=told)
    after = steps.reminded(Record(attempt=attempts[0], state=state), known)
    next_told = S.PREPARING if state is S.ASSIGNED else state
    assert is_legal(
        Writer.AGENT, told, next_told, old_attempt=attempts[1], new_attempt=after.attempt
    )
    assert after.attempt >= attempts[0]
