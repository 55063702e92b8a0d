"""Keep a runner for each task of this node, and obey orders.

It adopts what runs already, journals orders before it acts on them, and stops nothing
without a word: a task that orders leave out goes on, a container of ours that nobody told
us of is kept and reported, and a reconciler's mass stop is held for an operator. A
newcomer's mistake: acting on orders before the containers that are here have been listed;
until then orders are only written down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

import structlog

from agent import boot, orders as rules, steps
from agent.guarding import Guarding, Unguarded
from agent.holds import Holds, booting
from agent.journal import Journal
from agent.lease import Lease
from agent.orders import Orders, Settled, Verdict
from agent.reporter import Reporter
from agent.runner import Means, Runner
from agent.runtime.base import Progress, Runtime, RuntimeFailure, Seen, Unavailable, Work
from agent.starts import Starts
from agent.steps import Record
from homeport import digests
from homeport.lifecycle import Desired, TaskState
from homeport.model import (
    Assignment,
    Condition,
    Event,
    MachineDevice,
    NodeId,
    TaskId,
    TaskStatus,
    UnknownContainer,
    Volume,
)
from homeport.seams import Clock, Randomness, jittered
from homeport.spec import Driver, MountKind

BRAKE_WINDOW_SECONDS = 10.0
"""Removals within this time count as *at once* for the mass-stop brake."""
SWEEP_SECONDS = 60.0
"""All containers are listed this often, in case an event was lost."""
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Worker:
    """The tasks of this node."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        driver: Driver,
        clock: Clock,
        randomness: Randomness,
        journal: Journal,
        lease: Lease,
        reporter: Reporter,
        ensure_image: Callable[[str, Progress], Awaitable[None]],
        starts_in_flight: int,
        boot_id: str,
        guarding: Guarding | Unguarded | None = None,
        devices: Callable[[], tuple[MachineDevice, ...]] = tuple,
    ) -> None:
        """`guarding` None: whoever holds this sees to the lease's end by itself.

        `devices`: what the machine has now.
        """
        self.runners: dict[TaskId, Runner] = {}
        self.unknown: dict[TaskId, Seen] = {}
        """Containers of ours that nobody told us of."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when `conditions` or `unknown_containers` may have changed."""
        self._journal = journal
        self._reporter = reporter
        self._boot_id = boot_id
        self._devices = devices
        self._means = Means(
            runtime=runtime,
            driver=driver,
            clock=clock,
            randomness=randomness,
            journal=journal,
            lease=lease,
            guarding=guarding or Unguarded(),
            hold=self._hold,
            starts=Starts(starts_in_flight),
            publish=self._publish,
            tell=reporter.tell,
            ensure_image=ensure_image,
        )
        self._background: asyncio.TaskGroup | None = None
        self._obeying = asyncio.Lock()
        self._stopped_lately: deque[float] = deque()  # boot time of a reconciler's stops
        self._holds = Holds(journal, self, boot.BootOrder())
        self._cleaning: dict[str, asyncio.Event] = {}
        self._told: dict[TaskId, TaskStatus] = {}  # of tasks that are not taken on yet
        self.is_adopted = False
        """Whether what runs here has been listed."""
        self._wanted_hash: bytes | None = None
        reporter.on_removed = self._forget
        lease.on_begin = self._reconsider_exclusive
        if isinstance(guarding, Guarding):
            guarding.on_change = self._guard_changed

    @property
    def wanted_hash(self) -> bytes:
        """The hash of what this node believes is wanted of it.

        Empty when something was lost that a scheduler has to send again.
        """
        if self._journal.lacks_secrets():
            return b""
        if self._wanted_hash is None:
            journal = self._journal
            self._wanted_hash = digests.wanted_hash(
                want.assignment
                for task, want in journal.wanted.items()
                if want.is_listed and task not in journal.leaving
            )
        return self._wanted_hash

    @property
    def running(self) -> dict[TaskId, Runner]:
        """The tasks whose processes live."""
        return {task: runner for task, runner in self.runners.items() if runner.is_alive}

    @property
    def unknown_containers(self) -> tuple[str, ...]:
        """The tasks whose containers are here without a scheduler's word."""
        return tuple(sorted({*self.unknown, *self._unlisted()}))

    @property
    def unknown_details(self) -> tuple[UnknownContainer, ...]:
        """The same, with what is known of them."""
        seen = dict(self.unknown)
        for task in self._unlisted():
            runner = self.runners.get(task)
            if runner is not None and runner.seen is not None:
                seen[task] = runner.seen
        return tuple(
            UnknownContainer(
                task=task,
                container_id=each.container_id,
                generation=each.generation,
                alive=steps.is_alive(each),
            )
            for task, each in sorted(seen.items())
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Whether stops are held, and whether exclusive tasks can be kept from running twice."""
        return (
            *rules.conditions(self._journal.wanted, self._journal.leaving),
            *self._means.guarding.conditions,
        )

    def _unlisted(self) -> frozenset[TaskId]:
        wanted = self._journal.wanted.items()
        return frozenset(task for task, want in wanted if not want.is_listed)

    # ---------------------------------------------------------------- what runs here

    async def run(self) -> None:
        """Adopt what is here and keep all tasks where they are wanted, until cancelled."""
        async with asyncio.TaskGroup() as background:
            self._background = background
            await self._adopt()
            background.create_task(self._watch(), name="runtime events")
            background.create_task(self._sweep(), name="sweep")

    async def _adopt(self) -> None:
        seen = {each.task: each for each in await self._list()}
        journal = self._journal
        was_rebooted = bool(journal.boot_id) and journal.boot_id != self._boot_id
        if was_rebooted:
            until = self._means.clock.boottime() + boot.PATIENCE_SECONDS
            self._holds.boot = boot.BootOrder(booting(journal), until_seconds=until)
        # First what is here, then what has to be started, the most important first; tasks
        # of the same priority in the order in which they were told.
        tasks = list(dict.fromkeys([*journal.wanted, *journal.leaving]))
        for task in sorted(tasks, key=lambda task: (task not in seen, -self._priority(task))):
            self._take_on(task, seen.pop(task, None), was_rebooted=was_rebooted)
        runtime = self._means.runtime
        self._means.guarding.settle({task: runtime.marks(each) for task, each in seen.items()})
        journal.booted(self._boot_id)
        self.unknown = seen
        self.is_adopted = True
        self._reporter.leave_out(self._unlisted())
        self._reporter.be_whole()
        log.info(
            "adopted", tasks=len(self.runners), unknown=sorted(seen), after_reboot=was_rebooted
        )

    async def _list(self) -> tuple[Seen, ...]:
        while True:
            try:
                return await self._means.runtime.list()
            except RuntimeFailure as error:
                log.warning("cannot list containers; tries again", error=str(error))
                await asyncio.sleep(jittered(RETRY_SECONDS, self._means.randomness))

    def _take_on(self, task: TaskId, seen: Seen | None, *, was_rebooted: bool = False) -> None:
        desired = self._desired(task)
        if desired is None:
            if seen is not None:
                self.unknown[task] = seen  # it is held by the brake, and has no record
            return
        work = self._work(task)
        record = self._journal.records.get(task, Record())
        if was_rebooted and work is not None:
            spec = work.generation.spec
            wish = steps.Wish(desired=desired, restart=spec.restart, is_job=spec.mode.is_job)
            record = steps.rebooted(wish, record, seen, self._now())
        else:
            record = steps.taken_over(record, seen)
        if seen is None:
            record = replace(record, prepared=False)
        if (told := self._told.pop(task, None)) is not None:
            record = steps.reminded(record, told)
        runner = Runner(self._means, task, work=work, desired=desired, record=record, seen=seen)
        self.runners[task] = runner
        runner.protect()
        assert self._background is not None  # tasks are taken on after `run` began
        self._background.create_task(self._keep(runner), name=task)

    async def _keep(self, runner: Runner) -> None:
        want = self._journal.wanted.get(runner.task)
        stack = want.assignment.stack if want is not None else ""
        if cleaning := self._cleaning.get(stack):
            await cleaning.wait()
        await runner.run()
        self._means.guarding.release(runner.task)
        if self.runners.get(runner.task) is runner:
            del self.runners[runner.task]
        if stack and not self._is_used(stack) and stack not in self._cleaning:
            await self._clean(stack)

    def remind(self, told: Iterable[TaskStatus]) -> None:
        """A scheduler says what it was told of the tasks here, before it is told anything more."""
        self._told.clear()
        for each in told:
            if runner := self.runners.get(each.task):
                runner.remind(each)
            else:
                self._told[each.task] = each

    def _hold(self, task: TaskId) -> str:
        return self._holds.reason(task, self._means.clock.boottime())

    def unrecorded_alive(self) -> Iterator[TaskId]:
        """The tasks that run here and that no scheduler lists; as a rule none."""
        for task in self._reporter.foreign:
            runner = self.runners.get(task)
            if runner is not None and runner.is_alive:
                yield task
        for task, seen in self.unknown.items():
            if steps.is_alive(seen):
                yield task

    def recorded_alive(self) -> Iterator[TaskId]:
        """The tasks of this node whose processes live."""
        return (task for task, runner in self.runners.items() if runner.is_alive)

    def status_of(self, task: TaskId) -> TaskStatus | None:
        """How a task stands; None: it is not here."""
        runner = self.runners.get(task)
        return runner.status if runner is not None else None

    def _reconsider_exclusive(self) -> None:
        for runner in self.runners.values():
            if runner.needs_lease:
                runner.reconsider()

    def _guard_changed(self) -> None:
        self._reconsider_exclusive()
        self.on_change()

    def _is_used(self, stack: str) -> bool:
        return any(
            task in self.runners and want.assignment.stack == stack
            for task, want in self._journal.wanted.items()
        )

    async def _clean(self, stack: str) -> None:
        """Remove what only the stack needed; its next task waits until that is done."""
        done = self._cleaning[stack] = asyncio.Event()
        try:
            await self._means.runtime.clean(stack)
        except RuntimeFailure as error:
            # What is left costs little, and goes with the stack's next last task.
            log.warning("cannot clean up after a stack", stack=stack, error=str(error))
        finally:
            del self._cleaning[stack]
            done.set()

    def _publish(self, status: TaskStatus) -> None:
        self._reporter.put(status)
        for waiting in self._holds.boot.waiting_for(status.task):
            if waiting in self.runners:
                self.runners[waiting].reconsider()
        want = self._journal.wanted.get(status.task)
        if status.state is TaskState.RUNNING and want is not None:
            for name in self._volumes(want.assignment):
                self._reporter.made(
                    Volume(
                        stack=want.assignment.stack,
                        name=name,
                        node=NodeId(""),
                        created_ms=self._means.clock.wall_ms(),
                    )
                )

    def _volumes(self, assignment: Assignment) -> list[str]:
        generation = self._journal.spec(assignment)
        if generation is None:
            return []
        external = {
            volume.name
            for volume in self._journal.stack(assignment.stack).volumes
            if volume.external_name
        }
        return [
            mount.source
            for mount in generation.spec.container.mounts
            if mount.kind is MountKind.VOLUME and mount.source and mount.source not in external
        ]

    def _forget(self, task: TaskId) -> None:
        if task not in self.runners:
            self._journal.forget(task)
            self._wanted_hash = None

    # ---------------------------------------------------------------- orders

    async def obey(self, orders: Orders) -> Verdict:
        """Write orders down, then act on them. Raises OSError when they cannot be written.

        Nothing is done for any verdict but OBEY.
        """
        async with self._obeying:
            journal = self._journal
            verdict = rules.judge(orders, seen=journal.seen, floor=journal.floor)
            if verdict is not Verdict.OBEY:
                return verdict
            if not orders.is_complete and self._lacks_spec(orders):
                return Verdict.GAP
            # Held and obeyed are told apart before anything is written.
            settled = self._settle(orders)
            await journal.order(
                orders.order,
                wanted=settled.wanted,
                leaving=settled.leaving,
                specs=orders.specs,
                stacks=orders.stacks,
                files=orders.files,
            )
            self._note_stops(settled)
            self._wanted_hash = None
            self._reporter.leave_out(self._unlisted())
            self._act(orders, settled)
            self.on_change()
            return Verdict.OBEY

    def _lacks_spec(self, orders: Orders) -> bool:
        told = {(each.service, each.generation) for each in orders.specs}
        return any(
            self._journal.spec(task) is None
            and (task.task.rsplit("/", 2)[0], task.generation) not in told
            for task in orders.tasks
        )

    def _settle(self, orders: Orders) -> Settled:
        now = self._means.clock.boottime()
        while self._stopped_lately and self._stopped_lately[0] < now - BRAKE_WINDOW_SECONDS:
            self._stopped_lately.popleft()
        running = set(self.running)
        running |= {task for task, seen in self.unknown.items() if steps.is_alive(seen)}
        return rules.settle(
            orders,
            wanted=self._journal.wanted,
            leaving=self._journal.leaving,
            running=running,
            stopped_lately=len(self._stopped_lately),
        )

    def _note_stops(self, settled: Settled) -> None:
        """Count and tell what is stopped and what is held, once that is written down: orders that
        cannot be are told again, and then would count twice."""
        self._stopped_lately.extend([self._means.clock.boottime()] * settled.stops)
        if settled.left_out:
            log.warning("orders leave out tasks that are here; they run on", tasks=settled.left_out)
        if settled.held:
            self._reporter.tell(
                Event(
                    at_ms=self._means.clock.wall_ms(),
                    kind="node",
                    reason="MassStopHeld",
                    message=f"the stop of {len(settled.held)} running tasks at once is held until"
                    " an operator removes them",
                )
            )
            log.warning("a mass stop is held", tasks=sorted(settled.held))

    def _act(self, orders: Orders, settled: Settled) -> None:
        if not self.is_adopted:
            return  # adoption acts on all that is journalled
        stacks = {stack.name for stack in orders.stacks} | {file.stack for file in orders.files}
        touched = dict.fromkeys(want.assignment.task for want in settled.wanted)
        touched |= dict.fromkeys(leave.tombstone.task for leave in settled.leaving)
        touched |= dict.fromkeys(
            task for task, want in self._journal.wanted.items() if want.assignment.stack in stacks
        )
        for task in touched:
            desired = self._desired(task)
            if runner := self.runners.get(task):
                if desired is not None:
                    runner.order(self._work(task), desired)
            else:
                self._take_on(task, self.unknown.pop(task, None))

    def _desired(self, task: TaskId) -> Desired | None:
        leave = self._journal.leaving.get(task)
        if leave is not None and not leave.is_held:
            return Desired.REMOVED
        want = self._journal.wanted.get(task)
        return want.desired if want is not None else None

    def _work(self, task: TaskId) -> Work | None:
        want = self._journal.wanted.get(task)
        generation = self._journal.spec(want.assignment) if want is not None else None
        if want is None or generation is None:
            return None
        stack = self._journal.stack(want.assignment.stack)
        return Work(
            assignment=want.assignment,
            generation=generation,
            networks=stack.networks,
            volumes=stack.volumes,
            files=self._journal.files(stack.name, generation),
            devices=self._devices(),
        )

    def _priority(self, task: TaskId) -> int:
        work = self._work(task)
        return work.generation.spec.priority if work is not None else 0

    def _now(self) -> steps.Now:
        clock = self._means.clock
        return steps.Now(boot_ms=int(clock.boottime() * 1000), wall_ms=clock.wall_ms())

    # ---------------------------------------------------------------- events

    async def _watch(self) -> None:
        while True:
            try:
                async for event in self._means.runtime.events():
                    if event.task is None:
                        await self._look_at_all()
                    elif runner := self.runners.get(event.task):
                        runner.notice(event.action)
                    elif event.task in self.unknown or event.action == "start":
                        await self._look_at_all()
            except RuntimeFailure as error:
                log.warning("lost the runtime's events; listens again", error=str(error))
            await asyncio.sleep(jittered(RETRY_SECONDS, self._means.randomness))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(jittered(SWEEP_SECONDS, self._means.randomness))
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        """Wake the runners whose containers are not as they were last seen."""
        try:
            seen = {each.task: each for each in await self._means.runtime.list()}
        except Unavailable:
            return  # the sweep and the next event come
        for task, runner in self.runners.items():
            if _gist(seen.pop(task, None)) != _gist(runner.seen):
                runner.notice()
        gone = self._journal.leaving
        unknown = {task: each for task, each in seen.items() if task not in gone}
        if unknown.keys() != self.unknown.keys():
            self.unknown = unknown
            self.on_change()


def _gist(seen: Seen | None) -> object:
    return (seen.container_id, seen.phase, seen.health) if seen is not None else None
