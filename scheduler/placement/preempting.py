"""Whose end would make room for an ask that found no node: the least harmful set of tasks.

All victims are on the node that the ask then gets. Of the sets that would do, the one is taken
whose most important task is the least important; among these the one with the fewest tasks, then
the one whose tasks have been there for the shortest time in sum; ties go to the lowest node name,
then to the lowest task ids. Whether a set will do is asked of the rules themselves, on the node
without these tasks. A newcomer's mistake: making room that comes anyway. What is ending already
counts as gone before anybody is chosen, and may be all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from homeport.model import Grant, NodeId, ServiceId, TaskId
from scheduler.placement import filters, granting, grouping
from scheduler.placement.asks import Ask
from scheduler.placement.candidates import Candidate, Held
from scheduler.placement.fleet import Fleet

MENDABLE = frozenset(
    {"neighbour", "ports", "memory", "cpu", "pids", "disk", "generic", "device-free"}
)
"""Rules that say yes once other services' tasks are gone. They are asked last, so a node that one
of them refuses first has nothing else against the ask."""
_RULES = tuple(
    rule for name, rule in filters.ALL.items() if name in MENDABLE and name != "neighbour"
)
NODES_MAX = 500
"""Nodes with a set that would do, after which the best so far is taken."""
TRIES_MAX, TRIES_TOTAL = 2_000, 20_000
"""Sets that are tried on one node, and on all of them. Beyond, a set is taken of which nobody can
be spared, with the least important tasks in it; others may be smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A task that takes room on a node."""

    task: TaskId
    service: ServiceId
    priority: int = 0
    created_ms: int = 0
    may_go: bool = True  # False: it is not to be ended for anybody
    is_ending: bool = False  # its room comes anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Where room can be made, and who has to go."""

    ask: Ask
    node: NodeId
    victims: tuple[Occupant, ...] = ()  # by id; empty: what is ending already is enough
    grants: tuple[Grant, ...] = ()  # the devices that the task would get

    @property
    def harm(self) -> tuple[bool, int, int, int]:
        """Less is better."""
        return harm_of(self.victims)


@dataclass(slots=True)
class Effort:
    """What the answers have cost so far."""

    tried: int = 0  # sets


Spare = Callable[[ServiceId], int]
"""How many more tasks of a service may be ended."""
Occupants = Callable[[NodeId], Sequence[Occupant]]


def harm_of(victims: Sequence[Occupant]) -> tuple[bool, int, int, int]:
    """What ending these costs: the highest priority among them, how many, and their age."""
    if not victims:
        return (False, 0, 0, 0)
    created = sum(each.created_ms for each in victims)
    return (True, max(each.priority for each in victims), len(victims), -created)


def decide(
    fleet: Fleet,
    ask: Ask,
    occupants: Occupants,
    spare: Spare,
    nodes: Iterable[Candidate] | None = None,
    effort: Effort | None = None,
) -> Preemption | None:
    """The least harmful way to make room for this ask; None: there is none.

    `nodes`: those in question, in the order of names; None: all of them. To `effort` is added
    what it took.
    """
    effort = effort or Effort()
    best: Preemption | None = None
    found, tries = 0, TRIES_TOTAL
    for node in fleet.by_name() if nodes is None else nodes:
        if not _is_mendable(fleet, ask, node):
            continue
        trial = _Trial(fleet, ask, node, occupants(node.id), min(TRIES_MAX, tries))
        here = _on_node(trial, spare, best)
        tries -= trial.tried
        effort.tried += trial.tried
        if here is None:
            continue
        if best is None or here.harm < best.harm:
            best = here
        found += 1
        if not best.victims or found == NODES_MAX:
            break
    return best


def _is_mendable(fleet: Fleet, ask: Ask, node: Candidate) -> bool:
    """Whether nothing speaks against the node but what other tasks take there."""
    refusal = filters.first_refusal(fleet, ask, node)
    if refusal is None:
        return True
    # That somebody is not there is not mended by ending others.
    is_near = refusal.rule == "neighbour" and refusal.needed.startswith("near ")
    return refusal.rule in MENDABLE and not is_near


