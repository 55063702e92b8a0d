"""Which tasks would be better placed elsewhere, by how much, and at what price.

Each task that may move is taken off a copy of the fleet, and placement is asked where it would
go now. The best gain for its price is taken first, on the copy, and the rest is judged again. A
move must gain more than a threshold and make the cluster more even (of tasks that are packed:
join more of their like), or mend a rule that its node breaks by now. Each of these can only get
better, move by move, so that nothing is ever moved back, and a plan after a plan is empty.

The cost is bounded: of the tasks on a node that are alike one is asked about, from the fullest
nodes on, and of so many in one round. A newcomer's mistake: writing from here. `relocating`
carries moves out, when `turns` lets it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from homeport.model import Move, NodeId, ServiceId, Task, TaskId, task_id
from scheduler.cluster import keys
from scheduler.cluster.changes import Change, Put
from scheduler.cluster.observed import Refusal
from scheduler.cluster.snapshot import Snapshot
from scheduler.placement import engine, filters, scores, tallies, words
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.evenness import Evenness
from scheduler.placement.fleet import Fleet
from scheduler.placement.lifting import lifted
from scheduler.placement.points import TASK_COST
from scheduler.reconcile.movable import Movable, Wish, only_on
from scheduler.reconcile.prices import Price, Prices
from scheduler.reconcile.slots import name

MOVES_MAX = 60
"""In one plan: what is left over, the next one finds."""
CANDIDATES_MAX = 256
"""Tasks that are judged in one round: the fullest nodes' come first."""
BROKEN = 1 << 61
"""The gain of mending a rule: more than all points together."""
THRESHOLD_PART = 8
"""A move gains at least an eighth of the nodes' mean load, for each restart that it costs, and
never less than the room of one task."""
STAYS_FOR = frozenset({"ready", "availability", "condition", "excluded", "taint"})
"""Rules that keep new tasks away and say nothing against those that are there."""

_Place = tuple[ServiceId, int]

