"""Faults of clocks: the wall clock jumps, and boot time runs fast or slow.

The clock that is wrong is the one that Homeport is given (tests/faults/altered.py); the machine's
own is everybody's. That it is wrong is asserted by what the programs say and do.
"""

import json
import time
from pathlib import Path

from tests.faults.alone import alone
from tests.faults.history import now_ns
from tests.faults.registry import fault
from tests.faults.world import World

HOUR, DAY = 3600.0, 86_400.0


@fault("F43", "the wall clock jumps", alone=True, seconds=400)
def wall_jumps(results: Path) -> None:
    with alone(results / "F43", altered=("--wall-file",)) as world:
        before = world.facts()
        now = time.time()
        for seconds in (HOUR, -DAY, 2.0 - now, 4_300_000_000.0 - now):
            with world.fault("F43", scope="clock"):
                world.note(f"the wall clock is off by {seconds:.0f} s")
                world.cluster.clock_file.write_text(str(seconds))
                begin = _last_stamp(world)
                world.wait(lambda begin=begin: _moved(world, begin), "the clock to be wrong")
                world.keep(
                    lambda: set(world.cluster.states().values()) == {"READY"},
                    "every node ready", seconds=8,
                )  # fmt: skip
                world.cluster.homeport("ps")
            assert world.facts() == before
        world.cluster.clock_file.write_text("0")


def _last_stamp(world: World) -> int:
    """The wall clock of the newest sign of life, as the leader has it."""
    return max((view.last_seen_ms for view in world.cluster.client.nodes()), default=0)


def _moved(world: World, before: int) -> bool:
    return abs(_last_stamp(world) - before) > 1000 * 60


@fault("F44", "a node's clock runs at another rate", alone=True, seconds=500)
def rate_skewed(results: Path) -> None:
    for rate in (0.99, 1.01, 0.8):
        with alone(results / f"F44-{rate}", altered=("--rate", str(rate)), skewed="h3") as world:
            _move_to(world, "h3")
            world.begin_ns = now_ns()  # what was moved until here was moved on purpose
            host = world.cluster.host("h3")
            with world.fault("F44", scope="node", nodes=("h3",), settle_seconds=150):
                _effect(world, rate)
                host.cut()
                world.wait(lambda: world.where_else("mover", "h3"), "the mover to run elsewhere")
                host.heal()


def _move_to(world: World, node: str) -> None:
    """Have the mover run there, if Homeport lets it: a clock too wrong is a reason not to."""
    for other in world.lab.hosts:
        if other.name != node:
            world.cluster.homeport("cordon", other.name)
    try:
        if world.where("mover") != node:
            world.cluster.homeport("drain", world.where("mover"))
            world.wait(lambda: world.beats("mover") or _refuses(world), "the mover to be moved")
    finally:
        for other in world.lab.hosts:
            world.cluster.homeport("uncordon", other.name)
    world.wait_settled()


def _refuses(world: World) -> bool:
    return "clock" in world.cluster.explain("mover.1", "app")


def _effect(world: World, rate: float) -> None:
    """The agent was started with that clock; test_altered.py measures what it makes of it."""
    agent = world.cluster.agents["h3"]
    assert any(str(rate) in word for word in agent.argv), json.dumps(agent.argv)
