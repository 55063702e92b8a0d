"""Whole schedulers on one store in memory, in virtual time, with a way from each to each.

Between a caller's message and the answering scheduler nothing is left out but gRPC itself:
a call crosses the hop as bytes, and its failure comes back as a status.
"""

import asyncio
import contextlib
import dataclasses
import random

from homeport.model import Leader
from homeport.v1 import types_pb2
from scheduler.api.errors import LeaderLost, Relayed, failure
from scheduler.api.routing import Caller
from scheduler.config import Timers
from scheduler.core import Core
from scheduler.store.images import Images
from scheduler.store.memory import MemoryStore


class LoopClock:
    """The loop's virtual time."""

    def boottime(self):
        return asyncio.get_running_loop().time()

    def wall_ms(self):
        return 1_700_000_000_000 + round(asyncio.get_running_loop().time() * 1000)


async def until(check):
    """Return when this is so; what is looked at tells nobody when it changes."""
    async with asyncio.timeout(60):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


class Line:
    """One scheduler's way to the store, which can be cut and slowed."""

    def __init__(self, store):
        self._store = store
        self.name = "etcd at here:2379"
        self.is_cut = False
        self.lag_seconds = 0.0  # of what the watch tells
        self.watched = []  # the revisions behind which the store's history was read

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments):
            if self.is_cut:
                await asyncio.sleep(3600)
            return await found(*arguments)

        return call

    async def watch(self, prefix, after):
        self.watched.append(after)
        async with contextlib.aclosing(self._store.watch(prefix, after)) as batches:
            async for batch in batches:
                if self.lag_seconds:
                    await asyncio.sleep(self.lag_seconds)
                await until(lambda: not self.is_cut)
                yield batch


class Hop:
    """One scheduler's way to the others, as gRPC's is: messages there, messages or a no back."""

    def __init__(self, schedulers, me):
        self._schedulers = schedulers
        self._me = me
        self.asked = []  # (address, method, caller)

    def _at(self, address, method, caller):
        there = self._schedulers[address]
        self.asked.append((address, method, caller))
        if not there.is_running:
            raise LeaderLost(f"the leader at {address} does not answer")
        return there, dataclasses.replace(caller, forwarded_by=self._me)

    async def unary(self, address, method, request, caller, timeout_seconds):
        there, caller = self._at(address, method, caller)
        try:
            async with asyncio.timeout(timeout_seconds):
                if there.is_frozen:
                    await asyncio.sleep(3600)
                with relaying():
                    return copied(await there.core.front.unary(method, copied(request), caller))
        except TimeoutError:
            raise LeaderLost(f"the leader at {address} does not answer") from None

    async def stream(self, address, method, requests, caller):
        there, caller = self._at(address, method, caller)
        answers = asyncio.Queue(8)

        async def serve():
            try:
                with relaying():
                    await there.core.front.stream(method, requests, caller, answers.put)
            except Exception as error:  # noqa: BLE001
                await answers.put(error)
            await answers.put(None)

        task = asyncio.create_task(serve())
        there.calls.add(task)
        task.add_done_callback(lambda _: answers.full() or answers.put_nowait(None))
        try:
            while (answer := await answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield copied(answer)
            if not there.is_running:
                raise LeaderLost(f"the leader at {address} does not answer: it is gone")
        finally:
            task.cancel()


@contextlib.contextmanager
def relaying():
    """A failure crosses as a status, as the interceptor and the hop make it one."""
    try:
        yield
    except Exception as error:
        found = failure(error)
        if found is None:
            raise
        raise Relayed(found.code, found.sentence, found.status()) from None


def copied(message):
    """What crosses is bytes."""
    copy = type(message)()
    copy.ParseFromString(message.SerializeToString())
    return copy


class Scheduler:
    """One scheduler, which can be stopped, killed and frozen."""

    def __init__(self, name, store, schedulers, folder):
        self.address = f"{name}:7070"
        self.store = Line(store)
        self.hop = Hop(schedulers, self.address)
        self.is_frozen = False
        self.calls = set()
        self.core = Core(
            store=self.store,
            me=Leader(id=name, address=self.address),
            timers=Timers(),
            clock=LoopClock(),
            randomness=random.Random(name),
            images=Images(folder / name),
            writer=name,
            hop=self.hop,
        )
        schedulers[self.address] = self
        self._task = None

    @property
    def is_running(self):
        return self._task is not None and not self._task.done()

    @property
    def leads(self):
        return self.core.control.lead is not None

    def start(self):
        self._task = asyncio.create_task(self.core.run())
        return self

    async def end(self):
        """Stop it and all calls that it answers."""
        for task in (*self.calls, self._task):
            if task is not None:
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def ask(self, method, request, **caller):
        """Call it as a user does. Raises Relayed."""
        with relaying():
            return await self.core.front.unary(method, request, Caller(peer="laptop", **caller))

    @contextlib.asynccontextmanager
    async def watching(self, request, **caller):
        """A watch at it: a queue of what comes, with an exception where it ends."""
        told = asyncio.Queue(1)

        async def run():
            try:
                with relaying():
                    await self.core.front.stream(
                        "Watch", request, Caller(peer="laptop", **caller), told.put
                    )
            except Exception as error:  # noqa: BLE001
                await told.put(error)

        task = asyncio.create_task(run())
        try:
            yield told
        finally:
            task.cancel()


class Schedulers:
    """Several of them on one store."""

    def __init__(self, folder, count=2):
        self.store = MemoryStore(LoopClock(), history_revisions=500)
        self.by_address = {}
        self.all = [
            Scheduler(f"s{number}", self.store, self.by_address, folder)
            for number in range(1, count + 1)
        ]

    async def leader(self):
        """The one that leads, once one does."""
        await until(lambda: any(each.is_running and each.leads for each in self.all))
        return next(each for each in self.all if each.is_running and each.leads)

    async def pair(self):
        """(the leader, a follower that knows it)."""
        leader = await self.leader()
        follower = next(each for each in self.all if each is not leader and each.is_running)
        await until(lambda: follower.core.control.leader == leader.address)
        return leader, follower


def stack(name="hello", image="example", replicas=1):
    """A stack of one simulated service."""
    service = types_pb2.ServiceSpec(
        name="web",
        driver=types_pb2.DRIVER_SIMULATED,
        replicas=replicas,
        container=types_pb2.ContainerSpec(image=image),
    )
    return types_pb2.StackSpec(name=name, services=[service])
