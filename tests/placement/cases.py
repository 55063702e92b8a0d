"""One random case: a small cluster that lives and is asked to place, through two fleets."""

import random as randoms
import traceback
from collections import Counter
from dataclasses import dataclass, field

from homeport.model import NodeId
from homeport.spec import Strategy
from scheduler.placement import engine, reference
from scheduler.placement.asks import Placed
from scheduler.placement.candidates import Held
from tests.placement import recount
from tests.placement.drawing import VOLUMES, Drawn, ask_of, rarely
from tests.placement.twins import Twins

RUN = engine.RUN_MIN
STEPS = (
    *["place"] * 8,
    "undo",
    "end",
    "node",
    "gone",
    "echo",
    "move",
    "record",
    "volume",
    "unvolume",
    "strategy",
    "copy",
)


@dataclass
class Played:
    """What a case was about."""

    seed: int = 0
    placed: int = 0
    runs: int = 0  # batches in which so many equal asks were placed that they went together
    refusals: Counter = field(default_factory=Counter)  # by rule
    features: frozenset = frozenset()
    mismatch: str = ""


def play_seed(seed):
    """Play the case of a seed; what is wrong is told, not raised."""
    played = Played(seed=seed)
    try:
        Case(randoms.Random(seed), played).play()
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine may not do it
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        played.mismatch = f"{type(error).__name__} at {where}: {str(error)[:300]}"
    return played


class Case:
    """A cluster, what happens to it, and two fleets that hear of it."""

    def __init__(self, random, played=None):
        self.random = random
        self.played = played or Played()
        self.drawn = Drawn(random)
        self.played.features = self.drawn.features
        self.twins = Twins()
        self.records = {}  # node -> (record, what is said of it)
        self.volumes = []  # (volume, node) of each record
        self.tasks = []  # what was placed and is still held
        self.n = 0
        services = [(f"shop-{name}-1", self.drawn.needs()) for name in ("web", "db", "web2")]
        if rarely(random, 0.2):
            services[2] = ("shop-web2-1", services[0][1])  # two services of one class
        # Another generation of the first service, too.
        self.kinds = [*services, (services[0][0], self.drawn.needs())]

    def play(self):
        """All of it; raises where the two differ."""
        for which in range(self.drawn.size):
            self.change_node(which)
        self.step("place")
        for _ in range(self.random.randint(1, 5)):
            self.step(self.random.choice(STEPS))
        self.twins.check()
        for fleet in (self.twins.plain, self.twins.fast):
            recount.check(fleet, self.records, self.volumes)
        self.twins.check_points(self.kinds)

    def step(self, kind):
        """One thing happens."""
        random, twins = self.random, self.twins
        match kind:
            case "place":
                self.place()
            case "undo":
                for _ in range(random.randint(1, 3)):
                    if self.tasks:
                        back = self.tasks.pop(random.randrange(len(self.tasks)))
                        engine.undo(twins.plain, back)
                        engine.undo(twins.fast, back)
            case "end":
                for _ in range(len(self.tasks) // 2):
                    gone = self.tasks.pop(random.randrange(len(self.tasks)))
                    twins.both("task_removed", gone.ask.task)
            case "node":
                self.change_node(random.randrange(self.drawn.size + 1))
            case "gone":
                which = random.randrange(self.drawn.size + 1)
                self.records.pop(NodeId(f"id-n{which}"), None)
                twins.both("node_removed", NodeId(f"id-n{which}"))
            case "echo" if self.tasks:
                # The record of what was placed comes: nothing changes.
                same = random.choice(self.tasks)
                twins.both("task_added", same.ask.task, same.ask.on(same.node), same.grants)
            case "move" if self.tasks:
                # The slot is asked for again while its task is held: that is given up for it.
                again = random.choice(self.tasks).ask
                answers = twins.place([again])
                if isinstance(answers[0], Placed):
                    self.tasks = [each for each in self.tasks if each.ask.task != again.task]
                    self.tasks.append(answers[0])
            case "record":
                self.add_record()
            case "volume":
                volume = random.choice(VOLUMES)
                home = NodeId(f"id-n{random.randrange(self.drawn.size + 1)}")
                self.volumes.append((volume, home))
                twins.both("volume_added", volume, home)
            case "unvolume" if self.volumes:
                gone = self.volumes.pop(random.randrange(len(self.volumes)))
                twins.both("volume_removed", *gone)
            case "strategy":
                twins.both("strategy_changed", random.choice(tuple(Strategy)))
            case "copy":
                twins.fast = twins.fast.copy()
            case _:
                pass
        assert twins.fast == twins.plain
        service, needs = random.choice(self.kinds)
        probe = ask_of(service, needs, 99, n=self.n)
        expected = reference.is_placeable(twins.plain, probe)
        assert engine.is_placeable(twins.fast, probe) == expected

    def place(self):
        """A batch is placed."""
        self.n += 1
        batch = self.drawn.batch(self.kinds, self.n)
        answers = self.twins.place(batch)
        placed = [each for each in answers if isinstance(each, Placed)]
        self.tasks += placed
        self.played.placed += len(placed)
        together = Counter(each.ask.kind for each in placed)
        self.played.runs += any(count >= RUN for count in together.values())
        for each in answers:
            if not isinstance(each, Placed):
                self.played.refusals.update(refusal.rule for refusal in each.refusals)

    def change_node(self, which):
        """A node comes, or is another now."""
        record, state = self.drawn.node(which), self.drawn.state()
        if (known := self.records.get(record.id)) is not None and rarely(self.random, 0.5):
            record = known[0]  # it is only said something else of it
        self.records[record.id] = (record, state)
        self.twins.both("node_changed", record, **state)

    def add_record(self):
        """A task that somebody else placed, perhaps on a node that is not known (yet)."""
        self.n += 1
        service, needs = self.random.choice(self.kinds)
        node = NodeId(f"id-n{self.random.randrange(self.drawn.size + 2)}")
        ask = ask_of(service, needs, 50, n=self.n)
        entry = Held(service, node, needs, ask.fixes_volumes, ask.name)
        self.twins.both("task_added", ask.task, entry)
        self.tasks.append(Placed(ask=ask, node=node))
