"""More states of GPU nodes than are kept: what was computed for those of before counts no more."""

import random

from homeport.devices import GPU
from homeport.model import Inventory, MachineDevice, Node, NodeId
from homeport.spec import DeviceNeed, Resources, Strategy
from scheduler.placement import board, engine, reference
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements


def fleet_of(gpus):
    """A node for each number of GPUs, every other one of another model."""
    fleet = Fleet()
    for which, count in enumerate(gpus):
        gpu = [
            MachineDevice(id=f"gpu{number}", kind=GPU, model=f"m{which % 2}")
            for number in range(count)
        ]
        node = Node(
            id=NodeId(f"node-{which}"),
            name=f"node-{which}",
            number=which,
            inventory=Inventory(
                hostname="host",
                os="linux",
                architecture="x86_64",
                capacity=Resources(cpu_millis=64_000, memory_bytes=1 << 36),
                drivers=("DOCKER",),
                devices=tuple(gpu),
            ),
        )
        fleet.node_changed(node, ready=True)
    return fleet


def test_after_more_states_than_are_kept_the_choices_are_the_references(monkeypatch):
    monkeypatch.setattr(board, "STATES_MORE", 8)
    monkeypatch.setattr(board, "CLASSES_MIN", 2)
    monkeypatch.setattr(board, "POINTS_BYTES", 0)
    gpus, dice = (2, 4, 1), random.Random(1)
    plain, fast = fleet_of(gpus), fleet_of(gpus)
    share = DeviceNeed(kind=GPU, count=1, share_millis=300)
    placed: list[Placed] = []
    chosen, clears = set(), 0
    for slot in range(1, 300):
        # A few GPU tasks say what is typical; then tasks come and go that take cpu alone.
        needs = Requirements(
            cpu_millis=dice.choice((7000, 11_000, 13_000, 17_000)) + slot if slot > 4 else 21_000,
            devices=() if slot > 4 else (share,),
            strategy=Strategy.BINPACK,
        )
        ask = Ask(service=f"shop-s{slot}-1", slot=1, n=1, generation=1, needs=needs)
        before = _states(fast)
        (answer,) = engine.place(fast, [ask])
        clears += _states(fast) < before
        assert [answer] == reference.place(plain, [ask])
        if isinstance(answer, Placed) and slot > 4:
            placed.append(answer)
            chosen.add(answer.node)
        while placed and (dice.random() < 0.4 or len(placed) > 9):
            back = placed.pop(dice.randrange(len(placed)))
            engine.undo(fast, back)
            engine.undo(plain, back)
    assert fast == plain
    assert len(chosen) > 2
    assert clears > 3


def _states(fleet):
    found = fleet.columns.derived.get("board")
    return len(found._states) if found is not None else 0
