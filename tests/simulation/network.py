"""A network between simulated machines: calls that delay, lose, cut and break.

A lane behaves as a gRPC stream does: messages arrive in order or the lane breaks, a server's
handler that returns ends the call for the client, and a call that the client drops cancels
the handler. Trouble is therefore: delay, a break that loses everything in flight, and a cut
in one direction, under which messages wait and the lane breaks once the keepalive has
noticed. A proxy with a bug may do worse, and so does this: repeat a message later, or let
others overtake it. What flies belongs to the network: it arrives also when its sender is dead or
stopped by then.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from homeport.seams import LinkLost

KEEPALIVE_SECONDS = 8.5
LATE_SECONDS = 4.0
"""By how much, at most, a message that is repeated or overtaken comes later."""
WINDOW_MESSAGES = 64
"""A sender waits while so many messages are under way or unread."""


@dataclass
class Weather:
    """How bad the network is now."""

    delay_min: float = 0.0005
    delay_max: float = 0.003
    slow: float = 0.0  # probability that a message takes up to `slow_seconds`
    slow_seconds: float = 3.0
    lose: float = 0.0  # probability that a message breaks its lane instead of arriving
    repeat: float = 0.0  # probability that a message comes a second time, some time later
    reorder: float = 0.0  # probability that a message is overtaken by those behind it


class Network:
    """Who can talk to whom, and how well."""

    def __init__(self, loop):
        self.loop = loop
        self.weather = Weather()
        self.cuts = set()  # (from, to) names of machines
        self.late = {}  # (from, to) -> by how many seconds the next message is late
        self.reading_seconds = 0.0
        """How long, at most, a server that was stopped takes to read what came meanwhile."""
        self.servers = {}  # address -> what has `name`, `process` and `serve(method, end)`
        self.on_delivered = lambda sender, receiver, what: None
        self.counts = {
            "delivered": 0,
            "broken": 0,
            "held up by a cut": 0,
            "repeated": 0,
            "overtaken": 0,
        }
        self._lanes = {}  # a set in the order of making

    def cut(self, sender, receiver):
        """Let nothing through from `sender` to `receiver`."""
        self.cuts.add((sender, receiver))

    def heal(self):
        """Let everything through again."""
        self.cuts.clear()
        self.weather = Weather()
        self.late.clear()
        self.reading_seconds = 0.0

    def reset(self, machine):
        """The machine's process died: its lanes end as closed sockets do."""
        for lane in list(self._lanes):
            for end in lane.ends:
                if end.machine == machine:
                    end.abort(f"connection to {machine} was reset")

    def dial(self, client, address, method):
        """Open a lane to the server at this address; returns the client's end."""
        server = self.servers[address]
        lane = _Lane(self, client, server.name)
        self._lanes[lane] = None
        self.later(self.delay(), self._accept, lane, server, method, self.loop.now)
        return lane.ends[0]

    def later(self, seconds, callback, *arguments):
        """Call back when nobody's process is asked."""
        self.loop.later(seconds, callback, *arguments)

    def sleeps_until(self, name):
        """When the server that is stopped goes on."""
        servers = [each for each in self.servers.values() if each.name == name]
        return max((each.paused_until for each in servers), default=0.0)

    def delay(self):
        """How long the next message takes."""
        weather, rng = self.weather, self.loop.rng
        delay = rng.uniform(weather.delay_min, weather.delay_max)
        if weather.slow and rng.random() < weather.slow:
            delay += rng.random() * weather.slow_seconds
        return delay

    def _accept(self, lane, server, method, dialled):
        client, _ = lane.ends
        if client.broken is not None:
            return
        is_cut = (lane.client, lane.server) in self.cuts or (lane.server, lane.client) in self.cuts
        if is_cut:
            if self.loop.now - dialled > KEEPALIVE_SECONDS:
                lane.break_off("connect timed out")
            else:
                self.later(0.25, self._accept, lane, server, method, dialled)
        elif server.process is None:
            lane.break_off("connection refused")
        else:
            lane.handler = self.loop.spawn(server.process, server.serve(method, lane.ends[1]))
            lane.directions[0].open()


class _Lane:
    def __init__(self, network, client, server):
        self.network = network
        self.client = client
        self.server = server
        self.dialled = network.loop.now
        self.handler = None
        to_server = _Direction(self, client, server, is_open=False)
        to_client = _Direction(self, server, client, is_open=True)
        self.directions = (to_server, to_client)
        self.ends = (
            End(self, client, to_server, to_client),
            End(self, server, to_client, to_server),
        )

    def break_off(self, reason):
        """Both ends see it now."""
        for end in self.ends:
            end.lose(reason)

    def lost(self):
        """One end saw it."""
        if self.ends[1].broken is not None and self.handler is not None:
            self.handler.cancel()  # as grpc.aio does with the handler of a call that is gone
            self.handler = None
        if all(end.broken is not None for end in self.ends):
            self.network._lanes.pop(self, None)


@dataclass
class _Finish:
    """The server's handler returned; `error` is what it raised, in words."""

    error: object


@dataclass
class _Abort:
    """The other end dropped the call."""

    reason: str


_CLOSE = "no more messages"


def _is_message(what):
    return what is not _CLOSE and not isinstance(what, (_Finish, _Abort))


