"""A network that cuts, loses, delays, repeats and reorders."""

import asyncio
from dataclasses import replace

from tests.simulation.trouble.kinds import kind


@kind("cut a link", 20)
async def _cut_a_link(nemesis):
    rng, world = nemesis.rng, nemesis.world
    agent = rng.choice(world.agents).name
    other = rng.choice([*(each.name for each in world.schedulers), "laptop"])
    await _cut(nemesis, [(agent, other)] if other != "laptop" else [(other, "s1")])


@kind("cut a node off", 40)
async def _cut_a_node_off(nemesis):
    agent = nemesis.rng.choice(nemesis.world.agents).name
    await _cut(nemesis, [(agent, each.name) for each in nemesis.world.schedulers])


@kind("cut all nodes off", 90)
async def _cut_all_nodes_off(nemesis):
    world = nemesis.world
    await _cut(
        nemesis, [(one.name, other.name) for one in world.agents for other in world.schedulers]
    )


async def _cut(nemesis, links):
    rng, network = nemesis.rng, nemesis.world.network
    ways = rng.choice(("there", "back", "both", "both"))
    cuts = set()
    for one, other in links:
        if ways != "back":
            cuts.add((one, other))
        if ways != "there":
            cuts.add((other, one))
    for one, other in sorted(cuts):
        network.cut(one, other)
    await asyncio.sleep(rng.choice((1.0, 4.0, 8.0, 15.0, 25.0, 40.0)))
    network.cuts -= cuts


@kind("lose messages", 30)
async def _lose_messages(nemesis):
    await _weather(nemesis, lose=nemesis.rng.choice((0.01, 0.05, 0.2)))


@kind("slow messages", 30)
async def _slow_messages(nemesis):
    rng = nemesis.rng
    await _weather(
        nemesis, slow=rng.choice((0.02, 0.2, 0.5)), slow_seconds=rng.choice((0.3, 3.0, 8.0))
    )


@kind("repeat messages", 30)
async def _repeat_messages(nemesis):
    await _weather(nemesis, repeat=nemesis.rng.choice((0.02, 0.2, 0.5)))


@kind("reorder messages", 40)
async def _reorder_messages(nemesis):
    await _weather(nemesis, reorder=nemesis.rng.choice((0.01, 0.05, 0.3)))


async def _weather(nemesis, **what):
    network = nemesis.world.network
    network.weather = replace(network.weather, **what)
    await asyncio.sleep(nemesis.rng.uniform(2, 20))
    network.weather = replace(
        network.weather, **{key: 0.0 for key in what if key != "slow_seconds"}
    )
