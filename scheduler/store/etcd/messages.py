"""Our words as etcd's messages and back: values to values, nothing is sent here.

What a newcomer gets wrong: an expected version of 0 is a compare with `mod_revision` 0, which
etcd gives to a key that is not there. A transaction without operations is answered from one
member's memory, stale or not, so a check of the fence is a read of the leader's key instead.
etcd counts the largest of compares, operations and else-operations against --max-txn-ops,
not their sum: 120 writes with a compare each and the fence make 121.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aetcd.rpc import kv_pb2, rpc_pb2

from scheduler.store.base import ANY, LEADER_KEY, Fence, Record, StoreChange, Write
from scheduler.store.compare import Seen

REQUEST_BYTES_MAX = 1_572_864 - 4_096
"""etcd's stock --max-request-bytes, less what its log adds."""

_PUT = kv_pb2.Event.PUT


class Keys:
    """Our keys in etcd's key space: text behind a prefix."""

    def __init__(self, prefix: str) -> None:
        """`prefix` as in /homeport/."""
        self._prefix = prefix.encode()

    def raw(self, key: str) -> bytes:
        """etcd's key."""
        return self._prefix + key.encode()

    def text(self, raw: bytes) -> str:
        """Ours."""
        return raw[len(self._prefix) :].decode()

    def range(self, prefix: str) -> tuple[bytes, bytes]:
        """The first key that begins with `prefix`, and the first behind all that do."""
        start = self.raw(prefix)
        # UTF-8 never ends in 0xff, so the last byte can be raised.
        return start, start[:-1] + bytes([start[-1] + 1])


def transaction(keys: Keys, writes: Sequence[Write], fence: Fence | None) -> Any:
    """One TxnRequest; its else-branch reads what was compared, to tell what differs."""
    request = rpc_pb2.TxnRequest()
    if fence is not None:
        request.compare.add(
            result=rpc_pb2.Compare.EQUAL,
            target=rpc_pb2.Compare.CREATE,
            key=keys.raw(LEADER_KEY),
            create_revision=fence.epoch,
        )
        request.failure.add().request_range.CopyFrom(point(keys, LEADER_KEY))
    for write in writes:
        raw = keys.raw(write.key)
        if write.expect != ANY:
            request.compare.add(
                result=rpc_pb2.Compare.EQUAL,
                target=rpc_pb2.Compare.MOD,
                key=raw,
                mod_revision=write.expect,
            )
            seen = request.failure.add().request_range  # as `point` has it
            seen.key, seen.keys_only = raw, True
        operation = request.success.add()
        if write.value is None:
            operation.request_delete_range.key = raw
        else:
            put = operation.request_put
            put.key, put.value, put.lease = raw, write.value, write.lease
    return request


def point(keys: Keys, key: str) -> Any:
    """A RangeRequest for the revisions of one key, without its value."""
    return rpc_pb2.RangeRequest(key=keys.raw(key), keys_only=True)


def seen_in(keys: Keys, answer: Any) -> Seen:
    """What the else-branch of a transaction found."""
    found = {
        keys.text(kv.key): (kv.mod_revision, kv.create_revision)
        for response in answer.responses
        for kv in response.response_range.kvs
    }
    return lambda key: found.get(key, (0, 0))


def record_of(keys: Keys, kv: Any) -> Record:
    """A key with its value."""
    return Record(keys.text(kv.key), kv.value, kv.mod_revision, kv.create_revision)


def change_of(keys: Keys, event: Any) -> StoreChange:
    """An event of a watch."""
    kv = event.kv
    key = keys.text(kv.key)
    if event.type == _PUT:
        return StoreChange(key, kv.value, kv.mod_revision, kv.create_revision)
    return StoreChange(key, None, kv.mod_revision, 0)


def ttl_of(ttl_seconds: float) -> int:
    """A lease's time as etcd counts it, in whole seconds, never less than what was asked for."""
    if not ttl_seconds > 0:
        raise ValueError(f"a lease of {ttl_seconds} s would end before it begins")
    return math.ceil(ttl_seconds)