class _Direction:
    """One way of a lane: an ordered queue whose messages become visible at a time."""

    def __init__(self, lane, sender, receiver, *, is_open):
        self.lane = lane
        self.sender = sender
        self.receiver = receiver
        self.queue = deque()
        self.last_arrival = 0.0
        self._is_open = is_open
        self._wakers = []
        self._flying = deque()

    @property
    def is_full(self):
        return len(self.queue) + len(self._flying) >= WINDOW_MESSAGES

    def wait(self):
        waker = self.lane.network.loop.create_future()
        self._wakers.append(waker)
        return waker

    def wake(self):
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def open(self):
        """The other side is there: what was sent sets out."""
        self._is_open = True
        self._set_timer()

    def put(self, what):
        network = self.lane.network
        loop, weather = network.loop, network.weather
        if weather.lose and loop.rng.random() < weather.lose:
            network.later(0.001, self.lane.break_off, "connection reset by peer")
            return
        if weather.repeat and loop.rng.random() < weather.repeat and _is_message(what):
            network.counts["repeated"] += 1
            network.later(loop.rng.uniform(0, LATE_SECONDS), self._fly, what)
        if weather.reorder and loop.rng.random() < weather.reorder and _is_message(what):
            network.counts["overtaken"] += 1
            network.later(loop.rng.uniform(0, LATE_SECONDS), self._fly, what)
        else:
            self._fly(what)

    def _fly(self, what):
        network = self.lane.network
        loop = network.loop
        late = network.late.pop((self.sender, self.receiver), 0.0) if network.late else 0.0
        self.last_arrival = max(self.last_arrival, loop.now + network.delay() + late)
        self._flying.append((self.last_arrival, loop.now, what))
        if len(self._flying) == 1:
            self._set_timer()

    def _set_timer(self):
        if self._flying and self._is_open:
            network = self.lane.network
            network.later(max(0.0, self._flying[0][0] - network.loop.now), self._arrive)

    def _arrive(self):
        """The oldest message that flies is here, unless a cut holds up all behind it."""
        network = self.lane.network
        loop = network.loop
        end = self.lane.ends[0] if self is self.lane.directions[1] else self.lane.ends[1]
        if end.broken is not None or not self._flying:
            return
        if network.reading_seconds and (wakes_at := network.sleeps_until(self.receiver)) > loop.now:
            wakes_at += loop.rng.random() * network.reading_seconds
            network.later(wakes_at - loop.now, self._arrive)
            return
        _, sent, what = self._flying[0]
        if (self.sender, self.receiver) in network.cuts:
            network.counts["held up by a cut"] += 1
            if loop.now - sent > KEEPALIVE_SECONDS:
                self.lane.break_off("keepalive timed out")
            else:
                network.later(0.25, self._arrive)
            return
        self._flying.popleft()
        network.counts["delivered"] += 1
        network.on_delivered(self.sender, self.receiver, what)
        if isinstance(what, _Abort):
            end.lose(what.reason)
        else:
            if isinstance(what, _Finish):
                end.over = what
            self.queue.append(what)
        self.wake()
        self._set_timer()


class End:
    """One end of a lane; a `homeport.seams.Stream`."""

    def __init__(self, lane, machine, outgoing, incoming):
        self.machine = machine
        self.broken = None  # why, as this end knows
        self.over = None  # client: the _Finish that came
        self.reports_told = 0  # for the checks
        self.on_send = lambda message: None
        self.on_receive = lambda message: None
        self._lane = lane
        self._outgoing = outgoing
        self._incoming = incoming

    @property
    def client(self):
        """The name of the machine that opened the lane."""
        return self._lane.client

    @property
    def dialled(self):
        """True time at which it did."""
        return self._lane.dialled

    def __aiter__(self):
        return self

    async def __anext__(self):
        incoming = self._incoming
        while not incoming.queue:
            if self.broken is not None:
                raise LinkLost(self.broken)
            await incoming.wait()
        what = incoming.queue[0]
        if what is _CLOSE:
            raise StopAsyncIteration
        if isinstance(what, _Finish):
            self._forget("the call is over")
            if what.error is not None:
                raise what.error if isinstance(what.error, Exception) else LinkLost(what.error)
            raise StopAsyncIteration
        incoming.queue.popleft()
        incoming.wake()  # there is room
        self.on_receive(what)
        return what

    async def send(self, message):
        self.on_send(message)
        # What crosses the network is a copy, as bytes are.
        copy = type(message)()
        copy.CopyFrom(message)
        while True:
            if self.broken is not None:
                raise LinkLost(self.broken)
            if self.over is not None:
                raise LinkLost("the call is over")
            if not self._outgoing.is_full:
                break
            await self._outgoing.wait()
        self._outgoing.put(copy)
        await asyncio.sleep(0)

    async def close(self):
        if self.broken is None and self.over is None:
            self._outgoing.put(_CLOSE)

    def finish(self, error=None):
        """Server: the handler is done."""
        if self.broken is None:
            self._outgoing.put(_Finish(error))
            self._forget("the call is over")

    def abort(self, reason):
        """Drop the call: this end at once, the other when it hears."""
        if self.broken is None:
            self._outgoing.put(_Abort(reason))
            self.lose(reason)

    def lose(self, reason):
        """This end learns that the call is gone."""
        if self.broken is None:
            self._lane.network.counts["broken"] += 1
            self._forget(reason)
            self._lane.lost()

    def _forget(self, reason):
        if self.broken is None:
            self.broken = reason
        self._incoming.wake()
        self._outgoing.wake()
        if all(end.broken is not None for end in self._lane.ends):
            self._lane.network._lanes.pop(self._lane, None)
