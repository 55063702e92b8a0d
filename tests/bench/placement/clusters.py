"""Made-up clusters and asks for the benchmarks of placement: uneven nodes, partly full.

Everything is drawn from a seed, so that two runs measure the same.
"""

import random

from homeport.model import Inventory, Node, NodeId, ServiceId
from homeport.spec import Constraint, ConstraintOperator, Resources, pairs
from scheduler.placement import engine
from scheduler.placement.asks import Ask
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements

MIB = 1 << 20
ZONES = ("moon-1", "moon-2", "moon-3")


def fleet(nodes, seed, *, filled=0.15):
    """So many ready nodes of four to sixty-four cores, each with some tasks on it already."""
    dice = random.Random(seed)
    result = Fleet()
    for which in range(nodes):
        cores = dice.choice((4, 8, 16, 32, 64))
        record = Node(
            id=NodeId(f"node-{which:05}"),
            name=f"node-{which:05}",
            number=which,
            labels=pairs(
                {
                    "zone": ZONES[which % 3],
                    "disk": dice.choice(("ssd", "hdd")),
                    "tier": dice.choice("abcd"),
                }
            ),
            inventory=Inventory(
                hostname=f"node-{which:05}",
                os="linux",
                architecture="x86_64",
                capacity=Resources(
                    cpu_millis=cores * 1000,
                    memory_bytes=cores * dice.choice((2, 4, 8)) * 1024 * MIB,
                ),
                drivers=("DOCKER",),
            ),
        )
        result.node_changed(record, ready=True)
    before = [
        ask(f"old-{which}", 1, Requirements(cpu_millis=500, memory_bytes=512 * MIB))
        for which in range(round(nodes * filled * 8))
    ]
    engine.place(result, before)
    return result


def ask(service, slot, needs, **fields):
    """One slot of a service."""
    return Ask(service=ServiceId(service), slot=slot, n=1, generation=1, needs=needs, **fields)


def small(dice, **fields):
    """A class that reserves a little, and wants a kind of disk in half of the cases."""
    label = dice.choice(("ssd", "hdd", None, None))
    constraint = Constraint(
        key="node.labels.disk", operator=ConstraintOperator.EQ, value=label or ""
    )
    return Requirements(
        cpu_millis=dice.randint(10, 200),
        memory_bytes=dice.randint(16, 512) * MIB,
        constraints=(constraint,) if label else (),
        **fields,
    )
