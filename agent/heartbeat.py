"""The heartbeat lane: tell a scheduler that this node lives, and take its lease from it.

It has a stream of its own, so that no report and no order can hold it up. A newcomer's
mistake: counting the lease from the answer's arrival. It counts from the sending of the
heartbeat that is answered, whose boot time the scheduler echoes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.identity import Identity
from agent.lease import Lease
from homeport import codec
from homeport.model import OrderId
from homeport.seams import Clock, LinkLost, Randomness, Stream, jittered
from homeport.v1 import dispatcher_pb2

ANSWER_SECONDS = 2.0
"""Without an answer for so long (or two heartbeats) the agent tries the next scheduler."""
JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What the agent believes at the moment; a scheduler compares it with its own."""

    wanted_hash: bytes
    running_hash: bytes
    seen: OrderId


class HeartbeatLane:
    """The heartbeats of one session."""

    def __init__(
        self,
        stream: Stream,
        *,
        identity: Identity,
        session_id: str,
        boot_id: str,
        clock: Clock,
        randomness: Randomness,
        lease: Lease,
        period_seconds: float,
        belief: Callable[[], Belief],
        on_answer: Callable[[Any], None],
    ) -> None:
        """`on_answer` gets each answer, and may raise to end the session."""
        self._stream = stream
        self._identity = identity
        self._session_id = session_id
        self._boot_id = boot_id
        self._clock = clock
        self._randomness = randomness
        self._lease = lease
        self._period_seconds = period_seconds
        self._belief = belief
        self._on_answer = on_answer
        self._limit = asyncio.timeout(None)
        self._unanswered = 0

    async def run(self) -> None:
        """Beat until cancelled. Raises LinkLost when the answers fail to come."""
        async with asyncio.TaskGroup() as background:
            # First the receiver: it enters the limit that the sender sets.
            background.create_task(self._receive(), name="answers to heartbeats")
            background.create_task(self._send(), name="heartbeats")

    async def _send(self) -> None:
        while True:
            self._unanswered += 1
            if self._unanswered == 1:
                patience = max(ANSWER_SECONDS, 2 * self._period_seconds)
                self._expect_by(asyncio.get_running_loop().time() + patience)
            await self._stream.send(self._beat())
            await asyncio.sleep(jittered(self._period_seconds, self._randomness, part=JITTER))

    def _beat(self) -> Any:
        belief = self._belief()
        beat = dispatcher_pb2.HeartbeatRequest(
            cluster_id=self._identity.cluster_id,
            node_id=self._identity.node_id,
            session_id=self._session_id,
            boot_id=self._boot_id,
            sent_boottime_ns=int(self._clock.boottime() * 1e9),
            wanted_hash=belief.wanted_hash,
            running_hash=belief.running_hash,
        )
        codec.fill(beat.seen, belief.seen)
        return beat

    def _expect_by(self, when: float | None) -> None:
        # After a pause the limit may be over before its word has got around: the lane is then
        # about to end, and why is told by whoever ends it.
        with contextlib.suppress(RuntimeError):
            self._limit.reschedule(when)

    async def _receive(self) -> None:
        try:
            async with self._limit:
                async for answer in self._stream:
                    self._take(answer)
        except TimeoutError:
            patience = max(ANSWER_SECONDS, 2 * self._period_seconds)
            raise LinkLost(f"no answer to heartbeats for {patience:g} s") from None
        raise LinkLost("the scheduler closed the heartbeat lane")

    def _take(self, answer: Any) -> None:
        self._unanswered = 0
        self._expect_by(None)
        if answer.node_lease_ms > 0:  # else what there is lasts, and is not renewed
            self._lease.renew(
                sent_seconds=answer.echoed_boottime_ns / 1e9,
                heard_seconds=self._clock.boottime(),
                lease_seconds=answer.node_lease_ms / 1000,
            )
        if answer.next_heartbeat_ms > 0:
            self._period_seconds = answer.next_heartbeat_ms / 1000
        self._on_answer(answer)
