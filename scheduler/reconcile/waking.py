"""Whom a change wakes: which services are to be looked at because of it.

A record that was written, a node that is seen differently, a report, room that came: each puts on
the agenda the services to which it may mean something, and no others, so that a look costs what
changed. What became of them is not asked here; that is what the look is for. A newcomer's
mistake: leaving somebody out because the change cannot matter to them now. Nothing wakes them
later, unless they had a time set; who is woken for nothing costs a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from homeport.model import NodeId, Service, ServiceId, Stack, Task, TaskId
from scheduler.cluster import keys
from scheduler.cluster.view import View
from scheduler.placement.fleet import Fleet
from scheduler.reconcile.agenda import Agenda
from scheduler.reconcile.scheduling import WaitingRoom

PREEMPT_SECONDS = 5.0
"""How soon after a change anywhere those are looked at that wait and may have others ended: it may
have been what kept these. Looking for whom to end takes long, so not after each change."""


class Waking:
    """Puts services on the agenda, for one term of leadership. Owned by the controller."""

    def __init__(self, agenda: Agenda, room: WaitingRoom) -> None:
        """`room`: those that wait for a node."""
        self._agenda = agenda
        self._room = room
        self._globals: dict[ServiceId, None] = {}
        # At their last look they needed nothing, and no progress of their live tasks changes that.
        self._calm: dict[ServiceId, None] = {}
        self._braked: dict[ServiceId, None] = {}  # they wait for the brake to change
        self._roomier: dict[NodeId, None] = {}
        self._joined: dict[NodeId, None] = {}  # nodes that got tasks: others may wait for those

    def begin(self, view: View) -> None:
        """A new leader looks at everything once."""
        for service in view.services():
            if service.mode.is_global:
                self._globals[service.id] = None
            self._agenda.add(service.id)

    # ------------------------------------------------------------ what was written

    def task_changed(
        self, fleet: Fleet, task: TaskId, old: keys.Stored | None, new: keys.Stored | None
    ) -> None:
        """A task's record was written. `fleet` has taken that in."""
        self._agenda.add(ServiceId(task.rsplit("/", 2)[0]))
        if isinstance(old, Task) and task not in fleet.held:
            self._roomier[old.node] = None
        if old is None and isinstance(new, Task):
            self._joined[new.node] = None

    def changed(
        self, view: View, key: str, old: keys.Stored | None, new: keys.Stored | None
    ) -> None:
        """Any other record was written; `view` has it so already."""
        kind, _, rest = key.partition("/")
        match kind:
            case "services":
                self._agenda.add(ServiceId(rest))
                if isinstance(new, Service) and new.mode.is_global:
                    self._globals[ServiceId(rest)] = None
                else:
                    self._globals.pop(ServiceId(rest), None)
            case "rollouts":
                self._agenda.add(ServiceId(rest))
            case "specs":
                self._agenda.add(ServiceId(rest.rpartition("/")[0]))
            case "nodes":
                self.node_changed(view, NodeId(rest))
            case "volumes" if new is None:
                self._wake(self._room.everybody())
            case "stacks" if isinstance(old, Stack) and old.draft:
                # They were left alone until its draft was written out.
                self._wake(each.id for each in view.services_of(rest))
            case _:
                pass

    # ------------------------------------------------------------ what is seen

    def node_changed(self, view: View, node: NodeId) -> None:
        """Its record, readiness or liveness changed: who is there, and who may come."""
        self._wake(task.service for task in view.tasks_of_node(node))
        self._wake((*self._globals, *self._room.preempting))
        self._roomier[node] = None

    def reported(
        self, services: Sequence[ServiceId], progressed: Sequence[ServiceId], now: float
    ) -> None:
        """Tasks of these services have ended, or are news; live ones of those came further."""
        self._wake(services)
        if services or progressed:
            self.look_for_victims(now)  # of a minimum, only what runs counts
        for service in progressed:
            if service in self._calm:
                self._agenda.stir(service)
            else:
                self._agenda.add(service)

    def brake_changed(self) -> None:
        """The brake is on, off, or on for other nodes."""
        self._wake((*self._braked, *self._room.preempting))
        self._braked.clear()

    # ------------------------------------------------------------ what looks came to

    def looked(self, service: ServiceId, *, is_calm: bool) -> None:
        """It was looked at. Calm: progress of its live tasks is no reason to look again."""
        if is_calm:
            self._calm[service] = None
        else:
            self._calm.pop(service, None)

    def held_by_brake(self, services: Iterable[ServiceId]) -> None:
        """They wait for the brake to change."""
        self._braked |= dict.fromkeys(services)

    def room_came(self, nodes: Iterable[NodeId]) -> None:
        """There may be room on these nodes that was not there."""
        self._roomier |= dict.fromkeys(nodes)

    # ------------------------------------------------------------ who waits

    def look_for_victims(self, now: float) -> None:
        """Something changed, by which somebody may be ended now for those that may preempt."""
        for service in self._room.preempting:
            self._agenda.at(service, now + PREEMPT_SECONDS)

    def wake_who_fits(self, fleet: Fleet) -> None:
        """Look at those that waited for the room that came since this was last asked."""
        joined, self._joined = self._joined, {}
        if joined and self._room.waits_for_others:
            self._roomier |= joined
        roomier, self._roomier = self._roomier, {}
        for node in roomier:
            self._wake(self._room.woken_by(fleet, node))

    def _wake(self, services: Iterable[ServiceId]) -> None:
        for service in services:
            self._agenda.add(service)
