"""Verify how often an engine is asked about an image that is there."""

import asyncio
from typing import Any

import pytest

from agent.runtime.docker_images import FRESH_SECONDS, Images, PullLimits
from homeport.spec import ContainerSpec, PullPolicy
from tests.loops.agent.rig import LoopClock

pytestmark = pytest.mark.looptime

SPEC = ContainerSpec(image="example", pull_policy=PullPolicy.NEVER)


class CountingEngine:
    """Has one image, and counts who asks; a look takes a while."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, what: str, request: Any, **_: Any) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(0.1)
        return {"Id": "sha256:1", "RepoDigests": []}


async def never() -> bool:
    return False


async def prepare(images: Images) -> None:
    await images.prepare(SPEC, lambda _: None, is_settled=never)


async def test_thirty_tasks_of_one_image_ask_once() -> None:
    engine = CountingEngine()
    images = Images(engine, LoopClock(), PullLimits())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as background:
        for _ in range(30):
            background.create_task(prepare(images))
    assert engine.asked == 1
    await asyncio.sleep(FRESH_SECONDS)
    await prepare(images)
    assert engine.asked == 2


async def test_after_a_refusal_the_engine_is_asked_again() -> None:
    engine = CountingEngine()
    images = Images(engine, LoopClock(), PullLimits())  # type: ignore[arg-type]
    await prepare(images)
    images.forget("example")
    await prepare(images)
    assert engine.asked == 2
