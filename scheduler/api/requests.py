"""Mutations that happen once: decide, commit together with the answer, remember it.

A retry with the same request id gets the first answer and changes nothing, also when the
first answer was lost or the leader changed in between: the record of the answer is part
of the same commit. A decision that lost a race is made again on what is there now.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from homeport.model import RequestRecord
from scheduler.api import staging
from scheduler.api.errors import Invalid, RequestIdUsed
from scheduler.cluster import keys
from scheduler.cluster.changes import ABSENT, Change, Put
from scheduler.store.authority import Authority
from scheduler.store.base import Conflict, Unavailable

TRIES = 8
WRITTEN_OUT_SECONDS = 4.0
"""How long a change waits for another of the same stack, of which much is to be written."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Decision(Generic[M]):
    """What a mutation writes and answers."""

    response: M
    # Objects that nobody reads before the heads do: may be written in earlier commits.
    objects: tuple[Change, ...] = ()
    heads: tuple[Change, ...] = ()  # one commit


@dataclass(frozen=True, slots=True)
class Carried(Generic[M]):
    """A mutation's answer and the revision at which it was carried out."""

    response: M
    revision: int


async def once(
    authority: Authority,
    method: str,
    request: Message,
    request_id: str,
    response: type[M],
    decide: Callable[[], Decision[M]],
    *,
    keep: bool = True,
    stack: str = "",
) -> Carried[M]:
    """Carry a mutation out at most once. `keep` False: decide and answer only.

    `stack` is the one that it changes, if any: another change of it is written first.

    Raises Invalid, RequestIdUsed, TooLarge, StoreError and what `decide` raises.
    """
    if request_id and not _ID.fullmatch(request_id):
        raise Invalid([("request_id", "1 to 128 letters, digits, '.', '_', ':' and '-'")])
    if not keep:
        return Carried(decide().response, authority.mirror.newest)
    digest = _digest(request)
    for attempt in range(TRIES):
        if stack:
            await _written_out(authority, stack)
        if request_id:
            known = authority.mirror.tables.request(request_id)
            if known is not None:
                return _remembered(authority, known, method, digest, response)
        try:
            decision = decide()
        except Exception:
            # No is an answer that only a leader may give, as is that there is nothing to write: who
            # leads no more, and does not know it yet, looks at what was.
            await authority.commit(())
            raise
        if not decision.objects and not decision.heads and not request_id:
            await authority.commit(())
            return Carried(decision.response, authority.mirror.newest)
        try:
            # Also where nothing changes: a copy of the request that comes late, behind a newer
            # one, would otherwise be carried out then.
            revision = await _commit(authority, method, request_id, digest, decision)
        except Conflict:
            # Somebody was faster; perhaps our own commit that is not yet in the mirror.
            await asyncio.sleep(0.01 * attempt)
            continue
        return Carried(decision.response, revision)
    raise Conflict(["the same objects, again and again"])


async def _commit(
    authority: Authority, method: str, request_id: str, digest: str, decision: Decision[M]
) -> int:
    heads = list(decision.heads)
    if request_id:
        record = RequestRecord(
            request_id=request_id,
            method=method,
            digest=digest,
            response=decision.response.SerializeToString(),
            created_ms=authority.clock.wall_ms(),
        )
        heads.append(Put(record, ABSENT, f"{method} is answered once"))
    return await staging.commit(authority, decision.objects, heads)


async def _written_out(authority: Authority, stack: str) -> None:
    """Return when no large apply of the stack is being written. Raises Unavailable."""
    mirror = authority.mirror
    changed = asyncio.Event()
    unsubscribe = mirror.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(WRITTEN_OUT_SECONDS):
            while True:
                await authority.committer.free(keys.stack(stack))
                record = mirror.tables.stack(stack)
                if record is None or not record.draft:
                    return
                changed.clear()
                await changed.wait()
    except TimeoutError:
        raise Unavailable(
            f"the last change of stack {stack} is still being written: try again"
        ) from None
    finally:
        unsubscribe()


def _remembered(
    authority: Authority,
    known: RequestRecord,
    method: str,
    digest: str,
    response: type[M],
) -> Carried[M]:
    if known.method != method or known.digest != digest:
        raise RequestIdUsed(
            f"request id {known.request_id} was used for another request; give each its own"
        )
    message = response()
    message.ParseFromString(known.response)
    revision = authority.mirror.tables.version(keys.request(known.request_id))
    return Carried(message, revision)


def _digest(request: Message) -> str:
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
