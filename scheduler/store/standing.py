"""Whether a scheduler may work on a store: what the store says of itself.

A store that was moved elsewhere says where, and one that is being filled says from where;
a scheduler starts on neither. The notes are records like any other, under keys that no
object has, so they are as durable as what they speak of, and every backend has them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from scheduler.store.base import Store, StoreError
from scheduler.store.renewal import META

MOVED_KEY = f"{META}moved"
FILLING_KEY = f"{META}filling"


class NotToBeUsed(StoreError):
    """This store is not, or not yet, the cluster's; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Left in a store whose cluster went on elsewhere."""

    to: str  # the other store, for people
    flag: str  # its backend, as `--store` takes it
    cluster: str
    incarnation: int  # of the copy
    at: str  # wall clock, ISO 8601


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """Left in a store while records are written into it."""

    source: str  # another store, or a file
    cluster: str
    command: str  # what to run again


async def moved(store: Store) -> Moved | None:
    """Whether the cluster went on elsewhere. Raises StoreError."""
    record = await store.get(MOVED_KEY)
    return Moved(**json.loads(record.value)) if record is not None else None


async def filling(store: Store) -> Filling | None:
    """Whether somebody began to write records into it, and did not end. Raises StoreError."""
    record = await store.get(FILLING_KEY)
    return Filling(**json.loads(record.value)) if record is not None else None


def encoded(note: Moved | Filling) -> bytes:
    """A note as its record has it."""
    return json.dumps(asdict(note)).encode()


async def check(store: Store) -> None:
    """Raise NotToBeUsed, with a sentence for the operator, where no scheduler may work."""
    if (note := await moved(store)) is not None:
        raise NotToBeUsed(
            f"the cluster of the store {store.name} was moved to {note.to} on {note.at}: start"
            f" the scheduler with --store {note.flag}. To go back, move it back with `homeport"
            f" store migrate --from {note.flag}`; or, to go on here with what was here then, say"
            " `homeport store accept-restore --offline`"
        )
    if (unfinished := await filling(store)) is not None:
        raise NotToBeUsed(
            f"the store {store.name} is not complete: it was being filled from"
            f" {unfinished.source}. Run `{unfinished.command}` again; or, to have it empty, say"
            " `homeport store clear`"
        )
