"""Looks after etcd: asks every member how it is, tells people, and does what upkeep decides.

Every scheduler looks; the leader acts. One exception: with NOSPACE no leader can be elected,
so when nobody leads any scheduler may make space. A newcomer's mistake: asking for the status
through the connection that rotates. Each member answers for itself here, one that has lost
the others too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import structlog
from aetcd.rpc import rpc_pb2

from homeport.seams import Clock, Randomness, jittered
from scheduler.metrics import Metrics
from scheduler.store.base import StoreError
from scheduler.store.etcd.faults import Kind
from scheduler.store.etcd.health import (
    NO_SPACE,
    MemberStatus,
    alarms_in,
    conditions,
    version_warning,
)
from scheduler.store.etcd.member import Member
from scheduler.store.etcd.quota import quota_bytes
from scheduler.store.etcd.shell import EtcdStore
from scheduler.store.etcd.upkeep import (
    Action,
    Compact,
    Defragment,
    Disarm,
    Memory,
    decide,
    full_members,
)

LOOK_SECONDS = 10.0
STATUS_SECONDS = 2.0
QUOTA_SECONDS = 600.0
"""How long a member's quota is believed; it changes only with a restart."""
DEFRAGMENT_SECONDS = 300.0
"""A member rewrites its file, tens of MB per second on a slow disk."""
ORPHANED_SECONDS = 30.0
"""Without a leader for so long, whoever sees NOSPACE makes space."""

log = structlog.get_logger(__name__)


class Leading(Protocol):
    """What is to be known of the election."""

    def __call__(self) -> tuple[bool, bool]:
        """Whether we lead, and whether anybody does."""
        ...


