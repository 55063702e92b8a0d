"""The store in etcd: transactions, ranges, watches and leases behind the Store Protocol.

For clusters with several schedulers. Several clusters may share one etcd, each under a
prefix of its own; the revision is then etcd's, and moves also with what others write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
from aetcd.rpc import rpc_pb2

from homeport.seams import Randomness
from scheduler.store.base import (
    LEADER_KEY,
    OPERATIONS_MAX,
    Batch,
    Conflict,
    Fence,
    LeaseGone,
    Listing,
    Record,
    TooLarge,
    Unavailable,
    Write,
)
from scheduler.store.compare import check, refusal
from scheduler.store.etcd.connection import Connection, EtcdFault, Metadata
from scheduler.store.etcd.faults import Kind
from scheduler.store.etcd.member import Member
from scheduler.store.etcd.messages import (
    REQUEST_BYTES_MAX,
    Keys,
    point,
    record_of,
    seen_in,
    transaction,
    ttl_of,
)
from scheduler.store.etcd.options import EtcdOptions
from scheduler.store.etcd.watching import Watches

PAGE_RECORDS = 1_000
"""Records per request while listing, so that each answer comes within a try's time."""


class EtcdStore:
    """One etcd cluster; see `Store`. Made inside a running event loop."""

    def __init__(self, options: EtcdOptions, randomness: Randomness) -> None:
        """Connects when it is first used. Raises Unavailable when a certificate is unreadable."""
        self.connection = Connection(options, randomness)
        self._keys = Keys(options.prefix)
        self._watches = Watches(self.connection, self._keys, randomness)
        self._name = f"etcd {options.where}"

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @property
    def operations_max(self) -> int:
        """How many writes one commit may carry."""
        return OPERATIONS_MAX

    async def get(self, key: str) -> Record | None:
        """The record as it is now (linearizable), or None."""
        answer = await self._range(rpc_pb2.RangeRequest(key=self._keys.raw(key)))
        return record_of(self._keys, answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        """All records whose key starts with `prefix`, at one revision."""
        while True:
            try:
                return await self._list(prefix)
            except EtcdFault as fault:
                # Compacted between two pages: begin anew, at a newer revision.
                if fault.verdict.kind is not Kind.COMPACTED:
                    raise Unavailable(f"etcd at {fault}") from fault

    async def _list(self, prefix: str) -> Listing:
        start, end = self._keys.range(prefix)
        records: list[Record] = []
        revision = 0
        while True:
            request = rpc_pb2.RangeRequest(
                key=start, range_end=end, limit=PAGE_RECORDS, revision=revision
            )
            answer = await self._range(request)
            records += (record_of(self._keys, kv) for kv in answer.kvs)
            revision = revision or answer.header.revision
            if not answer.more:
                return Listing(tuple(records), revision)
            start = answer.kvs[-1].key + b"\0"

    async def commit(self, writes: Sequence[Write], fence: Fence | None = None) -> int:
        """Make all writes, or none, durably; see `Store.commit`. Raises TooLarge beyond 1.5 MiB."""
        writes = tuple(writes)
        check(writes, self.operations_max)
        if not writes or (fence is not None and fence.epoch <= 0):
            return await self._check_fence(fence)
        request = transaction(self._keys, writes, fence)
        if (size := request.ByteSize()) > REQUEST_BYTES_MAX:
            raise TooLarge(size, REQUEST_BYTES_MAX)

        async def ask(member: Member, metadata: Metadata, seconds: float) -> Any:
            return await member.kv.Txn(request, metadata=metadata, timeout=seconds)

        try:
            answer = await self.connection.call(ask, is_write=True)
        except EtcdFault as fault:
            raise await self._refused(fault, writes, size) from None
        if answer.succeeded:
            return int(answer.header.revision)
        raise refusal(writes, fence, seen_in(self._keys, answer)) or Conflict(
            [write.key for write in writes]
        )

    async def _check_fence(self, fence: Fence | None) -> int:
        """A read, and so nothing for anybody's disk; it needs a quorum nevertheless."""
        answer = await self._range(point(self._keys, LEADER_KEY))
        created = answer.kvs[0].create_revision if answer.kvs else 0
        if error := refusal((), fence, lambda _: (0, created)):
            raise error
        return int(answer.header.revision)

    async def _refused(self, fault: EtcdFault, writes: Sequence[Write], size: int) -> Exception:
        match fault.verdict.kind:
            case Kind.LEASE_GONE:
                leases = [each.lease for each in writes if each.value is not None and each.lease]
                for lease in leases[:-1]:
                    if not await self._time_left(lease):
                        return LeaseGone(lease)
                return LeaseGone(leases[-1])
            case Kind.TOO_LARGE:
                return TooLarge(size, REQUEST_BYTES_MAX)
            case Kind.NO_SPACE:
                return Unavailable(
                    f"etcd's database is full (alarm NOSPACE, said by {fault.url}): nothing was"
                    " written; reads and deletions go on. The leader compacts and defragments it"
                    " by itself unless that is turned off; else raise --quota-backend-bytes, then"
                    " `etcdctl alarm disarm`"
                )
            case _:
                return Unavailable(f"etcd at {fault}")

    async def _time_left(self, lease: int) -> bool:
        async def ask(member: Member, metadata: Metadata, seconds: float) -> Any:
            return await member.lease.LeaseTimeToLive(
                rpc_pb2.LeaseTimeToLiveRequest(ID=lease), metadata=metadata, timeout=seconds
            )

        try:
            return bool((await self.connection.call(ask)).TTL > 0)
        except EtcdFault:
            return False

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change under `prefix` behind revision `after`."""
        return self._watches.watch(prefix, after)

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`, of all that share this etcd."""
        if revision <= 0:
            self.connection.check_open()
            return

        async def ask(member: Member, metadata: Metadata, seconds: float) -> None:
            request = rpc_pb2.CompactionRequest(revision=revision)
            await member.kv.Compact(request, metadata=metadata, timeout=seconds)

        try:
            await self.connection.call(ask)
        except EtcdFault as fault:
            if fault.verdict.kind is Kind.FUTURE:
                await self.compact(await self.commit(()))
            elif fault.verdict.kind is not Kind.COMPACTED:
                raise Unavailable(f"etcd at {fault}") from fault

    async def grant(self, ttl_seconds: float) -> int:
        """A new lease of whole seconds; etcd makes it longer than its own election (2 s)."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_of(ttl_seconds))

        async def ask(member: Member, metadata: Metadata, seconds: float) -> int:
            answer = await member.lease.LeaseGrant(request, metadata=metadata, timeout=seconds)
            return int(answer.ID)

        # A lease whose answer was lost ends by itself: it may be asked for again.
        try:
            return await self.connection.call(ask)
        except EtcdFault as fault:
            raise await self._refused(fault, (), 0) from None

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease, which writes nothing; 0 when it is gone."""

        async def ask(member: Member, metadata: Metadata, seconds: float) -> float:
            call = member.lease.LeaseKeepAlive(metadata=metadata, timeout=seconds)
            try:
                await call.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    raise Unavailable(f"etcd at {member.url} ended the renewal of a lease")
                return float(max(0, answer.TTL))
            finally:
                call.cancel()

        try:
            return await self.connection.call(ask)
        except EtcdFault as fault:
            if fault.verdict.kind is Kind.LEASE_GONE:
                return 0.0
            raise Unavailable(f"etcd at {fault}") from fault

    async def revoke(self, lease: int) -> None:
        """End a lease now, deleting its keys."""

        async def ask(member: Member, metadata: Metadata, seconds: float) -> None:
            request = rpc_pb2.LeaseRevokeRequest(ID=lease)
            await member.lease.LeaseRevoke(request, metadata=metadata, timeout=seconds)

        try:
            await self.connection.call(ask)
        except EtcdFault as fault:
            if fault.verdict.kind is not Kind.LEASE_GONE:
                raise Unavailable(f"etcd at {fault}") from fault

    async def close(self) -> None:
        """Let calls under way be answered, then end watches and connections."""
        if self.connection.closed is None:
            self.connection.closed = f"the store {self._name} is closed"
            self._watches.close()
            await self.connection.close()

    async def _range(self, request: Any) -> Any:
        async def ask(member: Member, metadata: Metadata, seconds: float) -> Any:
            return await member.kv.Range(request, metadata=metadata, timeout=seconds)

        answer = await self.connection.call(ask)
        self._watches.seen(answer.header.revision)
        return answer
