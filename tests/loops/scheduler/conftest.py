"""What several tests of a leader above its transports share."""

import asyncio

import pytest

from tests.loops.scheduler.lanes import (
    Leader,
)


@pytest.fixture
async def leader():
    leader = Leader()
    await leader.start()
    async with asyncio.TaskGroup() as background:
        following = background.create_task(leader.mirror.run())
        watching = background.create_task(leader.dispatcher.run())
        yield leader
        await leader.dispatcher.close("the test is over")
        following.cancel()
        watching.cancel()
    await leader.store.close()