def _on_node(trial: _Trial, spare: Spare, best: Preemption | None) -> Preemption | None:
    """The least harmful set on this node; None: there is none, or none better than `best`."""
    if trial.fits(()):
        return trial.preemption(())
    spared: dict[ServiceId, int] = {}
    goers: list[Occupant] = []
    for each in trial.stays:
        if not each.may_go or each.service == trial.ask.service:
            continue
        if each.priority >= trial.ask.priority:
            continue
        if each.service not in spared:
            spared[each.service] = spare(each.service)
        if spared[each.service] > 0:
            goers.append(each)
    for level in sorted({each.priority for each in goers}):
        most = len(goers)
        if best is not None:
            if level > best.harm[1]:
                return None
            if level == best.harm[1]:
                most = best.harm[2]
        pool = [each for each in goers if each.priority <= level]
        if victims := _Search(trial, pool, spared, most).victims():
            return trial.preemption(victims)
    return None


class _Trial:
    """One node without the tasks that end there, on which sets of victims are tried."""

    def __init__(
        self, fleet: Fleet, ask: Ask, node: Candidate, there: Sequence[Occupant], tries: int
    ) -> None:
        """`tries`: how many sets may be looked at."""
        self.fleet = fleet
        self.ask = ask
        self.room = node.copy()
        self.tries = tries
        self.tried = 0
        there = [
            each
            for each in there
            if (entry := fleet.held.get(each.task)) is not None and entry.node == node.id
        ]
        self.stays = [each for each in there if not each.is_ending]
        self._ending = [each.task for each in there if each.is_ending]
        self._concerns_groups = grouping.concerns(fleet, ask)
        self._take(self._ending, -1)

    @property
    def is_over(self) -> bool:
        """Whether enough sets were looked at."""
        return self.tried >= self.tries

    def fits(self, victims: Sequence[Occupant]) -> bool:
        """Whether the ask could be placed here if these had gone as well."""
        gone = [each.task for each in victims]
        self._take(gone, -1)
        refused = any(rule(self.fleet, self.ask, self.room) is not None for rule in _RULES)
        self._take(gone, 1)
        return not refused and (not self._concerns_groups or self._has_neighbours(gone))

    def preemption(self, victims: Sequence[Occupant]) -> Preemption:
        """The answer, for victims with whom gone it fits."""
        grants: tuple[Grant, ...] = ()
        if self.ask.needs.devices:
            gone = [each.task for each in victims]
            self._take(gone, -1)
            found = granting.grants(self.ask.needs, self.room, self.fleet.census.mix())
            self._take(gone, 1)
            assert found is not None, "no rule refused it"
            grants = found
        ordered = tuple(sorted(victims, key=lambda each: each.task))
        return Preemption(ask=self.ask, node=self.room.id, victims=ordered, grants=grants)

    def _take(self, tasks: Iterable[TaskId], times: int) -> None:
        for task in tasks:
            self.room.take(self.fleet.held[task].needs, times)
            self.room.grant(self.fleet.grants.get(task, ()), times)

    def _has_neighbours(self, gone: Sequence[TaskId]) -> bool:
        """Who is near whom is counted by the fleet, over many nodes: it is tried there."""
        tasks = [*self._ending, *gone]
        kept = [(each, self.fleet.held[each], self.fleet.grants.get(each, ())) for each in tasks]
        for each in tasks:
            self.fleet.task_removed(each)
        fits = filters.neighbour(self.fleet, self.ask, self.room) is None
        for task, entry, grants in kept:
            self.fleet.task_added(task, entry, grants)
        return fits


@dataclass(frozen=True, slots=True)
class _Kind:
    """Tasks that free the same: of so many of them, always the first are taken."""

    service: ServiceId
    tasks: tuple[Occupant, ...]  # the youngest first
    frees: tuple[int, ...]  # of each thing that is lacking


