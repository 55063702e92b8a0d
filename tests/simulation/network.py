"""A network between simulated processes: lanes that delay, lose, cut and break.

A lane behaves as a gRPC stream does: messages arrive in order or the lane breaks. Trouble
is therefore: delay, a break that loses everything in flight, and a cut in one direction,
under which messages wait and the lane breaks once the keepalive has noticed.
"""

import asyncio
from dataclasses import dataclass

from homeport.seams import LinkLost

KEEPALIVE_SECONDS = 8.5


@dataclass
class Weather:
    """How bad the network is now."""

    delay_min: float = 0.0005
    delay_max: float = 0.003
    slow: float = 0.0  # probability that a message takes up to `slow_seconds`
    slow_seconds: float = 3.0
    lose: float = 0.0  # probability that a message breaks its lane instead of arriving


class Network:
    """Who can talk to whom, and how well."""

    def __init__(self, loop):
        self.loop = loop
        self.weather = Weather()
        self.cuts = set()  # (from, to) names of machines
        self.servers = {}  # address -> Server
        self._lanes = set()
        self.counts = {"delivered": 0, "broken": 0, "cut": 0}

    def cut(self, sender, receiver):
        """Let nothing through from `sender` to `receiver`."""
        self.cuts.add((sender, receiver))

    def heal(self):
        """Let everything through again."""
        self.cuts.clear()

    def break_all(self, machine):
        """The machine's process died: its lanes break as a closed socket does."""
        for lane in list(self._lanes):
            if machine in (lane.client, lane.server):
                lane.break_off(f"connection to {machine} was reset")

    def lane(self, client, server):
        """A fresh lane; returns (client's end, server's end)."""
        lane = _Lane(self, client, server)
        self._lanes.add(lane)
        return lane.ends


class _Lane:
    def __init__(self, network, client, server):
        self.network = network
        self.client = client
        self.server = server
        self.broken = None
        to_server = _Direction(self, client, server)
        to_client = _Direction(self, server, client)
        self.directions = (to_server, to_client)
        self.ends = (End(self, to_server, to_client), End(self, to_client, to_server))

    def break_off(self, reason):
        if self.broken is None:
            self.broken = reason
            self.network.counts["broken"] += 1
            self.network._lanes.discard(self)
            for direction in self.directions:
                direction.wake()


class _Direction:
    """One way of a lane: an ordered queue whose messages become visible at a time."""

    def __init__(self, lane, sender, receiver):
        self.lane = lane
        self.sender = sender
        self.receiver = receiver
        self.queue = []
        self.closed = False
        self.last_arrival = 0.0
        self._wakers = []
        self._flying = []

    def wake(self):
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def put(self, message):
        network = self.lane.network
        loop, weather = network.loop, network.weather
        if weather.lose and loop.rng.random() < weather.lose:
            loop.call_later(0.001, self.lane.break_off, "connection reset by peer")
            return
        delay = loop.rng.uniform(weather.delay_min, weather.delay_max)
        if weather.slow and loop.rng.random() < weather.slow:
            delay += loop.rng.random() * weather.slow_seconds
        self.last_arrival = max(self.last_arrival, loop.time() + delay)
        self._flying.append((self.last_arrival, loop.time(), message))
        if len(self._flying) == 1:
            loop.call_at(self.last_arrival, self._arrive)

    def _arrive(self):
        """The oldest message that flies is here, unless a cut holds up all behind it."""
        if self.lane.broken is not None:
            return
        network = self.lane.network
        loop = network.loop
        _, sent, message = self._flying[0]
        if (self.sender, self.receiver) in network.cuts:
            network.counts["cut"] += 1
            if loop.time() - sent > KEEPALIVE_SECONDS:
                self.lane.break_off("keepalive timed out")
            else:
                loop.call_later(0.25, self._arrive)
            return
        self._flying.pop(0)
        network.counts["delivered"] += 1
        self.queue.append(message)
        self.wake()
        if self._flying:
            loop.call_at(max(loop.time(), self._flying[0][0]), self._arrive)

    async def get(self):
        while not self.queue:
            if self.lane.broken is not None:
                raise LinkLost(self.lane.broken)
            if self.closed:
                raise StopAsyncIteration
            waker = self.lane.network.loop.create_future()
            self._wakers.append(waker)
            await waker
        return self.queue.pop(0)


_CLOSE = object()


class End:
    """One end of a lane; a `homeport.seams.Stream`."""

    def __init__(self, lane, outgoing, incoming):
        self._lane = lane
        self._outgoing = outgoing
        self._incoming = incoming

    def __aiter__(self):
        return self

    async def __anext__(self):
        message = await self._incoming.get()
        if message is _CLOSE:
            self._incoming.closed = True
            raise StopAsyncIteration
        # What crosses the network is a copy, as bytes are.
        copy = type(message)()
        copy.CopyFrom(message)
        return copy

    async def send(self, message):
        if self._lane.broken is not None:
            raise LinkLost(self._lane.broken)
        self._outgoing.put(message)
        await asyncio.sleep(0)

    async def close(self):
        if self._lane.broken is None:
            self._outgoing.put(_CLOSE)

    def abort(self, reason):
        """Break the lane from this end, as a cancelled call does."""
        self._lane.break_off(reason)
