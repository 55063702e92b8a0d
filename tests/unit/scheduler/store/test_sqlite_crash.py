"""Verify that `kill -9` at any moment loses no acknowledged write, and halves none (S5)."""

import asyncio
import pathlib
import random
import subprocess
import sys

import pytest

from homeport.seams import SystemClock
from scheduler.store.sqlite import SqliteStore

WRITER = pathlib.Path(__file__).with_name("writer_process.py")
KILLS = 20
KEPT = 500  # the writer deletes the pair that is so many commits older


async def write_until_killed(path, first, seconds):
    """The numbers of the commits that were acknowledged before the kill."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, WRITER, path, str(first), stdout=subprocess.PIPE
    )
    async with asyncio.timeout(30):
        started = await process.stdout.readline()
    assert started, "the writer did not start"
    await asyncio.sleep(seconds)
    process.kill()
    lines = started + await process.stdout.read()
    await process.wait()
    return [int(line) for line in lines.decode().rsplit("\n", 1)[0].split("\n")]


async def check(path, acknowledged):
    store = await SqliteStore.open(path, clock=SystemClock())
    listing = await store.list("pair/")
    await store.close()
    pairs = {}
    for record in listing.records:
        pairs.setdefault(int(record.key.split("/")[1]), []).append(record)
    newest = max(pairs)
    for n, pair in pairs.items():
        assert [record.value for record in pair] == [b"%d" % n * 30] * 2
        assert pair[0].version == pair[1].version
    lost = {n for n in acknowledged if n > newest - KEPT + 8} - set(pairs)
    assert not lost
    return newest, listing.revision


@pytest.mark.timeout(180)
async def test_no_acknowledged_write_is_lost_and_no_commit_is_halved(tmp_path):
    path = tmp_path / "store.db"
    chance = random.Random(1)
    acknowledged, first, revision = [], 0, 0
    for kill in range(KILLS):
        acknowledged += await write_until_killed(path, first, chance.uniform(0, 0.15))
        first = max(acknowledged) + 100
        if kill % 4 == 3:  # otherwise the next writer opens what the last one left
            newest, now = await check(path, acknowledged)
            assert now > revision, "the revision must never go back"
            revision = now
            first = newest + 1
    assert len(acknowledged) > KILLS
