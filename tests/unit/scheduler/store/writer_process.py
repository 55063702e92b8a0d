"""Write to a store as fast as it goes, saying what was acknowledged, until killed.

Every commit writes one pair of keys with the same value, so that half a commit shows.
Each line on standard output is the number of a commit whose acknowledgement came.
"""

import asyncio
import os
import pathlib
import sys

from homeport.seams import SystemClock
from scheduler.store.base import ABSENT, Write
from scheduler.store.sqlite import SqliteStore

WRITERS = 8


async def main(path, first):
    # A short history, so that kills also fall into compactions.
    store = await SqliteStore.open(path, clock=SystemClock(), history_revisions=50)
    numbers = iter(range(first, 1_000_000_000))

    async def write():
        for n in numbers:
            value = b"%d" % n * 30
            await store.commit(
                [
                    Write(f"pair/{n}/a", value, ABSENT),
                    Write(f"pair/{n}/b", value, ABSENT),
                    Write("last", value),
                    Write(f"pair/{n - 500}/a", None),
                    Write(f"pair/{n - 500}/b", None),
                ]
            )
            os.write(1, b"%d\n" % n)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())


asyncio.run(main(pathlib.Path(sys.argv[1]), int(sys.argv[2])))
