"""What is injected everywhere: all that a simulation replaces.

Time, randomness, transport, store and runtime reach the code as arguments of these
types and in no other way. Waiting is asyncio's own (`asyncio.sleep`, `asyncio.timeout`):
a simulation replaces the event loop, so these follow virtual time by themselves.

A newcomer's mistake: using wall time to measure. Durations, deadlines and leases are on
`Clock.boottime`, which counts suspend and never jumps; wall time is for people to read.
The store's Protocol is in `scheduler.store.base`, the runtime's in `agent.runtime.base`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol


class Clock(Protocol):
    """Two clocks: one to measure with, one to show to people."""

    def boottime(self) -> float:
        """Seconds since the machine started, counting suspend; never jumps."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970, as this machine believes; may jump either way."""
        ...


class SystemClock:
    """The machine's clocks."""

    def boottime(self) -> float:
        """CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> int:
        """CLOCK_REALTIME in milliseconds."""
        return time.time_ns() // 1_000_000


class Randomness(Protocol):
    """A source of jitter and identifiers."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of k random bits."""
        ...


def system_randomness() -> Randomness:
    """The operating system's source, which needs no seed and repeats nothing."""
    return random.SystemRandom()


def identifier(randomness: Randomness, bits: int = 80) -> str:
    """A fresh identifier of lower-case hex digits."""
    return f"{randomness.getrandbits(bits):0{bits // 4}x}"


def jittered(seconds: float, randomness: Randomness, *, part: float = 0.3) -> float:
    """`seconds`, give or take `part` of it, so that many that wait do not wake together."""
    return seconds * (1 + part * (2 * randomness.random() - 1))


class LinkLost(Exception):
    """The connection to a scheduler ended or cannot be made; says why."""


class Stream(Protocol):
    """One open bidirectional lane, seen from one end. Messages are `homeport.v1` messages.

    Iterating yields what the other side sends and ends when it closes cleanly; a broken
    lane raises LinkLost from the iteration and from `send`.
    """

    def __aiter__(self) -> AsyncIterator[Any]:
        """What the other side sends."""
        ...

    async def send(self, message: Any, /) -> None:
        """Send one message; waits while the other side is slower. Raises LinkLost."""
        ...

    async def close(self) -> None:
        """Say that nothing more will be sent. Never raises."""
        ...


class SchedulerLink(Protocol):
    """An agent's connection to one scheduler: the three lanes and the join call."""

    async def join(self, request: Any, /) -> Any:
        """Dispatcher.Join; raises LinkLost, or Refused with the scheduler's sentence."""
        ...

    def heartbeat(self) -> Stream:
        """Open the heartbeat lane."""
        ...

    def session(self) -> Stream:
        """Open the lane of orders and reports."""
        ...

    def bulk(self) -> Stream:
        """Open one bulk call."""
        ...

    async def close(self) -> None:
        """End all lanes. Never raises."""
        ...


class Refused(Exception):
    """The scheduler answered, and the answer is no; the text is a sentence for the operator."""


class Transport(Protocol):
    """How an agent reaches schedulers."""

    def connect(self, address: str, /) -> SchedulerLink:
        """A link to the scheduler at HOST:PORT; dials when it is first used."""
        ...