class Maintenance:
    """The care of one etcd cluster."""

    def __init__(
        self,
        store: EtcdStore,
        *,
        leading: Leading,
        metrics: Metrics,
        clock: Clock,
        randomness: Randomness,
        is_on: bool = True,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_on` False: look and tell, but change nothing."""
        self.statuses: tuple[MemberStatus, ...] = ()
        """Of every endpoint, as of the last look."""
        self._store = store
        self._leading = leading
        self._metrics = metrics
        self._clock = clock
        self._randomness = randomness
        self._is_on = is_on
        self._on_change = on_change
        self._memory = Memory()
        self._warned: set[tuple[str, str]] = set()
        self._told: tuple[str, ...] = ()
        self._leaderless_since: float | None = None
        self._outdated: dict[str, str] = {}  # url -> why our new certificate is not taken up
        self._quotas: dict[str, tuple[float, int]] = {}  # url -> (boot time, bytes)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the store, a sentence each."""
        outdated = (
            f"etcd member {url} does not take our renewed certificate, and serves us as long as the"
            f" connection stands that the old one opened: {why}"
            for url, why in sorted(self._outdated.items())
        )
        return (*conditions(self.statuses), *outdated)

    async def run(self) -> None:
        """Look and act for ever."""
        while True:
            acted = False
            try:
                acted = await self.look()
            except Exception:  # care for the store must never end the scheduler
                log.exception("the look after etcd failed")
            pause = 0.0 if acted else jittered(LOOK_SECONDS, self._randomness)
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Ask all members, tell what changed, do at most one thing; whether something was done."""
        await self._renew()
        self.statuses = await self._ask_all()
        self._tell()
        if not self._is_on or not self._may_act():
            return False
        action, self._memory = decide(self.statuses, self._memory, self._clock.boottime())
        if action is None:
            return False
        return await self._act(action)

    def _may_act(self) -> bool:
        leads, has_leader = self._leading()
        now = self._clock.boottime()
        if has_leader or leads:
            self._leaderless_since = None
            return leads
        if self._leaderless_since is None:
            self._leaderless_since = now
        patience = jittered(ORPHANED_SECONDS, self._randomness)
        waited = now - self._leaderless_since >= patience
        return waited and bool(full_members(self.statuses))

    # ------------------------------------------------------------------ looking

    async def _renew(self) -> None:
        """Take up certificates whose files have changed, one member after the other."""
        for member in self._store.connection.members:
            if why := await member.renew(STATUS_SECONDS):
                self._outdated[member.url] = why
            else:
                self._outdated.pop(member.url, None)

    async def _ask_all(self) -> tuple[MemberStatus, ...]:
        members = self._store.connection.members
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(each), name=each.url) for each in members]
        return tuple(task.result() for task in asked)

    async def _ask(self, member: Member) -> MemberStatus:
        connection = self._store.connection
        if not await member.ready(STATUS_SECONDS):
            return self._silent(member, "no connection in time")
        try:
            answer = await member.status(STATUS_SECONDS, connection.token)
        except grpc.aio.AioRpcError as error:
            verdict = connection.judged(error)
            if verdict.kind is Kind.OUTDATED:
                connection.forget_token()
            return self._silent(member, verdict.why)
        if answer.leader:
            connection.recovered(member)
        return MemberStatus(
            url=member.url,
            id=answer.header.member_id,
            leader=answer.leader,
            version=answer.version,
            revision=answer.header.revision,
            size_bytes=answer.dbSize,
            used_bytes=answer.dbSizeInUse or answer.dbSize,
            quota_bytes=await self._quota(member),
            alarms=alarms_in(answer.errors),
            is_learner=answer.isLearner,
        )

    def _silent(self, member: Member, why: str) -> MemberStatus:
        self._quotas.pop(member.url, None)  # it may come back with another
        return MemberStatus(url=member.url, trouble=why)

    async def _quota(self, member: Member) -> int:
        now = self._clock.boottime()
        asked, known = self._quotas.get(member.url, (now - QUOTA_SECONDS, 0))
        if now - asked < QUOTA_SECONDS:
            return known
        found = await quota_bytes(member.url, self._store.connection.options, STATUS_SECONDS)
        self._quotas[member.url] = (now, found)
        return found

    def _tell(self) -> None:
        for each in self.statuses:
            self._metrics.store_member_up.labels(each.url).set(each.is_healthy)
            if not each.trouble:
                self._metrics.store_size.labels(each.url).set(each.size_bytes)
                self._metrics.store_used.labels(each.url).set(each.used_bytes)
            if each.quota_bytes:
                self._metrics.store_quota.labels(each.url).set(each.quota_bytes)
            warning = version_warning(each.url, each.version)
            if warning and (each.url, each.version) not in self._warned:
                self._warned.add((each.url, each.version))
                log.warning(warning)
        self._metrics.store_full.set(bool(full_members(self.statuses)))
        told = self.conditions
        for sentence in told:
            if sentence not in self._told:
                log.warning("the store is not well", what=sentence)
        if self._told and not told:
            log.info("the store is well again")
        if told != self._told:
            self._told = told
            self._on_change()

    # ------------------------------------------------------------------ acting

    async def _act(self, action: Action) -> bool:
        began = self._clock.boottime()
        try:
            match action:
                case Compact(revision):
                    await self._store.compact(revision)
                case Defragment(url):
                    await self._defragment(url)
                case Disarm(members):
                    for each in members:
                        await self._disarm(each)
        except (StoreError, grpc.aio.AioRpcError) as error:
            why = _words(error)
            log.warning("upkeep of etcd failed", action=_named(action), why=why)
            if isinstance(action, Defragment):
                # Not again at once: a member that has no room for a second file never will.
                self._memory = self._memory.did(action, self._clock.boottime())
            return False
        now = self._clock.boottime()
        self._memory = self._memory.did(action, now)
        self._metrics.store_maintenance.labels(type(action).__name__.lower()).inc()
        log.info("upkeep of etcd", action=_named(action), why=action.reason, seconds=now - began)
        return True

    async def _defragment(self, url: str) -> None:
        (member,) = [each for each in self._store.connection.members if each.url == url]
        with self._store.connection.resting(member):
            await member.maintenance.Defragment(
                rpc_pb2.DefragmentRequest(),
                metadata=await self._store.connection.metadata(member),
                timeout=DEFRAGMENT_SECONDS,
            )

    async def _disarm(self, member_id: int) -> None:
        async def ask(member: Member, metadata: Any, seconds: float) -> None:
            request = rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=rpc_pb2.NOSPACE
            )
            await member.maintenance.Alarm(request, metadata=metadata, timeout=seconds)

        await self._store.connection.call(ask)


def _named(action: Action) -> str:
    match action:
        case Compact(revision):
            return f"compact the history up to revision {revision}"
        case Defragment(url):
            return f"defragment {url}"
        case Disarm():
            return f"disarm {NO_SPACE}"


def _words(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error)