_BETTER = {
    "preferences": "is more like what its spec prefers",
    "avoided": "has no taint that it had better avoid",
    "groups": "suits its neighbours better",
    "fragmentation": "would have less GPU stranded",
    "packed": "is fuller, and it is to be packed",
    "same-service": "has fewer tasks of its service",
    "room": "has more room",
    "tasks": "has fewer tasks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """One move, and why."""

    task: Task
    n: int  # of its successor
    node: NodeId  # where to
    gain: int  # in points of placement
    price: Price
    reason: str  # a sentence


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to move, the best for its price first."""

    moves: list[Proposed] = field(default_factory=list)
    unevenness_before: int = 0
    unevenness_after: int = 0
    is_cut: bool = False  # there may be more than was asked for
    images_unknown: tuple[str, ...] = ()  # to be carried, and nobody knows how large they are


def plan(
    snapshot: Snapshot,
    fleet: Fleet,
    wish: Wish,
    *,
    image_bytes: Mapping[str, int] | None = None,
    marked: Iterable[Task] = (),
) -> Plan:
    """The moves that pay. `fleet` is a copy, and is the caller's no more.

    `image_bytes`: the sizes of images that are known. `marked`: tasks that are on their way
    already; they count as arrived.
    """
    search = _Search(snapshot, fleet, wish, image_bytes or {}, marked)
    before = search.evenness.unevenness
    while search.round():
        pass
    moves = sorted(search.moves.values(), key=lambda each: -each.gain // each.price.weight_millis)
    unknown = {
        search.image(each) for each in moves if each.price.carries_image and not each.price.is_known
    }
    return Plan(
        moves=moves,
        unevenness_before=before,
        unevenness_after=search.evenness.unevenness,
        is_cut=search.is_cut,
        images_unknown=tuple(sorted(unknown)),
    )


def marks(snapshot: Snapshot, moves: Iterable[Proposed], wish: Wish) -> list[Change]:
    """Have these moves made: each is one write, to the record of the task that moves."""
    changes: list[Change] = []
    for each in moves:
        move = Move(node=each.node, n=each.n, cause=wish.by, reason=each.reason)
        version = snapshot.stored.version(keys.task(each.task.id))
        reason = f"it is to move to node {name(snapshot, each.node)}: {each.reason}"
        changes.append(Put(replace(each.task, move=move), version, reason))
    return changes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """What the best move of one task would come to, as the fleet was when it was judged."""

    task: Task
    ask: Ask
    source: NodeId
    target: NodeId
    gain: int
    price: Price
    reason: str
    loads: Mapping[NodeId, int]  # of both nodes afterwards
    moment: int  # how many moves had been made by then

    @property
    def rank(self) -> tuple[bool, int, ServiceId, int]:
        """The lowest is made first."""
        return (*_rank(self.gain, self.price), self.task.service, self.task.slot)

    def is_about_as_good_as(self, other: _Option) -> bool:
        """Whether it need not be compared any closer: of many equal tasks one is taken at once."""
        later, worth = _rank(self.gain, self.price)
        other_later, other_worth = _rank(other.gain, other.price)
        return later <= other_later and worth * 8 <= other_worth * 7  # both are below 0


class _Search:
    """Moves made on a copy of the fleet, one after the other."""

    def __init__(
        self,
        snapshot: Snapshot,
        fleet: Fleet,
        wish: Wish,
        image_bytes: Mapping[str, int],
        marked: Iterable[Task],
    ) -> None:
        self.moves: dict[_Place, Proposed] = {}
        self.is_cut = False
        self._snapshot = snapshot
        self._fleet = fleet
        self._most = min(wish.moves_max, MOVES_MAX)
        self._movable = Movable(snapshot, fleet, wish)
        _arrive(fleet, marked, Movable(snapshot, fleet, replace(wish, stack="")))
        self.evenness = Evenness(fleet)
        self._prices = Prices(snapshot, image_bytes)
        self._nears = _nears(fleet)
        self._at: dict[_Place, tuple[NodeId, TaskId]] = {}  # of those that were moved: where now
        self._came: dict[NodeId, dict[_Place, Task]] = {}
        self._moment = 0

    def image(self, move: Proposed) -> str:
        """What has to be carried for a move."""
        return self._movable.spec(move.task.service).container.image

    # ------------------------------------------------------------ the search

    def round(self) -> bool:
        """Judge all candidates, and make the moves that pay; whether there was one."""
        begin = self._moment
        heap: list[tuple[tuple[object, ...], int, _Option]] = []
        for number, task in enumerate(self._candidates()):
            if (option := self._judge(task)) is not None:
                heapq.heappush(heap, (option.rank, number, option))
        number = CANDIDATES_MAX
        while heap:
            _, _, option = heapq.heappop(heap)
            number += 1
            if option.moment != self._moment:
                # Others have moved since: it may be worth less, and must not be taken for more.
                again = self._judge(option.task)
                if again is None:
                    continue
                if heap and not again.is_about_as_good_as(heap[0][2]):
                    heapq.heappush(heap, (again.rank, number, again))
                    continue
                option = again
            place = (option.task.service, option.task.slot)
            if place not in self.moves and len(self.moves) >= self._most:
                self.is_cut = True
                return False
            self._make(option)
            alike = next(self._alike(option), None)
            if alike is not None and (more := self._judge(alike)) is not None:
                heapq.heappush(heap, (more.rank, number, more))
        return self._moment > begin

    def _candidates(self) -> Iterator[Task]:
        """One task of each kind on each node, those of the fullest nodes first."""
        count = 0
        for node in self.evenness.fullest_first():
            seen: dict[tuple[ServiceId, str], None] = {}
            for task in self._on(node):
                kind = self._kind(task)
                if kind not in seen:
                    seen[kind] = None
                    yield task
                    count += 1
                    if count == CANDIDATES_MAX:
                        return

    def _alike(self, option: _Option) -> Iterator[Task]:
        """The tasks that are still where this one was, and are like it."""
        kind = (option.task.service, option.ask.needs.text)
        return (task for task in self._on(option.source) if self._kind(task) == kind)

    def _on(self, node: NodeId) -> Iterator[Task]:
        for task in self._movable.on(node):
            if (task.service, task.slot) not in self._at:
                yield task
        yield from self._came.get(node, {}).values()

    def _kind(self, task: Task) -> tuple[ServiceId, str]:
        held = self._fleet.held.get(self._where(task)[1])
        return (task.service, held.needs.text if held is not None else "")

    def _where(self, task: Task) -> tuple[NodeId, TaskId]:
        """The task's node, and its id, as this search has moved it."""
        return self._at.get((task.service, task.slot), (task.node, task.id))

    def _make(self, option: _Option) -> None:
        task, fleet = option.task, self._fleet
        place = (task.service, task.slot)
        source, held = self._where(task)
        fleet.task_removed(held)
        (answer,) = engine.place(fleet, [option.ask])
        assert isinstance(answer, Placed), "it was judged on this fleet"
        assert answer.node == option.target, "it was judged on this fleet"
        self.evenness.moved(option.ask.needs, source, option.target, option.loads)
        self._came.get(source, {}).pop(place, None)
        self._came.setdefault(option.target, {})[place] = task
        self._at[place] = (option.target, option.ask.task)
        self._prices.carried(option.target, option.ask.needs.image)
        self._moment += 1
        before = self.moves.pop(place, None)
        if option.target == task.node:
            return  # by way of another node it is back where it was
        self.moves[place] = Proposed(
            task=task,
            n=option.ask.n,
            node=option.target,
            gain=option.gain + (before.gain if before is not None else 0),
            price=option.price,
            reason=option.reason,
        )

    # ------------------------------------------------------------ one move

    def _judge(self, task: Task) -> _Option | None:
        """The task's best move; None: it has none that pays."""
        fleet = self._fleet
        ask = self._movable.ask(task)
        source, held = self._where(task)
        if ask is None:
            return None
        skew = self._skew(ask)
        with lifted(fleet, held):
            (answer,) = engine.place(fleet, [ask])
            if not isinstance(answer, Placed):
                return None
            target = answer.node
            harms = target == source or self._skew(ask) > skew or self._forsakes(ask, source)
            loads = self.evenness.loads(source, target)
            engine.undo(fleet, answer)
            if harms:
                return None
            broken = self._broken(ask, source)
            better = self._better(ask, source, target)
        if broken is None and not self._is_worth_it(ask, source, target, loads, better):
            return None
        # Its successor is there before it goes: both together must break no rule either.
        if not ask.needs_lease and filters.refusals(
            fleet, only_on(ask, target), fleet.candidates[target]
        ):
            return None
        price = self._prices.of(self._movable.spec(task.service), ask, target)
        gain, why = sum(better.values()), self._words(target, better)
        if broken is not None:
            gain, why = BROKEN, words.sentence(broken, f"node {name(self._snapshot, source)}")
        elif gain * 1000 < self._threshold * price.weight_millis:
            return None
        return _Option(
            task=task,
            ask=ask,
            source=source,
            target=target,
            gain=gain,
            price=price,
            reason=why,
            loads=loads,
            moment=self._moment,
        )

    @property
    def _threshold(self) -> int:
        """The points that a move has to gain for each restart."""
        return max(TASK_COST, self.evenness.mean_load // THRESHOLD_PART)

    def _broken(self, ask: Ask, node: NodeId) -> Refusal | None:
        """The rule by which a task could not be where it is, had it to be placed now."""
        refusals = filters.refusals(self._fleet, ask, self._fleet.candidates[node])
        return next((each for each in refusals if each.rule not in STAYS_FOR), None)

    def _better(self, ask: Ask, source: NodeId, target: NodeId) -> dict[str, int]:
        """The points that the target has more than the source, by part."""
        nodes = self._fleet.candidates
        here = dict(scores.parts(self._fleet, ask, nodes[source]))
        there = dict(scores.parts(self._fleet, ask, nodes[target]))
        parts = dict.fromkeys((*there, *here))
        return {part: there.get(part, 0) - here.get(part, 0) for part in parts}

    def _words(self, target: NodeId, better: Mapping[str, int]) -> str:
        """What speaks for a node most, as a sentence."""
        most = max(better, key=lambda part: better[part])
        key = most.partition(":")[2]
        why = f"has fewer tasks of its service by {key}" if key else _BETTER.get(most, "is better")
        return f"node {name(self._snapshot, target)} {why}"

    def _is_worth_it(
        self,
        ask: Ask,
        source: NodeId,
        target: NodeId,
        loads: Mapping[NodeId, int],
        better: Mapping[str, int],
    ) -> bool:
        """Whether the cluster as a whole comes nearer to what is wanted of it.

        Where it stays as even as it is, a service's tasks may still be spread over more nodes.
        """
        if scores.packs(self._fleet, ask):
            return self.evenness.packs_better(ask.needs, source, target)
        change = self.evenness.change(loads)
        return change < 0 or (change == 0 and better.get("same-service", 0) > 0)

    def _skew(self, ask: Ask) -> int:
        """By how much the service breaks its own spread rules."""
        total = 0
        for rule in ask.needs.spread_rules:
            if not rule.weight:
                counts = self._fleet.tally(tallies.of_service(ask.service), rule.key)
                values = filters.domains(self._fleet, ask, rule.key)
                there = sorted(counts.get(value, 0) for value in values)
                most, least = (there[-1], there[0]) if there else (0, 0)
                total += max(0, most - least - rule.max_skew)
        return total

    def _forsakes(self, ask: Ask, source: NodeId) -> bool:
        """Whether nobody is left in a domain in which others must be near to one like it."""
        facts = self._fleet.candidates[source].facts
        for tag in tallies.of_class(ask.needs, ask.name):
            for key in self._nears.get(tag, ()):
                value = facts.get(key)
                if value is not None and value not in self._fleet.tally(tag, key):
                    return True
        return False


def _rank(gain: int, price: Price) -> tuple[bool, int]:
    """Rules come first, then the points for each restart that a move costs."""
    return (gain < BROKEN, -(gain * 1000 // price.weight_millis))


def _nears(fleet: Fleet) -> dict[str, dict[str, None]]:
    """The tags that some task must be near to, and by which labels."""
    found: dict[str, dict[str, None]] = {}
    seen: dict[str, None] = {}
    for entry, _ in fleet.entries():
        if entry.needs.neighbours and entry.needs.text not in seen:
            seen[entry.needs.text] = None
            for rule in entry.needs.neighbours:
                if not rule.apart and not rule.weight:
                    found.setdefault(tallies.of_neighbour(rule), {})[rule.key] = None
    return found


def _arrive(fleet: Fleet, marked: Iterable[Task], movable: Movable) -> None:
    """Count tasks that are on their way as if they had arrived."""
    for task in sorted(marked, key=lambda each: each.id):
        ask = movable.ask(task)
        if task.move is None or ask is None:
            continue
        fleet.task_removed(task.id)
        successor = task_id(task.service, task.slot, task.move.n)
        if successor not in fleet.held:
            engine.place(fleet, [only_on(replace(ask, n=task.move.n), task.move.node)])