class _Search:
    """The smallest set of a pool that will do."""

    def __init__(
        self,
        trial: _Trial,
        pool: Sequence[Occupant],
        spared: Mapping[ServiceId, int],
        most: int,
    ) -> None:
        self._trial = trial
        self._pool = pool
        self._spared = dict(spared)
        self._most = min(most, len(pool))
        self._lack = _lack(trial)
        self._kinds = list(self._grouped())
        # The most that any one task from here on frees of each thing.
        self._frees_most: list[tuple[int, ...]] = [(0,) * len(self._lack)]
        for kind in reversed(self._kinds):
            after = self._frees_most[-1]
            self._frees_most.append(tuple(map(max, kind.frees, after)))
        self._frees_most.reverse()

    def victims(self) -> Sequence[Occupant]:
        """The least harmful of the smallest sets; empty: none will do."""
        if not self._is_hopeful():
            return ()
        for count in range(1, self._most + 1):
            found = [each for each in self._sets(0, count, self._lack) if self._trial.fits(each)]
            if found:
                return min(found, key=lambda each: (*harm_of(each), _ids(each)))
            if self._trial.is_over:
                return self._greedy()
        return ()

    def _grouped(self) -> Iterator[_Kind]:
        fleet = self._trial.fleet

        def kind(each: Occupant) -> tuple[str, str, str]:
            grants = fleet.grants.get(each.task, ())
            return (each.service, fleet.held[each.task].needs.text, repr(grants))

        for _, same in groupby(sorted(self._pool, key=kind), key=kind):
            tasks = tuple(sorted(same, key=lambda each: (-each.created_ms, each.task)))
            yield _Kind(tasks[0].service, tasks, _frees(self._trial, fleet.held[tasks[0].task]))

    def _is_hopeful(self) -> bool:
        """Whether all of them together free what is lacking."""
        frees = [0] * len(self._lack)
        for kind in self._kinds:
            count = min(len(kind.tasks), self._spared[kind.service])
            frees = [sum_ + count * each for sum_, each in zip(frees, kind.frees, strict=True)]
        return all(have >= need for have, need in zip(frees, self._lack, strict=True))

    def _sets(
        self, first: int, count: int, lack: tuple[int, ...]
    ) -> Iterator[tuple[Occupant, ...]]:
        """All sets of so many tasks, of the kinds from `first` on, that free what is lacking."""
        if self._trial.is_over:
            return
        self._trial.tried += 1
        most = self._frees_most[first]
        if any(need > count * each for need, each in zip(lack, most, strict=True)):
            return
        if not count:
            yield ()
            return
        if first == len(self._kinds):
            return
        kind = self._kinds[first]
        for taken in range(min(count, len(kind.tasks), self._spared[kind.service]) + 1):
            left = tuple(need - taken * each for need, each in zip(lack, kind.frees, strict=True))
            self._spared[kind.service] -= taken
            for others in self._sets(first + 1, count - taken, left):
                yield (*kind.tasks[:taken], *others)
            self._spared[kind.service] += taken

    def _greedy(self) -> Sequence[Occupant]:
        """All that may go, less those that can stay: the most important are asked first."""
        chosen: list[Occupant] = []
        left = dict(self._spared)
        for each in sorted(self._pool, key=_importance):
            if left[each.service] > 0:
                left[each.service] -= 1
                chosen.append(each)
        if not self._trial.fits(chosen):
            return ()
        for each in sorted(chosen, key=_importance, reverse=True):
            fewer = [other for other in chosen if other is not each]
            if self._trial.fits(fewer):
                chosen = fewer
        return chosen if len(chosen) <= self._most else ()


def _importance(each: Occupant) -> tuple[int, int, TaskId]:
    return (each.priority, -each.created_ms, each.task)


def _ids(victims: Sequence[Occupant]) -> list[TaskId]:
    return sorted(each.task for each in victims)


def _lack(trial: _Trial) -> tuple[int, ...]:
    """How much is missing of what can be counted, in the order of `_frees`; 0: nothing."""
    needs, room = trial.ask.needs, trial.room
    missing = [
        needs.cpu_millis and needs.cpu_millis + room.cpu_reserved - room.cpu_capacity,
        needs.memory_bytes and needs.memory_bytes + room.memory_reserved - room.memory_capacity,
        room.pids_capacity and needs.pids and needs.pids + room.pids_reserved - room.pids_capacity,
        room.disk_capacity
        and needs.disk_bytes
        and needs.disk_bytes + room.disk_reserved - room.disk_capacity,
        sum(
            count
            for wanted in needs.ports
            for port, count in room.ports.items()
            if wanted.conflicts(port)
        ),
    ]
    missing += [
        count + room.generic_reserved.get(kind, 0) - room.generic_capacity.get(kind, 0)
        for kind, count in needs.generic
    ]
    return tuple(max(each, 0) for each in missing)


def _frees(trial: _Trial, held: Held) -> tuple[int, ...]:
    """How much a task of this kind frees of what `_lack` counts."""
    wanted, needs = trial.ask.needs, held.needs
    generic = dict(needs.generic)
    return (
        needs.cpu_millis,
        needs.memory_bytes,
        needs.pids,
        needs.disk_bytes,
        sum(ours.conflicts(port) for ours in wanted.ports for port in needs.ports),
        *(generic.get(kind, 0) for kind, _ in wanted.generic),
    )
