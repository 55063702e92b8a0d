"""The API as any scheduler gives it: answered here, or by the leader over one hop.

Works on messages and knows no gRPC: `servicer` listens and `hop` dials for it, and the
simulation puts its own network in their place. What is answered here is never older than
what anybody has written: the store is asked at which revision it is, and the mirror waited
for. Only while the store does not answer may it be older, and then never than what the
caller has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

import structlog

from scheduler.api import sources
from scheduler.api.errors import LeaderLost, Relayed, StoreSilent, Unwell
from scheduler.api.routing import NEEDS, Caller, Needs, Way, way
from scheduler.api.service import ControlService
from scheduler.api.watching import Send
from scheduler.store.base import LEADER_KEY, Ambiguous, Store, StoreError

UNARY_SECONDS = 4.0
"""How long the leader may take for a write: without it the caller hears of that within 5 s."""
STORE_SECONDS = 3.8
"""How long the store may take for a write that is made here, or at the leader."""
BYTES_PER_SECOND = 262_144
"""What a slow card takes of a large apply, which is many transactions: so much longer it may
take. Each transaction has its own deadline, so a store that is away is told as soon as ever."""
OBSERVED_SECONDS = 2.0
"""And for a read that can be answered without it."""
SAYING_SECONDS = 0.3
"""So long before the caller's deadline the answer is no: it would not hear it any more."""
CONFIRM_SECONDS = 1.0
"""How long the store may take to say at which revision it is."""
OWN_WRITE_SECONDS = 1.0
"""How long a write's answer is held back until this scheduler has seen the write."""

log = structlog.get_logger(__name__)


