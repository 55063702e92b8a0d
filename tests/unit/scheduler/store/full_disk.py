"""What a store does on a disk that fills up; run by test_sqlite_disk.py in a namespace.

The first argument is a folder over which a file system of 2 MB is mounted.
"""

import asyncio
import os
import pathlib
import subprocess
import sys

from homeport.seams import SystemClock
from scheduler.store.base import LEADER_KEY, Fence, Unavailable, Write
from scheduler.store.sqlite import SqliteStore


def say(line):
    os.write(1, f"{line}\n".encode())


async def put(store, key, fence):
    """What is wrong, or None."""
    try:
        await store.commit([Write(key, bytes(3_000))], fence)
    except Unavailable as error:
        return str(error)
    return None


async def main(folder):
    store = await SqliteStore.open(folder / "store.db", clock=SystemClock())
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(800_000))
    lease = await store.grant(60)
    fence = Fence(await store.commit([Write(LEADER_KEY, b"me", lease=lease)]))
    acknowledged = []
    error = None
    while error is None:
        key = f"k/{len(acknowledged):05}"
        error = await put(store, key, fence)
        if error is None:
            acknowledged.append(key)
    assert f"the disk of the store {folder}/store.db is full" in error
    for _ in range(3):
        assert await put(store, "more", fence) == error
    say("refused: the disk is full")

    listing = await store.list("k/")
    assert [record.key for record in listing.records] == acknowledged
    assert (await store.get(acknowledged[-1])).value == bytes(3_000)
    changes = 0
    async for batch in store.watch("k/", 0):
        changes += len(batch.changes)
        if changes == len(acknowledged):
            break
    say("reads answered")

    assert await store.keep_alive(lease) == 60
    await store.commit([], fence)
    say("still leading")

    ballast.unlink()
    await store.commit([Write("after", b"")], fence)
    say("written after space was freed")

    await store.close()
    store = await SqliteStore.open(folder / "store.db", clock=SystemClock())
    keys = [record.key for record in (await store.list("")).records]
    assert keys == ["after", *acknowledged], keys
    await store.close()
    say("nothing acknowledged was lost")


subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", sys.argv[1]], check=True)
asyncio.run(main(pathlib.Path(sys.argv[1])))
