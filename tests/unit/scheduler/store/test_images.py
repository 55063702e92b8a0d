"""Archives of built images on disk: which ones are deleted, and which never."""

import asyncio
import hashlib
import os
import random

import pytest

from homeport.seams import SystemClock
from scheduler import app
from scheduler.store.images import UNUSED_KEPT_SECONDS, ImageError, Images
from tests.builders import World, spec

USED = "sha256:" + "1" * 64
UNUSED = "sha256:" + "2" * 64
NOW_MS = SystemClock().wall_ms()
A_DAY_AGO = NOW_MS / 1000 - UNUSED_KEPT_SECONDS - 1


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


@pytest.fixture
async def images(folder):
    images = Images(folder)
    yield images
    images.close()


async def hand_over(images, image_id, data=b"layers"):
    await images.append(image_id, 0, data)
    return await images.finish(image_id, len(data), hashlib.sha256(data).hexdigest())


def age(folder):
    for path in folder.iterdir():
        os.utime(path, (A_DAY_AGO, A_DAY_AGO))


async def test_what_no_service_uses_goes_after_a_day(images, folder):
    await hand_over(images, USED)
    unused = await hand_over(images, UNUSED)
    assert await images.sweep({USED}, NOW_MS) == []
    age(folder)
    assert await images.sweep({USED}, NOW_MS) == [unused.path.name]
    assert await images.whole(UNUSED) is None
    assert await images.whole(USED) is not None
    with pytest.raises(ImageError, match="was deleted"):
        await images.read(unused, 0)


async def test_what_a_client_was_told_to_be_here_stays_for_another_day(images, folder):
    await hand_over(images, UNUSED)
    age(folder)
    assert await images.whole(UNUSED) is not None
    assert await images.sweep(set(), NOW_MS) == []


async def test_a_hand_over_that_was_given_up_goes_and_one_that_goes_on_stays(images, folder):
    await images.append(UNUSED, 0, b"lay")
    await images.append(USED, 0, b"lay")
    age(folder)
    await images.append(UNUSED, 3, b"ers")
    assert await images.sweep({USED}, NOW_MS) == [f"{'1' * 64}.part"]
    assert await images.received_bytes(UNUSED) == 6


async def test_a_folder_without_images_and_foreign_files_are_left_alone(images, folder):
    assert await images.sweep(set(), NOW_MS) == []
    folder.mkdir()
    (folder / "notes.tar").write_text("mine")
    age(folder)
    assert await images.sweep(set(), NOW_MS) == []


async def test_a_leader_sweeps_what_its_specs_do_not_name(images, folder, monkeypatch):
    monkeypatch.setattr(app, "SWEEP_SECONDS", 0.01)
    world = World()
    world.apply(spec("web"))
    swept = asyncio.Event()
    sweep = images.sweep

    async def sweeping(in_use, now_ms):
        gone = await sweep(in_use, now_ms)
        swept.set()
        return gone

    monkeypatch.setattr(images, "sweep", sweeping)
    await hand_over(images, UNUSED)
    age(folder)

    class Core:
        leads = False

        def snapshot(self):
            if not self.leads:
                self.leads = True  # from the next look on
                return None
            return world.snapshot()

    async with asyncio.TaskGroup() as background:
        running = background.create_task(
            app._sweep_images(Core(), images, SystemClock(), random.Random(1))
        )
        async with asyncio.timeout(20):
            await swept.wait()
        running.cancel()
    assert await images.whole(UNUSED) is None