class Hop(Protocol):
    """The way to another scheduler."""

    async def unary(
        self, address: str, method: str, request: Any, caller: Caller, timeout_seconds: float
    ) -> Any:
        """Its answer. Raises Relayed for its no, LeaderLost when there is no answer."""
        ...

    def stream(
        self, address: str, method: str, requests: Any, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        """Its answers, to one request or to an iterator of them. Raises as `unary`."""
        ...


class Front:
    """Answers users, whether this scheduler leads or not."""

    def __init__(self, control: ControlService, store: Store, hop: Hop | None = None) -> None:
        """Without a `hop` callers are told who leads instead."""
        self._control = control
        self._store = store
        self._hop = hop

    async def unary(self, method: str, request: Any, caller: Caller) -> Any:
        """Answer a unary call. Raises what `errors.failure` knows."""
        needs = NEEDS.get(method, Needs.LEADER)
        called = asyncio.get_running_loop().time()
        match self._way(needs, caller):
            case Way.REFUSE:
                raise self._control.nobody_leads()
            case Way.ASK if needs is Needs.OBSERVED:
                try:
                    return await self._ask(method, request, caller, OBSERVED_SECONDS)
                except LeaderLost as error:
                    # What is stored is told all the same, and that the rest is unknown.
                    log.warning("answered without the leader", method=method, why=str(error))
                await self._confirm(caller)
            case Way.ASK:
                more = request.ByteSize() / BYTES_PER_SECOND
                answer = await self._ask(method, request, caller, UNARY_SECONDS + more)
                spent = asyncio.get_running_loop().time() - called
                # Never longer than there is for the call: it is done, and must not fail by this.
                await self._own_write(
                    getattr(answer, "revision", 0),
                    min(OWN_WRITE_SECONDS, UNARY_SECONDS + more - spent),
                )
                return answer
            case Way.CONFIRM:
                await self._confirm(caller)
            case Way.HERE:
                pass
        limit = STORE_SECONDS + request.ByteSize() / BYTES_PER_SECOND
        if caller.left_seconds is not None:
            spent = asyncio.get_running_loop().time() - called
            limit = max(0.05, min(limit, caller.left_seconds - spent - SAYING_SECONDS))
        try:
            async with asyncio.timeout(limit):
                return await getattr(self._control, method)(request)
        except Ambiguous as error:
            raise Ambiguous(
                f"it is not known yet whether this was written, for {self._store.name} does not"
                " answer as it should: ask again with the same request id"
            ) from error
        except TimeoutError as error:
            raise StoreSilent(
                f"{self._store.name} did not answer within {limit:.1f} s; it is not known"
                " whether it did what it was asked for"
            ) from error

    async def stream(self, method: str, request: Any, caller: Caller, send: Send) -> None:
        """Send all answers to a request, or to an iterator of requests. Raises as `unary`."""
        needs = NEEDS[method]
        if method == "Watch" and sources.is_of_stored(request):
            needs = Needs.STORED
        match self._way(needs, caller):
            case Way.REFUSE:
                raise self._control.nobody_leads()
            case Way.ASK:
                assert self._hop is not None
                answers = self._hop.stream(self._control.leader, method, request, caller)
                async with aclosing(answers):
                    async for answer in answers:
                        await send(answer)
                return
            case Way.CONFIRM:
                await self._confirm(caller)
            case Way.HERE:
                pass
        await getattr(self._control, method)(request, send)

    async def upload(self, method: str, requests: AsyncIterator[Any], caller: Caller) -> Any:
        """Answer a stream of requests with one answer. Raises as `unary`."""
        match self._way(NEEDS[method], caller):
            case Way.REFUSE:
                raise self._control.nobody_leads()
            case Way.ASK:
                assert self._hop is not None
                async with aclosing(
                    self._hop.stream(self._control.leader, method, requests, caller)
                ) as answers:
                    async for answer in answers:
                        return answer
                raise LeaderLost(f"the leader at {self._control.leader} gave no answer")
            case _:
                return await getattr(self._control, method)(requests)

    # ------------------------------------------------------------ inside

    def _way(self, needs: Needs, caller: Caller) -> Way:
        control = self._control
        leader = control.leader
        found = way(
            needs,
            leads=control.lead is not None,
            is_proven=control.is_proven,
            # Who has won and has not begun to lead is nobody to ask, least of all by itself.
            leader="" if leader == control.address else leader,
            caller=caller,
        )
        return Way.REFUSE if found is Way.ASK and self._hop is None else found

    async def _ask(self, method: str, request: Any, caller: Caller, most_seconds: float) -> Any:
        assert self._hop is not None
        control, leader = self._control, self._control.leader
        left = most_seconds if caller.left_seconds is None else caller.left_seconds
        try:
            answer = await self._hop.unary(
                leader, method, request, caller, min(most_seconds, max(0.05, left))
            )
        except LeaderLost:
            control.sees_observed(False)
            raise
        except Relayed as error:
            if error.reason != "NOT_LEADER":
                raise
            control.sees_observed(False)
            if NEEDS.get(method) is not Needs.OBSERVED:
                raise
            raise LeaderLost(f"{leader} leads no more") from error
        control.sees_observed(True)
        return answer

    async def _own_write(self, revision: int, seconds: float) -> None:
        """Have seen what was written for a caller before it hears of it, if that is soon."""
        try:
            async with asyncio.timeout(seconds):
                await self._control.mirror.wait_for(revision)
        except TimeoutError:
            log.warning("a write is not seen here yet", revision=revision)

    async def _confirm(self, caller: Caller) -> None:
        """Wait until nothing that is written is missing here. Raises Unwell."""
        mirror = self._control.mirror
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                # The cheapest linearizable read there is: one small key, and the revision.
                listing = await self._store.list(LEADER_KEY)
                # A caller may have seen more only in a store that was restored since.
                await mirror.wait_for(listing.revision)
        except (TimeoutError, StoreError) as error:
            if mirror.revision < caller.seen_revision:
                raise Unwell(
                    f"revision {caller.seen_revision}, which you have seen, is not here yet:"
                    f" {self._store.name} does not answer"
                ) from error
