"""Drive one task: look, decide, do, report; one runner for each, for as long as it is here.

Orders, events of the runtime and timers only wake it; what to do is `steps.next_step`'s
word. A newcomer's mistakes: looking before every step (an answer of the runtime is a look,
and a deployment's speed is the number of calls), and treating an engine that does not
answer as a container that does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from agent import steps
from agent.guarding import Guarding, Unguarded
from agent.journal import Journal
from agent.lease import Lease, needs_lease
from agent.runtime.base import (
    Gone,
    Phase,
    Progress,
    Rejected,
    Runtime,
    RuntimeFailure,
    Seen,
    Unavailable,
    Work,
)
from agent.starts import Starts
from agent.steps import Record, Step
from homeport.lifecycle import Desired, TaskState
from homeport.model import Event, TaskId, TaskStatus
from homeport.seams import Clock, Randomness, jittered
from homeport.spec import Driver, RestartPolicy

GRACE_SECONDS = 10.0
LEASE_LOOK_SECONDS = 1.0
LATE_LOOK_SECONDS = 1.0
"""After a start that did not name its process, look again so much later."""
LATE_LOOK_MAX_SECONDS = 10.0
"""Or so much later at most, while others wait to be started: their start comes first."""
OUTAGE_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between tries while the engine does not answer."""
OWN_START_MS = 3_000
"""An event that says "started" within so long of a start of ours is about that one."""
LOG_SECONDS = 2.0
LOG_TAIL = 50

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all runners of an agent work with."""

    runtime: Runtime
    driver: Driver  # which one `runtime` is
    clock: Clock
    randomness: Randomness
    journal: Journal
    lease: Lease
    guarding: Guarding | Unguarded
    hold: Callable[[TaskId], str]  # why a task may not be started yet; empty: it may
    starts: Starts  # creates and starts in flight
    publish: Callable[[TaskStatus], None]
    tell: Callable[[Event], None]
    ensure_image: Callable[[str, Progress], Awaitable[None]]


class Runner:
    """One task's keeper."""

    def __init__(
        self,
        means: Means,
        task: TaskId,
        *,
        work: Work | None,
        desired: Desired,
        record: Record,
        seen: Seen | None = None,
    ) -> None:
        """`seen` is its container as it was listed just now; None: there is none."""
        self.task = task
        self.record = record
        self.seen = seen
        self.is_gone = False
        self._means = means
        self._work = work
        self._desired = desired
        self._wake = asyncio.Event()
        self._must_look = False
        self._must_quote = False
        self._late_look_ms = 0
        self._late_look_until_ms = 0
        self._outages = 0
        self._doing = ""
        self._preparing: asyncio.Timeout | None = None
        self._published: TaskStatus | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its process was running when it was last seen."""
        return self.seen is not None and self.seen.phase in (Phase.RUNNING, Phase.PAUSED)

    @property
    def work(self) -> Work | None:
        """What its container is made from; None when nobody told."""
        return self._work

    @property
    def status(self) -> TaskStatus:
        """What the scheduler is to know of it."""
        status = steps.status_of(self.task, self.record, self.seen)
        return replace(status, message=self._doing) if self._doing else status

    @property
    def needs_lease(self) -> bool:
        """Whether it may only run while the node has a lease."""
        return self._work is not None and needs_lease(self._work.assignment)

    def reconsider(self) -> None:
        """What it waits for may have come: decide anew."""
        self._wake.set()

    def protect(self) -> None:
        """Leave word for the guard which processes need the lease."""
        means = self._means
        if not self.needs_lease or (self._desired is Desired.REMOVED and self.seen is None):
            means.guarding.release(self.task)
        else:
            marks = means.runtime.marks(self.seen) if self.seen is not None else ()
            means.guarding.protect(self.task, marks)

    def order(self, work: Work | None, desired: Desired) -> None:
        """What is wanted from now on. A preparation that is no longer wanted ends at once."""
        self._work = work
        if desired is not self._desired and self._preparing is not None:
            preparing, self._preparing = self._preparing, None
            preparing.reschedule(asyncio.get_running_loop().time())
        self._desired = desired
        self._wake.set()

    def remind(self, told: TaskStatus) -> None:
        """A scheduler was told this once; see `steps.reminded`."""
        before, self.record = self.record, steps.reminded(self.record, told)
        if self.record != before:
            self._means.journal.keep(self.task, self.record)
            self._publish()

    def notice(self, action: str = "") -> None:
        """Something happened to the container: look again. `action` as the runtime calls it."""
        if action in ("create", "start") and self._is_own_start():
            return  # the runtime's answer has told of it
        self._must_look = True
        self._wake.set()

    def _is_own_start(self) -> bool:
        if self.record.state is TaskState.RUNNING:
            return self._now().boot_ms - self.record.running_since_ms < OWN_START_MS
        return bool(self.record.state.value < TaskState.RUNNING.value)

    async def run(self) -> None:
        """Bring the task where it is wanted and keep it there, until its container is gone."""
        while not self.is_gone:
            try:
                await self._once()
                self._outages = 0
            except Unavailable as error:
                await self._sit_out(str(error))
            except Exception:
                # A runner outlives whatever goes wrong with its container: the others must
                # not notice, and what failed is tried again.
                log.exception("a step failed", task=self.task)
                await self._sit_out("this agent met an error of its own; its log has it")

    async def _once(self) -> None:
        if self._must_look:
            self._must_look = False
            self.seen = await self._means.runtime.inspect(self.task)
        decision = self._decide()
        match decision.step:
            case Step.PREPARE:
                await self._prepare()
            case Step.CREATE | Step.START:
                await self._bring_up()
            case Step.STOP:
                await self._stop()
            case Step.REMOVE:
                await self._remove()
            case Step.FORGET:
                self.is_gone = True
            case Step.WAIT:
                if self._must_quote:
                    await self._quote()
                await self._wait(decision.until_ms)

    # ---------------------------------------------------------------- the steps

    async def _prepare(self) -> None:
        work = self._work
        if work is None:
            raise Unavailable("waits for its spec from a scheduler")
        _check_files(work)
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._preparing = limit
                if work.generation.spec.driver is not self._means.driver:
                    raise Rejected(  # noqa: TRY301 - as the runtime itself would
                        f"this node runs {self._means.driver.name.lower()} only, not"
                        f" {work.generation.spec.driver.name.lower()}"
                    )
                if image_id := work.generation.spec.container.image_id:
                    await self._means.ensure_image(image_id, self._progress)
                await self._means.runtime.prepare(work, self._progress)
        except Rejected as error:
            self._refused(error)
        except TimeoutError:
            if not limit.expired():
                raise
            # Something else is wanted now.
        else:
            self.record = replace(self.record, prepared=True)
        finally:
            self._preparing = None
            self._doing = ""

    async def _bring_up(self) -> None:
        """Create and start in one go, a few tasks at a time.

        What is wanted, and the lease, are looked at again before each call: the queue may
        have been long.
        """
        priority = self._work.generation.spec.priority if self._work is not None else 0
        async with self._means.starts.turn(priority):
            try:
                while (step := self._decide().step) in (Step.CREATE, Step.START):
                    if step is Step.CREATE:
                        assert self._work is not None  # prepared with it
                        self.seen = await self._means.runtime.create(self._work)
                    else:
                        self.seen = await self._start()
                        self._set(steps.started(self.record))
            except Rejected as error:
                self._refused(error)
            except Gone:
                self.seen = None
                wish = self._wish()
                self._set(steps.vanished(wish, self.record, self._now(), self._random()))
        if self.is_alive and self.seen is not None and not self.seen.pid:
            now_ms = self._now().boot_ms
            self._late_look_ms = now_ms + int(LATE_LOOK_SECONDS * 1000)
            self._late_look_until_ms = now_ms + int(LATE_LOOK_MAX_SECONDS * 1000)

    async def _start(self) -> Seen:
        self._set(steps.asked(self.record))
        start = self._means.runtime.start(self.task)
        try:
            return await (self._while_leased(start) if self.needs_lease else start)
        except (Rejected, Gone):
            self._set(steps.answered(self.record))
            raise

    async def _while_leased(self, start: Awaitable[Seen]) -> Seen:
        """Wait for the start no longer than the lease lasts: then it is to be undone."""
        loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if self._may_run():
                timer = loop.call_later(LEASE_LOOK_SECONDS, look)
            else:
                limit.reschedule(loop.time())

        try:
            async with limit:
                look()
                return await start
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable("the lease ends, and the start was not answered") from None
        finally:
            if timer is not None:
                timer.cancel()

    async def _remove(self) -> None:
        """Remove the container: it is to go, or a start of it may still take place."""
        if self._desired is Desired.RUNNING:
            log.warning("removes a container whose start was not answered", task=self.task)
            self._announce("StartUndone", "the engine did not answer; the container is made anew")
        await self._means.runtime.remove(self.task)
        self.seen = None
        self._set(steps.removed(self.record))

    async def _stop(self) -> None:
        grace = self._grace_seconds()
        if self.needs_lease and self.record.ending == steps.LEASE_ENDED:
            left = self._means.lease.until_seconds - self._means.clock.boottime()
            grace = max(0.0, min(grace, left))
        self.seen = await self._means.runtime.stop(self.task, grace)
        if self.is_alive:
            raise Unavailable("it does not die, not even when killed; looks again")

    def _grace_seconds(self) -> float:
        if self._work is None:
            return GRACE_SECONDS
        return self._work.generation.spec.container.stop_grace_ms / 1000

    async def _wait(self, until_ms: int) -> None:
        until = [each for each in (until_ms, self._late_look_ms) if each]
        now_ms = self._now().boot_ms
        wish = self._wish()
        if not wish.may_start:
            until.append(now_ms + int(LEASE_LOOK_SECONDS * 1000))
        if self.is_alive and self.needs_lease and wish.may_run:
            stop = self._means.lease.stop_begins(self._grace_seconds())
            until.append(int(stop * 1000) + 1)
        delay = max(0, min(until) - now_ms) / 1000 if until else None
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        now_ms = self._now().boot_ms
        if self._late_look_ms and now_ms >= self._late_look_ms:
            if self._means.starts.locked() and now_ms < self._late_look_until_ms:
                self._late_look_ms = now_ms + int(LATE_LOOK_SECONDS * 1000)
                return
            self._late_look_ms = 0
            self._must_look = True

    async def _sit_out(self, sentence: str) -> None:
        """The engine does not answer: nothing is known to have changed. Try again later."""
        self._must_look = True
        self._doing = sentence
        self._publish()
        pause = OUTAGE_SECONDS[min(self._outages, len(OUTAGE_SECONDS) - 1)]
        self._outages += 1
        try:
            async with asyncio.timeout(jittered(pause, self._means.randomness)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        self._doing = ""

    async def _quote(self) -> None:
        """Keep the last lines of a run that ended badly, while there is a container to ask."""
        self._must_quote = False
        output = bytearray()
        try:
            async with asyncio.timeout(LOG_SECONDS):
                async for chunk in self._means.runtime.logs(
                    self.task, follow=False, tail=LOG_TAIL, since_ms=0, until_ms=0
                ):
                    output += chunk.data
        except (RuntimeFailure, TimeoutError):
            return  # they are a convenience
        self._means.journal.quote(self.task, output.decode(errors="replace").splitlines())

    # ---------------------------------------------------------------- what came of it

    def _decide(self) -> steps.Decision:
        self.protect()
        decision = steps.next_step(
            self._wish(), self.seen, self.record, self._now(), self._random()
        )
        self._set(decision.record)
        return decision

    def _refused(self, error: Rejected) -> None:
        self._set(steps.rejected(self.record, str(error), self._now(), self._random()))

    def _set(self, record: Record) -> None:
        before, self.record = self.record, record
        self._means.journal.keep(self.task, record)
        self._publish()
        if steps.has_lapsed(before, record):
            self._announce("LeaseEnded", steps.LEASE_ENDED)
        elif (record.attempt, record.state) != (before.attempt, before.state):
            if record.state in (TaskState.BACKOFF, TaskState.FAILED) and self.seen is not None:
                self._must_quote = True
            self._announce_state(record)

    def _publish(self) -> None:
        status = self.status
        # Between two attempts the record is at ASSIGNED, which no scheduler needs to see.
        if status != self._published and status.state is not TaskState.ASSIGNED:
            self._published = status
            self._means.publish(status)

    def _announce_state(self, record: Record) -> None:
        if reason := _REASONS.get(record.state):
            reason = "OOMKilled" if record.oom_killed else reason
            self._announce(reason, record.message or f"attempt {record.attempt}")
            log.info("task changed", task=self.task, state=record.state.name, why=record.message)

    def _announce(self, reason: str, message: str) -> None:
        event = Event(
            at_ms=self._now().wall_ms,
            kind="task",
            object=self.task,
            reason=reason,
            message=message,
        )
        self._means.journal.tell(self.task, event)
        self._means.tell(event)

    def _progress(self, sentence: str) -> None:
        self._doing = sentence
        self._publish()

    def _wish(self) -> steps.Wish:
        if self._work is None:
            return steps.Wish(desired=self._desired, restart=RestartPolicy())
        spec = self._work.generation.spec
        may_run, waits_for = True, self._means.hold(self.task)
        if self.needs_lease:
            may_run, waits_for = self._may_run(), waits_for or self._means.guarding.objection
            if not may_run and not waits_for:
                waits_for = "waits for this node's lease: the task is exclusive"
        return steps.Wish(
            desired=self._desired,
            restart=spec.restart,
            is_job=spec.mode.is_job,
            may_start=not waits_for,
            waits_for=waits_for,
            may_run=may_run,
            needs_lease=self.needs_lease,
            lapsed_ms=int(self._means.lease.lapsed_seconds * 1000) if self.needs_lease else 0,
        )

    def _may_run(self) -> bool:
        means = self._means
        now = means.clock.boottime()
        return now < means.lease.stop_begins(self._grace_seconds()) and not means.guarding.is_missed

    def _now(self) -> steps.Now:
        clock = self._means.clock
        return steps.Now(boot_ms=int(clock.boottime() * 1000), wall_ms=clock.wall_ms())

    def _random(self) -> float:
        return self._means.randomness.random()


_REASONS = {
    TaskState.RUNNING: "Started",
    TaskState.BACKOFF: "BackOff",
    TaskState.COMPLETE: "Completed",
    TaskState.SHUTDOWN: "Stopped",
    TaskState.FAILED: "Failed",
    TaskState.REJECTED: "Rejected",
    TaskState.REMOVED: "Removed",
}


def _check_files(work: Work) -> None:
    here = {file.digest for file in work.files}
    for mount in work.generation.spec.container.files:
        if mount.digest not in here:
            raise Unavailable(
                f"waits for the content of the {mount.kind.name.lower()} {mount.source}"
                " from a scheduler"
            )
