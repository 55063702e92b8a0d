"""Several agents on one engine, at the one place where they can hurt each other: networks."""

import asyncio

import pytest

from agent.runtime.docker_engine import Engine
from agent.runtime.docker_stack import StackResources
from homeport.spec import NetworkAttachment, NetworkSpec
from tests.contract.works import work
from tests.testbed.engine import RunningEngine

CLUSTER = "sharing-test"
STACKS = 3


@pytest.mark.docker
async def test_agents_that_make_a_network_at_the_same_moment_end_with_one(
    docker_engine: RunningEngine,
) -> None:
    client = docker_engine.client()
    mine = {"label": f"dev.homeport.cluster={CLUSTER}"}
    agents = [Engine(docker_engine.host) for _ in range(3)]
    try:
        async with asyncio.timeout(60):
            for number in range(STACKS):
                wanted = work(
                    stack=f"sharing{number}",
                    networks=(NetworkAttachment(network="default"),),
                    stack_networks=(NetworkSpec(name="default"),),
                )
                async with asyncio.TaskGroup() as together:
                    for engine in agents:
                        together.create_task(StackResources(engine, CLUSTER).prepare(wanted))
        names = sorted(network["Name"] for network in client.networks(filters=mine))
        assert names == [f"sharing{number}_default" for number in range(STACKS)]
    finally:
        for engine in agents:
            engine.close()
        for network in client.networks(filters=mine):
            client.remove_network(network["Id"])
