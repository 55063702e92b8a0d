"""What the leader has been told and has worked out, and never stores.

Agents tell it again at the start of every session, so a new leader knows the cluster
within one reconnect. Until a node has reported in this epoch, its tasks are *unknown*,
and unknown is not stopped: no decision that ends, replaces or counts tasks may rest on
the absence of a status here. `dispatch` is the one writer of statuses and liveness,
`controller` the one writer of waiting slots, of the brake, of moves that are being written
or have begun, and of what rollouts have seen running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeport.lifecycle import TERMINAL, TaskState, Writer, is_legal
from homeport.model import (
    Event,
    Health,
    NodeId,
    NodeState,
    NodeStatus,
    ServiceId,
    TaskId,
    TaskStatus,
)
from scheduler.cluster.view import View

EVENTS_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why not on this node: which rule, what it needed and what there was."""

    node: NodeId
    rule: str
    needed: str = ""
    had: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A slot that has no live task."""

    service: ServiceId
    slot: int
    generation: int
    since_ms: int  # wall clock
    reason: str = ""  # a sentence
    refusals: Sequence[Refusal] = ()
    not_before: float = 0.0  # boot time: a back-off between replacements


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """What is known of a node's agent in this epoch."""

    state: NodeState = NodeState.UNKNOWN
    unheard: bool = False  # nothing was heard of it in this epoch
    reported: bool = False  # a complete report came in during this epoch
    session: str = ""  # empty: no session is open
    boot_id: str = ""
    last_seen: float = 0.0  # boot time of the scheduler at the last sign of life
    last_seen_ms: int = 0  # wall clock, for people
    since: float = 0.0  # boot time at which it got this state
    restarting: bool = False  # it said goodbye and will be back: the lease is kept
    other_until: float = 0.0  # boot time: a machine of another boot may live on its lease
    unfenced: str = ""  # why it gets no lease and no exclusive task, by what is seen from here
    leaving: bool = False  # its machine said that it goes down: no silence to wonder about
    status: NodeStatus = field(default_factory=NodeStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Most of the cluster fell silent at once: what is there to move stays where it is."""

    since: float  # boot time
    since_ms: int  # wall clock, for people
    silent: tuple[NodeId, ...]
    counted: tuple[NodeId, ...]  # among them were the silent ones counted
    cause: str  # a sentence


UNSEEN = Liveness()
"""A node of which nothing has been heard."""


class Dirt:
    """Which services and nodes have to be looked at again. Order of marking is kept."""

    def __init__(self) -> None:
        """Clean."""
        self.services: dict[ServiceId, None] = {}
        self.progressed: dict[ServiceId, None] = {}  # live tasks came further, and are still live
        self.nodes: dict[NodeId, None] = {}
        self.capacity = False  # something was freed or came: waiting slots may fit now

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.services or self.progressed or self.nodes or self.capacity)

    def service(self, service: ServiceId) -> None:
        """Look at this service again."""
        self.services[service] = None

    def progress(self, service: ServiceId) -> None:
        """A live task of it has come further: look at it again, unless nothing rests on that."""
        self.progressed[service] = None

    def node(self, node: NodeId) -> None:
        """Look at this node again."""
        self.nodes[node] = None

    def take_progress(self) -> tuple[ServiceId, ...]:
        """The services whose live tasks came further; these marks are then gone."""
        taken, self.progressed = tuple(self.progressed), {}
        return taken

    def take(self) -> tuple[tuple[ServiceId, ...], tuple[NodeId, ...], bool]:
        """All other marks, which are then gone."""
        taken = tuple(self.services), tuple(self.nodes), self.capacity
        self.services, self.nodes, self.capacity = {}, {}, False
        return taken


@dataclass(frozen=True, slots=True)
class Doubt:
    """An agent has journalled what this store, which led once, knows nothing of.

    The store was restored behind our back. Nothing is decided, ordered or changed until an
    operator begins the next incarnation, in which the store is right by their word.
    """

    incarnation: int  # the highest that was shown; one above it ends the doubt
    since: float  # boot time: from then on no node was given a lease
    why: str  # a sentence that says what to do


class Observed:
    """The observed half of the cluster."""

    def __init__(self) -> None:
        """Nothing has been heard."""
        self.statuses: dict[TaskId, TaskStatus] = {}
        self.liveness: dict[NodeId, Liveness] = {}
        self.waiting: dict[ServiceId, dict[int, Waiting]] = {}
        self.events: list[Event] = []
        # Of tasks under a rollout: (attempt, boot time) at which this leader first saw it
        # running, and the boot time at which it had run or been healthy for long enough.
        self.running: dict[TaskId, tuple[int, float]] = {}
        self.proven: dict[TaskId, float] = {}
        # Tasks from which a move is being written, or one whose fate is not known: node ->
        # task -> key of the successor's record. Their node's lease is not renewed meanwhile.
        self.revoking: dict[NodeId, dict[TaskId, str]] = {}
        # Tasks that are to be moved (`Task.move`) and whose turn has come.
        self.begun: dict[TaskId, None] = {}
        self.brake: Brake | None = None
        self.doubt: Doubt | None = None
        self.sequence = 0  # of observed changes, for watches
        self.listeners: list[Callable[[str], None]] = []  # told the key of what changed
        self._event_sequence = 0

    def copy(self) -> Observed:
        """The same, to try things on: without events, and nobody listens to it."""
        other = Observed()
        other.statuses = dict(self.statuses)
        other.liveness = dict(self.liveness)
        other.waiting = dict(self.waiting)
        other.running = dict(self.running)
        other.proven = dict(self.proven)
        other.brake = self.brake
        return other

    def status(self, task: TaskId) -> TaskStatus | None:
        """What was last seen of a task; None: unknown, or nothing yet."""
        return self.statuses.get(task)

    def node(self, node: NodeId) -> Liveness:
        """What is known of a node's agent."""
        return self.liveness.get(node, UNSEEN)

    def knows(self, node: NodeId) -> bool:
        """Whether what is observed of this node's tasks may be relied upon."""
        return self.node(node).reported

    def put_status(self, status: TaskStatus) -> bool:
        """Take in a report unless it is older than what is known. Whether anything changed."""
        old = self.statuses.get(status.task)
        if old is not None:
            if old == status:
                return False
            if not is_legal(
                Writer.AGENT,
                old.state,
                status.state,
                old_attempt=old.attempt,
                new_attempt=status.attempt,
            ):
                return False
        self.statuses[status.task] = status
        self._changed(f"tasks/{status.task}")
        return True

    def put_proofs(
        self, running: Mapping[TaskId, int], proven: Iterable[TaskId], now: float
    ) -> None:
        """Keep that these tasks were first seen running now, in this attempt; those proved it."""
        for task, attempt in running.items():
            self.running[task] = (attempt, now)
        for task in proven:
            self.proven[task] = now

    def forget(self, task: TaskId) -> None:
        """The task's record is gone."""
        self.running.pop(task, None)
        self.proven.pop(task, None)
        if self.statuses.pop(task, None) is not None:
            self._changed(f"tasks/{task}")

    def put_liveness(self, node: NodeId, liveness: Liveness) -> None:
        """Replace what is known of a node's agent."""
        self.liveness[node] = liveness
        self._changed(f"nodes/{node}")

    def touch(self, node: NodeId, liveness: Liveness) -> None:
        """Replace what is known of a node's agent where nothing changed that anybody watches."""
        self.liveness[node] = liveness

    def put_node_status(self, node: NodeId, status: NodeStatus) -> None:
        """Take in what a node says of itself; only changed conditions are news to watchers."""
        old = self.node(node)
        new = replace(old, status=status)
        if (old.status.conditions, old.status.unknown_containers) == (
            status.conditions,
            status.unknown_containers,
        ):
            self.touch(node, new)
        else:
            self.put_liveness(node, new)

    def put_waiting(self, service: ServiceId, slots: dict[int, Waiting]) -> None:
        """Replace the waiting slots of a service."""
        old = self.waiting.get(service, {})
        if slots == old:
            return
        if slots:
            self.waiting[service] = slots
        else:
            self.waiting.pop(service, None)
        for slot in old | slots:
            self._changed(f"tasks/{service}/{slot}/0")

    def add_event(self, event: Event) -> Event:
        """Number and keep an event; the oldest go."""
        self._event_sequence += 1
        numbered = Event(
            sequence=self._event_sequence,
            at_ms=event.at_ms,
            kind=event.kind,
            object=event.object,
            reason=event.reason,
            message=event.message,
            node=event.node,
        )
        self.events.append(numbered)
        if len(self.events) > EVENTS_KEPT + EVENTS_KEPT // 10:
            del self.events[: len(self.events) - EVENTS_KEPT]
        self._changed(f"events/{numbered.sequence}")
        return numbered

    def event(self, sequence: int) -> Event | None:
        """The event of this number; None when it is forgotten or yet to come."""
        if not self.events:
            return None
        place = sequence - self.events[0].sequence  # numbers have no gaps
        return self.events[place] if 0 <= place < len(self.events) else None

    def _changed(self, key: str) -> None:
        self.sequence += 1
        for listener in self.listeners:
            listener(key)


def is_live(status: TaskStatus | None) -> bool:
    """Whether the task runs or may still come to run; an unknown one may."""
    return status is None or status.state not in TERMINAL


def is_ready(status: TaskStatus | None) -> bool:
    """Whether the task runs and is not known to be unwell."""
    return (
        status is not None
        and status.state is TaskState.RUNNING
        and status.health in (Health.NONE, Health.HEALTHY)
    )


def doubt_of(stored: View, observed: Observed) -> Doubt | None:
    """What keeps this leader from acting; None once an operator has begun a new incarnation."""
    doubt, cluster = observed.doubt, stored.cluster
    if doubt is None or (cluster is not None and cluster.incarnation > doubt.incarnation):
        return None
    return doubt
